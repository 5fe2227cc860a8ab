"""safetensors files: equal to what torch reads from them, views of the file, or refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError

BASE = torch.arange(-24, 24, dtype=torch.float32).reshape(6, 8) / 7

CODES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint16: "U16", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

TENSORS = {str(dtype): BASE.abs().to(dtype) for dtype in CODES} | {
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 3),
}


def file_of(tensors: dict[str, torch.Tensor], **metadata: str) -> bytes:
    """Put together by hand from the format's description."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, tensor in tensors.items():
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        place = [len(data), len(data) + len(content)]
        code = CODES[tensor.dtype]
        header[name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": place}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("padding", range(8))
def test_tensors_equal_those_of_the_library(tmp_path, padding):
    """Whatever the header's length: some make the first byte that of a pickle, or shift the data."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(TENSORS, note="x" * padding))
    checkpoint, theirs = read_checkpoint(path), safetensors.torch.load_file(path)
    assert (checkpoint.container, checkpoint.foreign) == ("safetensors", ())
    assert checkpoint.metadata == {"note": "x" * padding}
    assert checkpoint.content.keys() == theirs.keys() == TENSORS.keys()
    for name, tensor in theirs.items():
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        np.testing.assert_array_equal(checkpoint.content[name], tensor.numpy(), strict=True)


def test_a_header_whose_length_starts_like_a_pickle(tmp_path):
    path = tmp_path / "model.safetensors"
    for padding in range(256):
        data = file_of({"a": BASE}, note="x" * padding)
        if data[0] == 0x80:
            path.write_bytes(data)
            assert read_checkpoint(path).container == "safetensors"
            return
    raise AssertionError("no such length")


def test_arrays_are_views_of_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of({"a": BASE}))
    array = read_checkpoint(path).content["a"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_every_truncation_is_refused(tmp_path):
    path, data = tmp_path / "model.safetensors", file_of({"a": BASE, "b": BASE.half()})
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            read_checkpoint(path)


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": GOOD | {"dtype": "F8_E4M3"}}, "data type F8_E4M3"),
        ({"a": GOOD | {"dtype": ["F32"]}}, "data type"),
        ({"a": GOOD | {"shape": [3]}}, "does not fit"),
        ({"a": GOOD | {"shape": [-2, -1]}}, "entry of a"),
        ({"a": GOOD | {"shape": [2.0]}}, "entry of a"),
        ({"a": GOOD | {"shape": [True, 2]}}, "entry of a"),
        ({"a": GOOD | {"shape": 2}}, "entry of a"),
        ({"a": GOOD | {"shape": [0, 1 << 40, 1 << 40], "data_offsets": [0, 0]}}, "does not fit"),
        ({"a": GOOD | {"data_offsets": [8, 0]}}, "does not fit"),
        ({"a": GOOD | {"data_offsets": [0]}}, "entry of a"),
        ({"a": GOOD | {"data_offsets": [4, 12]}}, "leaves a hole"),
        ({"a": GOOD | {"more": 1}}, "entry of a"),
        ({"a": {"dtype": "F32"}}, "entry of a"),
        ({"a": [1]}, "entry of a"),
        ({"a": GOOD, "__metadata__": {"a": 1}}, "metadata"),
        ({"a": GOOD, "__metadata__": "text"}, "metadata"),
        ({"a": GOOD, "b": GOOD}, "overlaps"),
        ({}, "belong to no tensor"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, header, says):
    path, text = tmp_path / "model.safetensors", json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InputError, match=says):
        read_checkpoint(path)
    text = json.dumps({"a": GOOD}).encode()  # the benign twin
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    assert read_checkpoint(path).content["a"].tolist() == [0, 0]
