"""Files and folders that are no checkpoint by themselves: named, with a mend that works, nothing left behind.

Written by the libraries that are here; the others' bytes are those that onnx 1.23, tf2onnx, h5py 3.16,
flax 0.12 and orbax 0.12 wrote.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import runpy
import shlex
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from ssl_backbones.conversion import convert, inspect
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import Architecture, detectron2_name
from ssl_backbones.weights.resolution import resolve

NARROW = Architecture("narrow", 50, stem_channels=4, res2_channels=8, bottleneck_channels=2)


def network() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.rand(shape) + 0.5 for name, shape in NARROW.shapes.items()}


def moco(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    other = {f"module.encoder_k.{name}": tensor + 1 for name, tensor in state.items()}
    return {f"module.encoder_q.{name}": tensor for name, tensor in state.items()} | other


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    """What all three ways in say of a path, which must be one line and leave nothing behind."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))

    def all_files() -> set[Path]:
        return set(tmp_path.rglob("*"))

    def refuse(path: Path) -> str:
        before, said = all_files(), set()
        for way_in in (lambda: convert(path, tmp_path / "out.pkl"), lambda: inspect(path),
                       lambda: resolve(str(path))):  # fmt: skip
            with pytest.raises(InputError) as caught:
                way_in()
            said.add(str(caught.value))
        assert all_files() == before
        (message,) = said
        assert message.startswith(f"{path} ")
        assert "\n" not in message
        return message

    return refuse


def command_in(message: str) -> str:
    return re.search("`(.*)`", message)[1]


