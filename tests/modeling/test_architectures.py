"""Names and shapes against torchvision's and Detectron2's own classes, built without memory."""

from __future__ import annotations

import pytest
import torch
import torchvision

from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import (
    ARCHITECTURES,
    Architecture,
    closest,
    config_line,
    detectron2_name,
    torchvision_name,
)

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
    assert closest(wide) == (BY_NAME["resnet50w2"], {})


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


@pytest.mark.parametrize("name", BY_NAME)
def test_names_come_back(name):
    for key in BY_NAME[name].shapes:
        assert torchvision_name(detectron2_name(key)) == key


@pytest.mark.parametrize(
    "name", ["stem.conv2.weight", "res6.0.conv1.weight", "res2.0.se.fc.weight", "stem.fc.0.weight"]
)
def test_names_of_other_networks_have_none(name):
    with pytest.raises(ValueError, match="no tensor of a ResNet"):
        torchvision_name(name)


def test_the_closest_architecture_survives_damage():
    shapes = torchvision_shapes("resnet50")
    del shapes["layer3.5.bn2.weight"]
    shapes["conv1.weight"] = (32, 3, 7, 7)
    shapes["layer1.0.extra.weight"] = (4,)
    architecture, problems = closest(shapes)
    assert architecture.name == "resnet50"
    assert problems == {
        "conv1.weight": "has shape (32, 3, 7, 7) instead of (64, 3, 7, 7)",
        "layer3.5.bn2.weight": "is missing",
        "layer1.0.extra.weight": "is not part of it",
    }


def test_widths_and_groups_that_nobody_publishes_are_read_from_the_shapes():
    """torchvision's own class makes them: 16 groups of 8 channels, as in no published ResNeXt."""
    with torch.device("meta"):
        network = torchvision.models.resnet101(groups=16, width_per_group=8)
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    architecture, problems = closest(shapes)
    assert problems == {}
    assert architecture == Architecture(
        name="resnet101 of stem_channels 64, res2_channels 256, bottleneck_channels 128, groups 16",
        depth=101,
        bottleneck_channels=128,
        groups=16,
    )


def timm_d() -> dict[str, tuple[int, ...]]:
    """timm's resnet50d: three 3x3 convolutions as the stem, and shortcuts that pool first."""
    shapes = torchvision_shapes("resnet50")
    del shapes["conv1.weight"]
    deep = {"conv1.0.weight": (32, 3, 3, 3), "conv1.3.weight": (32, 32, 3, 3)}
    return deep | {name.replace("downsample.0", "downsample.1"): s for name, s in shapes.items()}


def pooled_shortcuts() -> dict[str, tuple[int, ...]]:
    """timm's resnet50 with avg_down: the pooling is number 0, the convolution 1, the norm 2."""
    moved = {"downsample.0": "downsample.1", "downsample.1": "downsample.2"}
    shapes = {}
    for name, shape in torchvision_shapes("resnet50").items():
        old = next((part for part in moved if part in name), "")
        shapes[name.replace(old, moved[old]) if old else name] = shape
    return shapes


def with_tensor(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return torchvision_shapes("resnet50") | {name: shape}


def of_other_depth(blocks: list[int]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, blocks)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def without_statistics() -> dict[str, tuple[int, ...]]:
    shapes = torchvision_shapes("resnet50")
    return {name: shape for name, shape in shapes.items() if "running" not in name}


VARIANTS = {
    "timm's d": (timm_d, "deep stem"),
    "CLIP's stem": (
        lambda: (
            torchvision_shapes("resnet50")
            | {"conv1.weight": (32, 3, 3, 3), "conv2.weight": (32, 32, 3, 3)}
        ),
        "deep stem",
    ),
    "CIFAR's stem": (lambda: with_tensor("conv1.weight", (64, 3, 3, 3)), "3x3 stem, as for CIFAR"),
    "another stem": (lambda: with_tensor("conv1.weight", (64, 3, 5, 5)), "5x5 stem"),
    "pooled shortcuts": (pooled_shortcuts, "shortcuts pool first"),
    "timm's SE": (
        lambda: with_tensor("layer1.0.se.fc1.weight", (16, 256, 1, 1)),
        "squeeze-and-excitation",
    ),
    "ResNeSt": (lambda: with_tensor("layer1.0.conv2.fc1.weight", (32, 64, 1, 1)), "ResNeSt"),
    "anti-aliased": (lambda: with_tensor("layer2.0.conv3.0.filt", (128, 1, 3, 3)), "anti-aliased"),
    "Res2Net": (lambda: with_tensor("layer1.0.convs.0.weight", (26, 26, 3, 3)), "Res2Net"),
    "ResNet-26": (lambda: of_other_depth([2, 2, 2, 2]), "2, 2, 2, 2 bottleneck blocks"),
    "ResNet-200": (lambda: of_other_depth([3, 24, 36, 3]), "3, 24, 36, 3 bottleneck blocks"),
    "group norm": (without_statistics, "without batch norm statistics"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_refused_by_name(name):
    make, says = VARIANTS[name]
    with pytest.raises(InputError, match=says) as refusal:
        closest(make())
    assert "\n" not in str(refusal.value)


def test_the_line_for_a_config_is_python():
    line = config_line(vars(BY_NAME["resnext50_32x4d"]))
    name, call = line.split(" = ")
    assert name == "model.backbone.bottom_up"
    arguments = eval(call.removeprefix("L(build_resnet)").replace("(", "dict(", 1))
    assert (arguments["groups"], arguments["bottleneck_channels"]) == (32, 128)
