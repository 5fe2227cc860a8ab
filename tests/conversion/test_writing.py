"""What is written loads in stock Detectron2, and under every numpy."""

from __future__ import annotations

import os
import pickle
import pickletools
import warnings

import numpy as np
import pytest
import torch

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.conversion.writing import write_detectron2
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import detectron2_name

PROVENANCE = {
    "source": "é.pth",
    "proof": None,
    "depth": 50,
    "tolerance": 1e-5,
    "mean": [123.675, 116.28],
    "stride": False,
    "empty": {},
}


@pytest.fixture(scope="module")
def model(source_tensors) -> dict[str, np.ndarray]:
    return {detectron2_name(name): array for name, array in source_tensors.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("written") / "model.pkl"
    write_detectron2(path, model, lambda: PROVENANCE)
    yield path
    path.unlink()


def test_pythons_pickle_reads_it(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        content = pickle.loads(path.read_bytes(), encoding="latin1")
    assert list(content) == ["model", "__author__", "matching_heuristics", "provenance"]
    assert content["__author__"] == "ssl-backbones"
    assert content["matching_heuristics"] is True
    assert content["provenance"] == PROVENANCE
    assert list(content["model"]) == list(model)
    for name, array in model.items():
        np.testing.assert_array_equal(content["model"][name], array, strict=True)
        assert content["model"][name].flags.writeable  # or torch would warn


def test_our_reader_reads_it(path, model):
    content = read_checkpoint(path).content
    assert content["provenance"] == PROVENANCE
    for name, array in model.items():
        np.testing.assert_array_equal(content["model"][name], array, strict=True)


def test_its_names_are_those_that_every_numpy_knows(path):
    """numpy before 1.26 has no `numpy._core`, and Python before 3.8 no protocol 5."""
    names, protocol = set(), 0
    for instruction, argument, _ in pickletools.genops(path.read_bytes()):
        protocol = max(protocol, instruction.proto)
        if instruction.name == "GLOBAL":
            names.add(argument)
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert protocol == 3


def test_stock_detectron2_loads_it_into_a_plain_resnet(path, model):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling.backbone import BasicStem, ResNet

    network = ResNet(BasicStem(norm="BN"), ResNet.make_default_stages(50, norm="BN"))
    DetectionCheckpointer(network).load(str(path))
    loaded = network.state_dict()
    for name, array in model.items():
        np.testing.assert_array_equal(loaded[name].numpy(), array)
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} == set(model)


def test_stock_detectron2_loads_it_into_mask_rcnn(path, model):
    from detectron2 import model_zoo
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    config = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    config.MODEL.DEVICE = "cpu"
    config.MODEL.RESNETS.NORM = "BN"
    detector = build_model(config)
    DetectionCheckpointer(detector).load(str(path))
    loaded = detector.state_dict()
    for name, array in model.items():
        np.testing.assert_array_equal(loaded[f"backbone.bottom_up.{name}"].numpy(), array)


def test_equal_input_gives_equal_bytes(tmp_path):
    model = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    for name in ("one.pkl", "other.pkl"):
        write_detectron2(tmp_path / name, model, lambda: PROVENANCE)
    assert (tmp_path / "one.pkl").read_bytes() == (tmp_path / "other.pkl").read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=">f4"),
        np.array(3.5, np.float32),
        np.empty((0, 3), np.float32),
        np.ndarray(3, np.float32, b"\0" + np.arange(3, dtype=np.float32).tobytes(), offset=1),
    ],
    ids=["transposed", "big-endian", "scalar", "empty", "unaligned"],
)
def test_arrays_of_every_layout(tmp_path, array):
    write_detectron2(tmp_path / "a.pkl", {"a": array}, dict)
    read = pickle.loads((tmp_path / "a.pkl").read_bytes())["model"]["a"]
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.float32
    assert read.shape == array.shape


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"old")

    def fail():
        raise InputError("interrupted")

    with pytest.raises(InputError, match="interrupted"):
        write_detectron2(path, {"a": np.zeros(3, np.float32)}, fail)
    assert os.listdir(tmp_path) == ["model.pkl"]
    assert path.read_bytes() == b"old"


def test_what_does_not_read_back_is_refused(tmp_path, monkeypatch):
    """A disk that loses a bit, played by the reader."""
    path = tmp_path / "model.pkl"

    def read_wrongly(file, name):
        checkpoint = read_checkpoint(f"/proc/self/fd/{file.fileno()}")
        checkpoint.content["model"]["a"] = checkpoint.content["model"]["a"] + 1
        return checkpoint

    monkeypatch.setattr("ssl_backbones.conversion.writing.read_open_file", read_wrongly)
    with pytest.raises(InputError, match="does not read back"):
        write_detectron2(path, {"a": np.zeros(3, np.float32)}, lambda: PROVENANCE)
    assert os.listdir(tmp_path) == []


def test_torch_takes_what_was_loaded(path):
    """As DetectionCheckpointer does it: without a copy, and without a warning."""
    content = pickle.loads(path.read_bytes(), encoding="latin1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(content["model"]["stem.conv1.weight"])
    assert tensor.shape == (64, 3, 7, 7)