def assert_converts(path: Path, expected: dict[str, torch.Tensor]) -> None:
    target = path.with_name("result.pkl")
    convert(path, target, verify=False, force=True)
    model = pickle.loads(target.read_bytes())["model"]
    assert len(model) == len(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(model[detectron2_name(name)], tensor.numpy())


# Checkpoints in several files


def in_shards(folder: Path, kind: str, state: dict) -> list[Path]:
    """As Hugging Face's `save_pretrained(max_shard_size=...)` names and fills them, and the index."""
    folder.mkdir()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[kind]
    weight_map, files = {}, []
    for number, names in enumerate((list(state)[::2], list(state)[1::2]), 1):
        files.append(folder / f"{stem}-{number:05}-of-00002.{kind}")
        part = {name: state[name] for name in names}
        if kind == "bin":
            torch.save(part, files[-1])
        else:
            safetensors = pytest.importorskip("safetensors.torch")
            safetensors.save_file(part, files[-1], metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, files[-1].name)
    files.append(folder / f"{stem}.{kind}.index.json")
    files[-1].write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return files


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_and_the_command_that_joins_them(tmp_path, kind, refusal, monkeypatch):
    folder = tmp_path / "sharded"
    *shards, index = in_shards(folder, kind, moco(network()))
    commands = set()
    for path in (*shards, index, folder):
        message = refusal(path)
        assert "checkpoint in several files" in message
        commands.add(command_in(message))
    (tmp_path / "renamed.txt").write_bytes(index.read_bytes())
    assert f"glob('*-*-of-*.{kind}')" in refusal(tmp_path / "renamed.txt")
    monkeypatch.chdir(folder)
    for command in sorted(commands):
        python, option, code = shlex.split(command)
        assert (python, option) == ("python", "-c")
        exec(code, {})
        (whole,) = folder.glob("whole.*")
        assert_converts(whole, network())
        whole.unlink()


def test_one_shard_of_one_is_whole(tmp_path):
    path = tmp_path / "pytorch_model-00001-of-00001.bin"
    torch.save(moco(network()), path)
    assert_converts(path, network())


# What only one of several processes holds


def apart(function) -> None:
    """Call it in a child of its own.

    What a process forks that has exported a program or sharded a tensor can differentiate nothing any more.
    """
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    child.join()
    assert child.exitcode == 0


@pytest.fixture
def group(tmp_path_factory):
    """A process group of this process alone."""
    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # torch's, of a module that is run a second time
def test_torch_distributed_checkpoint_and_its_converter(tmp_path, group, refusal, monkeypatch):
    import torch.distributed.checkpoint as dcp

    folder = tmp_path / "step_100"
    dcp.save({"state_dict": moco(network()), "epoch": 3}, checkpoint_id=folder)
    assert sorted(os.listdir(folder)) == [".metadata", "__0_0.distcp"]
    (tmp_path / "meta.pth").write_bytes((folder / ".metadata").read_bytes())
    paths = (folder, folder / ".metadata", folder / "__0_0.distcp", tmp_path / "meta.pth")
    said = {refusal(path).removeprefix(str(path)) for path in paths}
    (message,) = said
    _python, _m, module, *arguments = shlex.split(command_in(message))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    runpy.run_module(module, run_name="__main__")
    assert_converts(folder / "whole.pth", network())


@pytest.mark.parametrize("new_format", [True, False])
def test_sharded_tensors_of_fsdp(tmp_path, group, refusal, new_format):
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def save():
        network = torch.nn.Conv2d(3, 4, 3)
        fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
        spec = ChunkShardingSpec(dim=0, placements=["rank:0/cpu"])
        kinds = {
            "DTensor": network.state_dict(),
            "ShardedTensor": {"weight": sharded_tensor.ones(spec, 4, 4)},
        }
        for name, state in kinds.items():
            path = tmp_path / f"{name}.pth"
            torch.save({"model": state}, path, _use_new_zipfile_serialization=new_format)

    apart(save)
    for name in ("FSDP2's DTensor", "FSDP1's ShardedTensor"):
        message = refusal(tmp_path / f"{name.partition(' ')[2]}.pth")
        assert name in message
        assert "StateDictOptions(full_state_dict=True)" in message


DEEPSPEED = {
    "zero_to_fp32.py": b"#!/usr/bin/env python\n",
    "latest": b"global_step10",
    "global_step10/zero_pp_rank_0_mp_rank_00_model_states.pt": b"PK",
    "global_step10/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": b"PK",
    "global_step10/mp_rank_00_model_states.pt": b"PK",
}
"""Names as deepspeed/runtime/engine.py makes them (`_get_ckpt_name`, `_get_zero_ckpt_name`)."""


def test_deepspeed(tmp_path, refusal):
    for name, data in DEEPSPEED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in (".", "global_step10", *DEEPSPEED):
        assert "`python zero_to_fp32.py . out.pt`" in refusal(tmp_path / name)


def test_deepspeeds_weights_by_themselves(tmp_path):
    """Whole but in ZeRO's third stage, which leaves empty tensors in their place."""
    path = tmp_path / "mp_rank_00_model_states.pt"
    model = {f"module.{name}": tensor.half() for name, tensor in network().items()}
    beside = {"dp_world_size": 2, "ds_config": {}, "ds_version": "0.14.0"}
    torch.save({"module": model, **beside}, path)
    assert "--prefix 'module/'" in inspect(path).refusal
    torch.save({"module": dict.fromkeys(model, torch.empty(0)), **beside}, path)
    assert "zero_to_fp32.py" in inspect(path).refusal
    del model["module.layer1.0.conv1.weight"]
    torch.save({"module": model, **beside}, path)
    assert "is not whole" in inspect(path).refusal


def test_a_pickle_of_deepspeeds_own_classes(tmp_path, monkeypatch, refusal):
    module = types.ModuleType("deepspeed.runtime.fp16.loss_scaler")
    module.LossScaler = type("LossScaler", (), {"__module__": module.__name__})
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.fp16"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save({"loss_scaler": module.LossScaler()}, tmp_path / "renamed.pt")
    assert "zero_to_fp32.py" in refusal(tmp_path / "renamed.pt")


# Programs, with the command that takes their weights out


class Wrapped(torch.nn.Module):
    def __init__(self, **parts: torch.nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of TorchScript
@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_programs_and_the_command_that_takes_their_weights_out(
    tmp_path, kind, refusal, monkeypatch
):
    program = Wrapped(encoder_q=torch.nn.Linear(2, 3), encoder_k=torch.nn.Linear(2, 3))
    path = tmp_path / "program.pth"
    if kind == "TorchScript":
        torch.jit.save(torch.jit.trace(program, torch.ones(1)), path)
    else:
        apart(lambda: torch.export.save(torch.export.export(program, (torch.ones(1),)), path))
    message = refusal(path)
    assert f"is a {kind} program" in message or f"is a program of {kind}" in message
    monkeypatch.chdir(tmp_path)
    command = command_in(message).replace("FILE", repr(str(path)))
    apart(lambda: exec(command, {"torch": torch}))
    read = read_checkpoint(tmp_path / "weights.pth").content
    assert read.keys() == program.state_dict().keys()
    for name, tensor in program.state_dict().items():
        np.testing.assert_array_equal(read[name], tensor.numpy())


# CLIP's ResNet


def clip_resnet() -> dict[str, torch.Tensor]:
    """openai/CLIP, clip/model.py: `ModifiedResNet`, narrow."""
    state = {name: t for name, t in network().items() if not name.startswith(("conv1.", "bn1."))}
    for number, (into, out) in enumerate(((3, 2), (2, 2), (2, 4)), 1):
        state[f"conv{number}.weight"] = torch.ones(out, into, 3, 3)
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"bn{number}.{part}"] = torch.ones(out)
    return state


ATTENTION_POOL = {"positional_embedding": torch.ones(50, 64), "q_proj.weight": torch.ones(4, 64)}


@pytest.mark.parametrize("pool", [True, False], ids=["whole", "without its pooling"])
@pytest.mark.parametrize(
    ("container", "prefix"), [((), ""), ((), "visual."), (("state_dict",), "module.visual.")]
)
def test_clips_resnet_is_not_cifars(tmp_path, container, prefix, pool):
    content = {f"{prefix}{name}": tensor for name, tensor in clip_resnet().items()}
    if prefix:
        content[f"{prefix.removesuffix('visual.')}logit_scale"] = torch.ones(())
    if pool:
        content |= {f"{prefix}attnpool.{name}": t for name, t in ATTENTION_POOL.items()}
    path = tmp_path / "clip.pth"
    torch.save({container[0]: content} if container else content, path)
    said = [inspect(path).refusal]
    if prefix:
        said.append(inspect(path, prefix=f"{'/'.join((*container, ''))}visual.").refusal)
    for message in said:
        assert "CLIP" in message
        assert "stem" in message
        assert "CIFAR" not in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clips_torchscript_archive(tmp_path, refusal):
    pool = torch.nn.Module()
    for name in ("q_proj", "c_proj"):
        pool.add_module(name, torch.nn.Linear(2, 2))
    visual = Wrapped(conv1=torch.nn.Conv2d(3, 2, 3), attnpool=pool)
    torch.jit.save(torch.jit.script(Wrapped(visual=visual)), tmp_path / "RN50.pt")
    assert "CLIP's ResNet" in refusal(tmp_path / "RN50.pt")


def test_timms_clip_resnet_is_no_vision_transformer(tmp_path):
    """timm, models/byobnet.py: its attention pooling has a `pos_embed`."""
    names = ("stem.conv1.conv.weight", "stages.0.0.conv2_kxk.conv.weight", "head.pos_embed")
    torch.save({name: torch.ones(2, 2) for name in names}, tmp_path / "resnet50_clip.pth")
    assert "CLIP ResNets" in inspect(tmp_path / "resnet50_clip.pth").refusal


# Other frameworks

PRODUCED = b"\x08\t\x12\x07pytorch\x1a\x062.14.1:\xd7\x01\n\\\n\x0connx::Gemm_0\n\x06weight"
BARE = b'\x08\x0e:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n'
FLAX = b"\x81\xa6params\x81\xa4conv\x81\xa6kernel\xc72\x01\x93\x92\x03\x03\xa7float32\xc4$\x00"
INDEX_OF_TENSORFLOW = b"\x00\x00\x04\x01" + bytes(40) + b"W\xfb\x80\x8b$uG\xdb"

BY_CONTENT = {
    "ONNX of PyTorch": (PRODUCED, "is ONNX"),
    "ONNX without a producer": (BARE, "is ONNX"),
    "ONNX of tf2onnx": (BARE[:2] + b"\x12\x07tf2onnx" + BARE[2:], "is ONNX"),
    "Flax": (FLAX, "Flax's msgpack"),
    "orbax": (b"\x0c\xdb:*q\x00\x00\x00\x00\x00\x00\x00\x00\x01(\xb5", "(orbax)"),
    "Keras's .h5": (b"\x89HDF\r\n\x1a\n\x00\x00\x00\x00", "Keras's .h5"),
    "a page with a byte order mark": (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
    "a text that is not English": ("Datei nicht gefunden: Größe 0\n".encode(), "text file"),
    "a text that is cut in a letter": (b"a" * 511 + "é".encode(), "text file"),
    "JSON": (b'{"architectures": ["ResNetModel"]}', "give the file of the weights"),
}


@pytest.mark.parametrize("name", BY_CONTENT)
def test_other_frameworks_by_their_content(tmp_path, name, refusal):
    data, says = BY_CONTENT[name]
    (tmp_path / "checkpoint.pth").write_bytes(data)
    assert says in refusal(tmp_path / "checkpoint.pth")


BY_NAME = {
    "ResNet.ckpt-90000.index": "TensorFlow",
    "ResNet.ckpt-90000.meta": "TensorFlow",
    "ckpt-1.index": "TensorFlow",
    "model.ckpt-90000.data-00000-of-00001": "TensorFlow",
    "variables.data-00001-of-00002": "TensorFlow",
    "saved_model.pb": "TensorFlow",
    "model.onnx": "ONNX",
    "model.onnx.data": "ONNX",
    "flax_model.msgpack": "Flax",
}


@pytest.mark.parametrize("name", BY_NAME)
def test_other_frameworks_by_their_names(tmp_path, name, refusal):
    """Whatever stands in them: the numbers of a tensor may look like a pickle."""
    for data in (INDEX_OF_TENSORFLOW, b"\x80\x3f\x00\x00", bytes(range(256))):
        (tmp_path / name).write_bytes(data)
        assert BY_NAME[name] in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"), "TensorFlow's"),
        (("saved_model.pb", "keras_metadata.pb"), "TensorFlow's"),
        (("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"), "orbax"),
        (("global_step5", "latest"), "mp_rank_00_model_states.pt"),
        (("latest", "model.pth"), "is a folder: give the file itself"),
        # A repository with a file for every framework.
        (("flax_model.msgpack", "model.onnx", "pytorch_model.bin"), "give the file itself"),
    ],
)
def test_folders_by_the_names_in_them(tmp_path, names, says, refusal):
    (tmp_path / "folder").mkdir()
    for name in names:
        (tmp_path / "folder" / name).touch()
    assert says in refusal(tmp_path / "folder")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("metadata.json", "config.json", "model.weights.h5"), ".keras"),
        (("arr_0.npy", "arr_1.npy"), ".npz"),
        (("a.pth", "b.pth", "c.txt", "d.txt"), "(a.pth, b.pth, c.txt, ...)"),
    ],
)
def test_archives_by_the_names_in_them(tmp_path, names, says, refusal):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "archive.pth", "w", compression) as archive:
            for name in names:
                archive.writestr(name, b"content" * 9)
        assert says in refusal(tmp_path / "archive.pth")


def test_a_missing_file_is_missing_whatever_its_name(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_checkpoint(tmp_path / "model-00001-of-00002.safetensors")
