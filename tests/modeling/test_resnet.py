"""The one constructor builds what Detectron2's own does, and more; and a detector stands on each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.modeling.backbone import BasicStem, ResNet

from ssl_backbones import get_config
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import ARCHITECTURES, detectron2_name
from ssl_backbones.modeling.freezing import find_backbone
from ssl_backbones.modeling.resnet import build_resnet

BY_NAME = {row.name: row for row in ARCHITECTURES}


def arguments(name: str) -> dict[str, int]:
    row = BY_NAME[name]
    names = ("depth", "stem_channels", "res2_channels", "bottleneck_channels", "groups")
    return {argument: getattr(row, argument) for argument in names}


def described(network: ResNet) -> list[str]:
    """Every module with its widths, strides, padding, groups and norm."""
    return [f"{name}: {module}" for name, module in network.named_modules()]


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_equals_detectron2s_default_stages(depth, stride_in_1x1):
    options = {"norm": "BN"} | ({"stride_in_1x1": stride_in_1x1} if depth >= 50 else {})
    with torch.device("meta"):
        stock = ResNet(BasicStem(norm="BN"), ResNet.make_default_stages(depth, **options))
        ours = build_resnet(**arguments(f"resnet{depth}"), stride_in_1x1=stride_in_1x1)
    assert described(ours) == described(stock)[: len(described(ours))]
    assert len(described(ours)) == len(described(stock))


@pytest.mark.parametrize("name", BY_NAME)
def test_names_and_shapes_are_the_converters(name):
    with torch.device("meta"):
        network = build_resnet(**arguments(name))
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    expected = BY_NAME[name].shapes
    assert shapes == {detectron2_name(key): shape for key, shape in expected.items()}


def test_freezing_norm_and_outputs():
    network = build_resnet(
        depth=18, res2_channels=64, norm="FrozenBN", freeze_at=2, out_features=["res3", "res5"]
    )
    assert list(network.output_shape()) == ["res3", "res5"]
    assert network.output_shape()["res5"].channels == 512
    assert network.output_shape()["res5"].stride == 32
    assert not any(parameter.requires_grad for parameter in network.res2.parameters())
    assert all(parameter.requires_grad for parameter in network.res3.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def mask_rcnn(name: str):
    """The MoCo recipe's model on another backbone; its FPN reads the widths from the backbone."""
    config = get_config("moco_1x").model
    stages = ["res2", "res3", "res4", "res5"]
    config.backbone.bottom_up = LazyCall(build_resnet)(
        **arguments(name), norm="BN", freeze_at=1, out_features=stages
    )
    return config


NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50w2",
         "wide_resnet50_2", "resnext50_32x4d"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_mask_rcnn_on_each_loads_a_converted_file_strictly(name, tmp_path):
    """Each tensor is one number, its own, expanded; the detector must hold every one of them."""
    tensors = {
        key: np.full(shape, number, np.float32)
        for number, (key, shape) in enumerate(BY_NAME[name].shapes.items(), 1)
    }
    form = "detectron2" if name != "resnext50_32x4d" else "detectron2-safetensors"
    path = tmp_path / ("model.pkl" if form == "detectron2" else "model.safetensors")
    write_backbone(form, path, tensors, dict)
    with torch.device("meta"):
        detector = instantiate(mask_rcnn(name))
    detector.to_empty(device="cpu")
    found, resnet = find_backbone(detector)
    assert found == "backbone.bottom_up"
    checkpointer = StrictCheckpointer(detector)
    checkpointer.load_backbone(str(path))
    assert not any(key.startswith(found) for key in checkpointer.new_keys)
    path.unlink()
    state = resnet.state_dict()
    for key, array in tensors.items():
        assert (state[detectron2_name(key)] == float(array.flat[0])).all(), key


def test_a_file_of_another_architecture_is_refused_by_the_checkpointer(tmp_path):
    """Wide and plain ResNet-50 have the same names; only the shapes tell."""
    tensors = {key: np.zeros(s, np.float32) for key, s in BY_NAME["resnet50"].shapes.items()}
    write_backbone("detectron2", tmp_path / "model.pkl", tensors, dict)
    network = build_resnet(**arguments("wide_resnet50_2"))
    with pytest.raises(InputError, match=r"shape \(64, 64, 1, 1\), not \(128, 64, 1, 1\)"):
        StrictCheckpointer(network).load_backbone(str(tmp_path / "model.pkl"))
