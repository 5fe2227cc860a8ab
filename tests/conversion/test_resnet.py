"""Names and shapes against torchvision's and Detectron2's own classes, built without memory."""

from __future__ import annotations

import pytest
import torch
import torchvision

from ssl_backbones.conversion.resnet import ARCHITECTURES, closest, detectron2_name

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    return {
        key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.startswith("resnet50w")])
def test_names_and_shapes_are_torchvisions(name):
    expected = torchvision_shapes(name)
    assert BY_NAME[name].shapes == expected
    assert list(BY_NAME[name].shapes) == list(expected)
    assert closest(expected) == (BY_NAME[name], {})


def test_swavs_wide_networks_multiply_every_width():
    """resnet50w2 of swav's src/resnet50.py: `widen` multiplies planes and the stem alike."""
    narrow, wide = BY_NAME["resnet50"].shapes, BY_NAME["resnet50w2"].shapes
    assert list(wide) == list(narrow)
    assert wide["conv1.weight"] == (128, 3, 7, 7)
    assert wide["layer1.0.conv1.weight"] == (128, 128, 1, 1)
    assert wide["layer4.2.conv3.weight"] == (4096, 1024, 1, 1)
    assert wide["layer4.2.bn3.bias"] == (4096,)


def test_a_resnet_50_has_265_tensors():
    """53 convolutions and 53 batch norms of 4 tensors each."""
    assert len(BY_NAME["resnet50"].shapes) == 53 + 53 * 4 == 265


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_are_detectron2s(depth):
    from detectron2.modeling.backbone import BasicStem, ResNet

    with torch.device("meta"):
        stages = ResNet.make_default_stages(depth, norm="BN")
        network = ResNet(BasicStem(norm="BN"), stages)
    expected = {
        key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    shapes = BY_NAME[f"resnet{depth}"].shapes
    assert {detectron2_name(name): shape for name, shape in shapes.items()} == expected


def test_the_closest_architecture_survives_damage():
    shapes = torchvision_shapes("resnet50")
    del shapes["layer3.5.bn2.weight"]
    shapes["conv1.weight"] = (64, 3, 3, 3)
    shapes["layer1.0.se.weight"] = (4,)
    architecture, problems = closest(shapes)
    assert architecture.name == "resnet50"
    assert problems == {
        "conv1.weight": "has shape (64, 3, 3, 3) instead of (64, 3, 7, 7)",
        "layer3.5.bn2.weight": "is missing",
        "layer1.0.se.weight": "is not part of it",
    }
