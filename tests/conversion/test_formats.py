"""What is written in each format, read by the libraries that it is for; and taken back out."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import torchvision
from commands import project_config
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, instantiate
from detectron2.layers import ShapeSpec
from safetensors import safe_open
from safetensors.numpy import load_file

from ssl_backbones import get_config
from ssl_backbones.conversion import convert
from ssl_backbones.conversion.converting import FORMATS
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import ARCHITECTURES, detectron2_name
from ssl_backbones.modeling.resnet import build_resnet
from ssl_backbones.weights.resolution import resolve

RESNET18 = next(row for row in ARCHITECTURES if row.name == "resnet18")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """torchvision's ResNet-18 as its own training script's users save it, fc included."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=4)
    network(torch.randn(2, 3, 64, 64))  # gives the batch norms statistics
    path = tmp_path_factory.mktemp("formats") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    yield path, network.state_dict()
    path.unlink()


@pytest.fixture
def written(source, tmp_path):
    def write(name: str):
        path = tmp_path / f"model{FORMATS[name].suffix}"
        convert(source[0], path, to=name, verify=False)
        return path

    return write


def assert_equal_to(tensors, state, name=lambda name: name) -> None:
    """Every backbone tensor of a state dict, bit by bit, and no other."""
    expected = {
        key: tensor
        for key, tensor in state.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    assert set(tensors) == {name(key) for key in expected}
    for key, tensor in expected.items():
        got = np.asarray(tensors[name(key)])
        np.testing.assert_array_equal(
            got.view(np.uint32), tensor.numpy().view(np.uint32), strict=True
        )


def test_torchvision_takes_its_own_format_strictly(source, written):
    tensors = torch.load(written("torchvision"), weights_only=True)
    assert_equal_to(tensors, source[1])
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(tensors, strict=True)


def test_safetensors_library_reads_it_with_its_provenance(source, written):
    path = written("safetensors")
    assert_equal_to(load_file(path), source[1])
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    provenance = json.loads(metadata["provenance"])
    assert provenance["architecture"]["name"] == "resnet18"
    assert provenance["source"] == "resnet18.pth"


def test_mmdet_has_a_state_dict_without_prefix(source, written):
    """As MMDetection's selfsup2mmdet.py writes; MMEngine takes `meta` from every checkpoint."""
    content = torch.load(written("mmdet"), weights_only=True)
    assert list(content) == ["state_dict", "meta"]
    assert_equal_to(content["state_dict"], source[1])
    assert content["meta"]["provenance"]["method"] == "torchvision"


def test_detectron2s_twin_without_pickle(source, written):
    assert_equal_to(load_file(written("detectron2-safetensors")), source[1], detectron2_name)


def test_our_trainer_loads_the_twin(source, written):
    path = resolve(str(written("detectron2-safetensors")))
    assert path.endswith("model.safetensors")  # taken as it is, not converted once more
    network = build_resnet(depth=18, res2_channels=64)
    StrictCheckpointer(network).load_backbone(path)
    state = network.state_dict()
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert_equal_to(
        {k: v for k, v in state.items() if k not in counters}, source[1], detectron2_name
    )


@pytest.mark.parametrize("name", FORMATS)
def test_equal_input_gives_equal_tensors_after_any_detour(source, written, tmp_path, name):
    """Into the format, from there to Detectron2's, out again: the same bits."""
    path = written(name)
    detector = name.startswith("detectron2")
    convert(path, tmp_path / "there.pkl", detector=detector, verify=False)
    options = {"detector": True, "to": "torchvision", "verify": name == "mmdet"}
    convert(tmp_path / "there.pkl", tmp_path / "back.pth", **options)
    assert_equal_to(torch.load(tmp_path / "back.pth", weights_only=True), source[1])


@pytest.fixture(scope="module")
def detector(source):
    """Mask R-CNN on the ResNet-18, "tuned": every tensor of the backbone is another one."""
    config = get_config("moco_1x").model
    config.backbone.bottom_up = LazyCall(build_resnet)(
        depth=18, res2_channels=64, norm="BN", out_features=["res2", "res3", "res4", "res5"]
    )
    # Small heads: they only have to be there.
    config.roi_heads.box_head.fc_dims = [8]
    config.roi_heads.box_predictor.input_shape = ShapeSpec(channels=8)
    return instantiate(config)


def test_a_trained_detectors_backbone_comes_out(detector, tmp_path):
    """Written by Detectron2's own checkpointer, optimizer and iteration beside it."""
    optimizer = torch.optim.SGD(detector.parameters(), lr=1.0, momentum=0.9)
    DetectionCheckpointer(detector, str(tmp_path), optimizer=optimizer).save("tuned", iteration=9)
    report = convert(tmp_path / "tuned.pth", tmp_path / "out.pth", detector=True, to="torchvision")
    assert report.provenance["method"] == "detectron2"
    assert report.provenance["input"] is None  # it stands in the detector's config only
    assert len(report.kept) == len(RESNET18.shapes)
    assert set(report.dropped.values()) == {
        "outside the ResNet",
        "beside the model",
        "counter of training steps, of no use after it",
    }
    assert report.unknown == ()
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    images = torch.randn(1, 3, 65, 98)
    with torch.no_grad():
        expected = detector.eval().backbone.bottom_up(images)["res5"]
        features = torch.nn.Sequential(*list(network.eval().children())[:-2])(images)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_the_backbone_of_a_c4_detector_comes_out_of_its_two_halves(tmp_path):
    """Its heads hold res5, and the norm behind it is not the ResNet's."""
    c4 = instantiate(project_config("projects/voc_c4/configs/moco_voc_c4_24k.py").model)
    DetectionCheckpointer(c4, str(tmp_path)).save("tuned")
    options = {"detector": True, "to": "torchvision", "verify": False}
    report = convert(tmp_path / "tuned.pth", tmp_path / "out.pth", **options)
    assert len(report.kept) == 265
    norm = [f"roi_heads.res5.norm.{name}" for name in ("weight", "bias", "running_mean")]
    assert {report.dropped[key] for key in norm} == {"outside the ResNet"}
    network = torchvision.models.resnet50()
    network.fc = torch.nn.Identity()
    network.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    res5 = c4.roi_heads.res5
    assert torch.equal(network.layer4[2].conv3.weight, res5[2].conv3.weight)
    assert torch.equal(network.layer3[5].conv2.weight, c4.backbone.res4[5].conv2.weight)


def test_mocos_own_converter_leaves_heads_and_counters_in_the_stem(source, tmp_path):
    """detection/convert-pretrain-to-detectron2.py of MoCo: "stem." before whatever has no layer."""
    model = {}
    for key, tensor in source[1].items():
        name = key if "layer" in key else f"stem.{key}"
        for stage in (1, 2, 3, 4):
            name = name.replace(f"layer{stage}", f"res{stage + 1}")
        for number in (1, 2, 3):
            name = name.replace(f"bn{number}", f"conv{number}.norm")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        model[name] = tensor.numpy()
    content = {"model": model, "__author__": "MOCO", "matching_heuristics": True}
    (tmp_path / "theirs.pkl").write_bytes(pickle.dumps(content))
    convert(tmp_path / "theirs.pkl", tmp_path / "out.pth", detector=True, to="torchvision")
    assert_equal_to(torch.load(tmp_path / "out.pth", weights_only=True), source[1])


def test_detectors_that_are_refused(source, tmp_path):
    state = {detectron2_name(k): v.numpy() for k, v in source[1].items() if "fc." not in k}
    missing = {key: array for key, array in state.items() if key != "res3.1.conv2.weight"}
    two = {f"{side}.{key}": array for side in ("left", "right") for key, array in state.items()}
    extra = state | {"res2.0.gate.weight": np.zeros(3, np.float32)}
    for model, says in (
        (missing, "layer2.1.conv2.weight is missing"),
        (two, r"holds several ResNets \(left., right.\)"),
        (extra, "res2.0.gate.weight is not part of it"),
        ({"conv1_w": state["stem.conv1.weight"]}, "no ResNet under Detectron2's names"),
    ):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": model, "__author__": "x"}))
        with pytest.raises(InputError, match=says):
            convert(tmp_path / "model.pkl", tmp_path / "out.pth", detector=True, to="torchvision")
    assert not (tmp_path / "out.pth").exists()


LOOP = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "provenance",
    [
        3,
        {"method": ["moco"], "branch": 7, "input": "RGB", "architecture": None},
        {"input": {"pixel_mean": np.zeros(3)}},
        {"input": {"pixel_mean": [1 << 40]}},
        {"method": "moco", "more": LOOP},
        {3: "three"},
    ],
)
def test_a_provenance_that_nobody_wrote_is_no_provenance(source, tmp_path, provenance):
    """It is a stranger's, and must neither stop a conversion nor come into its result."""
    state = {detectron2_name(k): v.numpy() for k, v in source[1].items() if "fc." not in k}
    content = {"model": state, "__author__": "x", "provenance": provenance}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    report = convert(tmp_path / "model.pkl", tmp_path / "out.pkl", detector=True, verify=False)
    assert report.provenance["method"] == "detectron2"
    assert report.provenance["input"] is None
    assert report.provenance["branch"] is None


def test_a_format_must_exist(tmp_path):
    with pytest.raises(InputError, match="choose one of detectron2, detectron2-safetensors"):
        convert(tmp_path / "a.pth", tmp_path / "b.onnx", to="onnx")
