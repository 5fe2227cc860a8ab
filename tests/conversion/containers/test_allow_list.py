"""Honest files with objects of foreign types: read, the objects left as inert placeholders.

The files are written by the projects' own classes where they are installed, else by stand-ins of the
same names and states; each is removed before it is read, so that nothing could be imported.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models._utils import IntermediateLayerGetter

from ssl_backbones.conversion.containers.allow_list import FOREIGN_TYPES, Foreign
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError

WEIGHTS = torch.arange(6.0).reshape(2, 3)


def read(tmp_path, content: dict, **options):
    """What is read of `content` beside tensors, which must come out right."""
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": {"a": WEIGHTS}, **content}, path, **options)
    checkpoint = read_checkpoint(path)
    np.testing.assert_array_equal(checkpoint.content["state_dict"]["a"], WEIGHTS.numpy())
    return checkpoint


@pytest.fixture
def stand_in(monkeypatch):
    """Makes a class or function of any dotted name that pickle finds, until `monkeypatch.undo`."""

    def make(name: str, thing: type | types.FunctionType):
        module, _, attribute = name.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):  # the packages above it are imported too
            package = ".".join(parts[:end])
            if package != "__main__":
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setattr(sys.modules[module], attribute, thing, raising=False)
        thing.__module__, thing.__name__, thing.__qualname__ = module, attribute, attribute
        return thing

    return make


@pytest.mark.parametrize("new_format", [True, False])
def test_command_lines_of_dino_pixpro_soco_and_pycontrast(tmp_path, new_format):
    args = argparse.Namespace(arch="resnet50", lr=0.1, output_dir=pathlib.PosixPath("/a"))
    checkpoint = read(tmp_path, {"args": args}, _use_new_zipfile_serialization=new_format)
    assert checkpoint.foreign == ("argparse.Namespace", "pathlib.PosixPath")
    assert checkpoint.content["args"] == Foreign(
        "argparse.Namespace",
        {"arch": "resnet50", "lr": 0.1, "output_dir": Foreign("pathlib.PosixPath")},
    )


def test_the_message_hub_of_mmengine(tmp_path, stand_in, monkeypatch):
    """With bound statistics in the buffer, as early versions kept them: getattr is never called."""

    class Buffer:
        def __init__(self):
            self._log_history, self._count_history = np.array([0.5, 0.25]), np.array([1, 1])
            self._statistics_methods = {"mean": Buffer.mean}

        def mean(self): ...

    name = "mmengine.logging.history_buffer.HistoryBuffer"
    stand_in(name, Buffer)
    Buffer.mean.__module__, Buffer.mean.__qualname__ = Buffer.__module__, "HistoryBuffer.mean"
    hub = {"log_scalars": collections.OrderedDict(loss=Buffer()), "runtime_info": {"iter": 7}}
    path = tmp_path / "epoch_1.pth"
    torch.save({"state_dict": {"a": WEIGHTS}, "message_hub": hub}, path)
    monkeypatch.undo()
    assert b"getattr" in path.read_bytes()
    checkpoint = read_checkpoint(path)
    assert checkpoint.foreign == ("__builtin__.getattr", name)
    buffer = checkpoint.content["message_hub"]["log_scalars"]["loss"]
    assert buffer.type_name == name
    assert buffer.attributes["_log_history"].tolist() == [0.5, 0.25]
    assert buffer.attributes["_statistics_methods"] == {"mean": Foreign("__builtin__.getattr")}
    assert checkpoint.content["message_hub"]["runtime_info"] == {"iter": 7}


def test_the_optimizer_of_vicreg(tmp_path, stand_in, monkeypatch):
    def exclude(parameter): ...

    name = "__main__.exclude_bias_and_norm"
    stand_in(name, exclude)
    path = tmp_path / "model.pth"
    groups = [{"lr": 0.2, "weight_decay_filter": exclude, "params": [0]}]
    torch.save({"model": {"a": WEIGHTS}, "optimizer": {"param_groups": groups}}, path)
    monkeypatch.undo()
    checkpoint = read_checkpoint(path)
    assert checkpoint.foreign == (name,)
    assert checkpoint.content["optimizer"]["param_groups"][0]["lr"] == 0.2


def test_hyperparameters_of_omegaconf(tmp_path):
    """As Lightning writes those of solo-learn."""
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"optimizer": {"lr": 0.1, "betas": [0.9, None]}})
    content = {"hyper_parameters": config, "hparams_type": type(config)}
    checkpoint = read(tmp_path, content)
    assert checkpoint.content["hyper_parameters"].type_name == "omegaconf.dictconfig.DictConfig"
    assert checkpoint.foreign == tuple(
        n for n in sorted(FOREIGN_TYPES) if n.startswith("omegaconf")
    )


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "lightning_fabric.utilities.data.AttributeDict",
    ],
)
def test_hyperparameters_of_lightning(tmp_path, stand_in, name):
    """A subclass of dict: the pickle sets the items of the placeholder."""

    class AttributeDict(dict): ...

    stand_in(name, AttributeDict)
    checkpoint = read(tmp_path, {"hparams": AttributeDict(lr=0.1, nested=AttributeDict(a=1, b=2))})
    assert checkpoint.foreign == (name,)
    assert checkpoint.content["hparams"] == Foreign(name)


def test_callbacks_of_old_lightning(tmp_path, stand_in):
    """Their states stood under their classes."""
    name = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"

    class ModelCheckpoint: ...

    stand_in(name, ModelCheckpoint)
    checkpoint = read(tmp_path, {"callbacks": {ModelCheckpoint: {"best": 0.5}}})
    assert checkpoint.foreign == (name,)
    assert list(checkpoint.content["callbacks"].values()) == [{"best": 0.5}]


@pytest.mark.parametrize("new_format", [True, False])
def test_builtin_types_as_torch_reads_them(tmp_path, new_format):
    content = {
        "set": {1, 2, "a"},
        "complex": 1 - 2j,
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"\x00\xff"),
        "counter": collections.Counter("aab"),
    }
    checkpoint = read(tmp_path, content, _use_new_zipfile_serialization=new_format)
    assert checkpoint.foreign == ()
    theirs = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    for name in content:
        ours = checkpoint.content[name]
        assert ours == theirs[name]


def test_default_dictionaries_and_random_states(tmp_path):
    state = np.random.RandomState(3).get_state()
    content = {"default": collections.defaultdict(list, {1: [2]}), "rng": state}
    read_content = read(tmp_path, content).content
    assert read_content["default"] == {1: [2]}
    np.testing.assert_array_equal(read_content["rng"][1], state[1])


@pytest.mark.parametrize(
    "name",
    [
        "argparse.ArgumentParser",
        "__main__.exclude",
        "__main__.exclude_bias_and_norm.x",
        "mmengine.logging.history_buffer",
        "mmengine.logging.history_buffer.HistoryBuffer2",
        "omegaconf.OmegaConf",
        "omegaconf.resolvers.oc.env",
        "pathlib.Path.unlink",
        "builtins.eval",
        "builtins.getattr.x",
        "__builtin__.open",
        "datetime.datetime",
    ],
)
def test_any_other_name_is_refused_with_it(tmp_path, name):
    """Neighbours of the names on the list."""
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(b"\x80\x02c%b\n%b\n)R." % (module.encode(), attribute.encode()))
    with pytest.raises(InputError, match=f"asks for {name}, ".replace(".", r"\.")):
        read_checkpoint(path)


def test_whole_modules_of_lightly_train(tmp_path, stand_in, monkeypatch):
    """A torchvision ResNet inside its wrappers, beside the state dict: each class stays a name."""
    stand_in(
        "lightly_train._models.torchvision.resnet.ResNetModelWrapper", Wrapper := type("W", (), {})
    )
    wrapper = Wrapper()
    network = torchvision.models.resnet18(num_classes=2)
    wrapper._model, wrapper._pool = [network], network.avgpool
    wrapper._features = IntermediateLayerGetter(network, {"layer4": "out"})
    models = {"model": network, "wrapped_model": wrapper}
    content = {"lightly_train": {"version": "0.6.0", "models": models}}
    checkpoint = read(tmp_path, content)
    monkeypatch.undo()
    assert "torchvision.models.resnet.ResNet" in checkpoint.foreign
    assert "torch.nn.modules.conv.Conv2d" in checkpoint.foreign
    held = checkpoint.content["lightly_train"]["models"]
    assert {name: type(value) for name, value in held.items()} == dict.fromkeys(models, Foreign)
    assert (
        held["wrapped_model"].type_name
        == "lightly_train._models.torchvision.resnet.ResNetModelWrapper"
    )


@pytest.mark.parametrize(
    "name",
    [
        "torch.nn.modules.module.register_module_forward_hook",
        "torchvision.models._utils._make_divisible",
        "torchvision.datasets.utils.Download",
        "lightly_train2.Model",
        "torch.nn.modules.conv.Conv2d.forward",
        "torch.nn.modules.conv.os.system",
    ],
)
def test_of_their_packages_only_classes_are_left_unread(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "checkpoint.pkl"
    path.write_bytes(b"\x80\x04c%b\n%b\n)R." % (module.encode(), attribute.encode()))
    with pytest.raises(InputError, match="asks for"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["haiku._src.data_structures.FlatMapping", "jaxlib.xla.DeviceArray"]
)
def test_pickles_of_jax_are_refused_with_the_mend(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(b"\x80\x04c%b\n%b\n)R." % (module.encode(), attribute.encode()))
    with pytest.raises(InputError, match=r"JAX's time .* save its arrays as a PyTorch state_dict"):
        read_checkpoint(path)


def test_every_foreign_type_has_a_source():
    assert all(len(source) > 10 for source in FOREIGN_TYPES.values())
