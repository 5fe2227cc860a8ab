"""The same network in every container, data type and memory layout converts to the same file."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from ssl_backbones.conversion import convert
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.modeling.architectures import Architecture, detectron2_name

NARROW = Architecture("narrow", 50, stem_channels=2, res2_channels=8, bottleneck_channels=2)


def network(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Numbers that every data type holds exactly."""
    torch.manual_seed(0)
    return {
        name: (torch.randint(1, 100, shape) / 64).to(dtype) for name, shape in NARROW.shapes.items()
    }


def moco(state: dict[str, torch.Tensor]) -> dict:
    other = {f"module.encoder_k.{name}": tensor + 1 for name, tensor in state.items()}
    state = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    return {"epoch": 1, "arch": "resnet50", "state_dict": state | other, "optimizer": {}}


def strided(state):
    return {
        n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in state.items()
    }


def of_one_storage(state):
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    pieces = flat.split([tensor.numel() for tensor in state.values()])
    return {n: piece.view(state[n].shape) for n, piece in zip(state, pieces, strict=True)}


def parameters(state):
    return {name: torch.nn.Parameter(tensor) for name, tensor in state.items()}


def as_pickle(path, state):
    arrays = moco({name: tensor.numpy() for name, tensor in state.items()})
    path.write_bytes(pickle.dumps(arrays))


def as_big_endian(path, state):
    torch.save(moco(state), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            data = b"big" if name.endswith("/byteorder") else data
            swap = "/data/" in name
            archive.writestr(
                name, np.frombuffer(data, "<u4").byteswap().tobytes() if swap else data
            )


def as_safetensors(path, state):
    """Flat, in SwAV's layout, put together by hand."""
    state = state | {"projection_head.0.weight": torch.ones(1, 1)}
    header, data = {}, b""
    code = {torch.float32: "F32", torch.bfloat16: "BF16"}[next(iter(state.values())).dtype]
    for name, tensor in state.items():
        tensor = tensor.to(state["conv1.weight"].dtype).reshape(-1)
        place = [len(data), len(data) + tensor.nbytes]
        header[name] = {"dtype": code, "shape": list(state[name].shape), "data_offsets": place}
        data += tensor.view(torch.uint8).numpy().tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def as_legacy(path, state):
    torch.save(moco(state), path, _use_new_zipfile_serialization=False)


VARIANTS = {
    "zip": lambda path: torch.save(moco(network()), path),
    "zip, float16": lambda path: torch.save(moco(network(torch.float16)), path),
    "zip, bfloat16": lambda path: torch.save(moco(network(torch.bfloat16)), path),
    "zip, float64": lambda path: torch.save(moco(network(torch.float64)), path),
    "zip, strided": lambda path: torch.save(moco(strided(network())), path),
    "zip, tied": lambda path: torch.save(moco(of_one_storage(network())), path),
    "zip, parameters": lambda path: torch.save(moco(parameters(network())), path),
    "zip, big-endian": lambda path: as_big_endian(path, network()),
    "legacy": lambda path: as_legacy(path, network()),
    "legacy, float16": lambda path: as_legacy(path, network(torch.float16)),
    "legacy, bfloat16": lambda path: as_legacy(path, network(torch.bfloat16)),
    "legacy, float64": lambda path: as_legacy(path, network(torch.float64)),
    "legacy, strided": lambda path: as_legacy(path, strided(network())),
    "legacy, tied": lambda path: as_legacy(path, of_one_storage(network())),
    "pickle": lambda path: as_pickle(path, network()),
    "pickle, float64": lambda path: as_pickle(path, network(torch.float64)),
    "safetensors": lambda path: as_safetensors(path, network()),
    "safetensors, bfloat16": lambda path: as_safetensors(path, network(torch.bfloat16)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_converts_to_the_same_tensors(tmp_path, variant):
    source, result = tmp_path / "checkpoint", tmp_path / "result.pkl"
    VARIANTS[variant](source)
    report = convert(source, result, verify=False)
    assert report.container == {
        "zip": "torch-zip",
        "legacy": "torch-legacy",
    }.get(variant.split(",")[0], variant.split(",")[0])
    model = read_checkpoint(result).content["model"]
    expected = network()
    assert len(model) == len(expected) == 265
    for name, tensor in expected.items():
        np.testing.assert_array_equal(model[detectron2_name(name)], tensor.numpy(), strict=True)
