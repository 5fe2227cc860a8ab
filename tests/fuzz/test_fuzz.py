"""A short run of the fuzzer, and inputs that hypothesis makes: right, or refused with one line."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError

FUZZER = Path(__file__).with_name("fuzz_converter.py")

ours = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def test_two_thousand_mutations(run_tool):
    """With a limit of time: a hang fails too. `make fuzz` tries more."""
    result = run_tool(str(FUZZER), "--inputs", "2000", "--seed", "4")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    _header, *rows = (line.split("  ") for line in result.stdout.splitlines()[:7])
    counts = {row[0]: [int(n.replace(",", "")) for n in row[1:] if n.strip()] for row in rows}
    tried, converted, as_torch, refused, other = counts["all"]
    assert (tried, converted + refused, other) == (2000, 2000, 0)
    # Both ends are reached in every container, and torch agrees, or the fuzzer would prove little.
    for container, (_, converted, as_torch, refused, _) in counts.items():
        assert min(converted, refused) > 10, container
        assert as_torch > 5 or "pickle" in container, container


def test_the_payloads_work(tmp_path, monkeypatch):
    """On Python's own unpickler some of them run, or that none did would prove nothing."""
    specification = importlib.util.spec_from_file_location("fuzz_converter", FUZZER)
    fuzzer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fuzzer)
    marker = tmp_path / "code_was_run"
    monkeypatch.setenv("FUZZ_MARKER", str(marker))
    worked = 0
    for number in range(40):
        data = bytearray(pickle.dumps({"a": [1, 2, 3]}, 4))
        fuzzer.set_payload(data, random.Random(number))
        with contextlib.suppress(Exception):
            pickle.loads(data)
        worked += marker.exists()
        marker.unlink(missing_ok=True)
    assert worked > 10


def read(path: Path, data: bytes) -> object:
    """The content, or None where it is refused with one line; anything else is raised."""
    path.write_bytes(data)
    try:
        return read_checkpoint(path).content
    except InputError as error:
        assert "\n" not in str(error)
        return None


@ours
@given(st.binary(max_size=400))
def test_any_bytes_as_a_pickle(tmp_path, data):
    read(tmp_path / "file", b"\x80\x02" + data)


INSTRUCTIONS = (
    [
        bytes([code])
        for code in b"()]}NKMJGXqhjrctRbsuae0.12QBCU\x81\x85\x86\x87\x88\x89\x8a\x93\x94"
    ]
    + [b"K\x01", b"K\x07", b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"X\x01\x00\x00\x00a"]
    + [
        b"c" + name.replace(".", "\n").encode() + b"\n"
        for name in ("collections.OrderedDict", "numpy.dtype", "numpy.ndarray", "torch.Size")
    ]
    + [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"c__builtin__\ngetattr\n",
        b"c__builtin__\nset\n",
        b"cargparse\nNamespace\n",
    ]
)


@ours
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=40))
def test_any_instructions(tmp_path, instructions):
    read(tmp_path / "file", b"\x80\x02" + b"".join(instructions) + b".")


@ours
@given(st.binary(max_size=200), st.binary(max_size=50))
def test_any_bytes_as_a_header_of_safetensors(tmp_path, header, data):
    header = b"{" + header
    read(tmp_path / "file", struct.pack("<Q", len(header)) + header + data)


texts = st.text(max_size=8)
numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False) | st.booleans()
contents = st.recursive(
    st.none() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts | st.integers(0, 1000), inner, max_size=4)
    ),
    max_leaves=12,
)
tensors = st.tuples(
    st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"]),
    st.lists(st.integers(0, 4), max_size=3),
)


@ours
@given(contents, st.dictionaries(texts, tensors, max_size=4), st.booleans(), st.booleans())
def test_whatever_torch_writes_is_read_as_it_was(tmp_path, content, shapes, new_format, transposed):
    arrays = {
        name: (np.arange(np.prod(shape, dtype=int)) % 3).reshape(shape).astype(dtype)
        for name, (dtype, shape) in shapes.items()
    }
    saved = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if transposed:
        saved = {name: tensor.movedim(0, -1) for name, tensor in saved.items() if tensor.ndim > 1}
        arrays = {name: np.moveaxis(arrays[name], 0, -1) for name in saved}
    file = io.BytesIO()
    torch.save([content, saved], file, _use_new_zipfile_serialization=new_format)
    read_content, read_arrays = read(tmp_path / "file", file.getvalue())
    assert read_content == content
    assert read_arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_arrays[name], array, strict=True)


@ours
@given(contents, st.integers(2, 5))
def test_whatever_pickle_writes_is_read_as_it_was(tmp_path, content, protocol):
    content = {"content": content, "array": np.arange(3.0)}
    result = read(tmp_path / "file", pickle.dumps(content, protocol))
    np.testing.assert_array_equal(result.pop("array"), content.pop("array"))
    assert result == content
