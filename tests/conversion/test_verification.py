"""The proof passes a right conversion, and fails every wrong one that it is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ssl_backbones.conversion.resnet import ARCHITECTURES, detectron2_name
from ssl_backbones.conversion.verification import TOLERANCE, prove
from ssl_backbones.errors import InputError

RESNET50 = next(row for row in ARCHITECTURES if row.name == "resnet50")


@pytest.fixture
def converted(source_tensors) -> dict[str, np.ndarray]:
    return {detectron2_name(name): array for name, array in source_tensors.items()}


def test_a_right_conversion_passes_by_a_wide_margin(source_tensors, converted):
    proof = prove(source_tensors, converted, RESNET50)
    assert list(proof.stages) == ["res2", "res3", "res4", "res5"]
    assert max(proof.stages.values()) <= 1e-6
    assert list(proof.controls) == [
        "one batch norm's statistics dropped",
        "two batch norm tensors swapped",
        "stride in the 1x1",
    ]
    assert min(proof.controls.values()) > 1e-2
    assert proof.margin == pytest.approx(min(proof.controls.values()) / 1e-5)
    assert proof.to_dict()["tolerance"] == TOLERANCE == 1e-5


def swap(tensors: dict, one: str, other: str) -> dict:
    return tensors | {one: tensors[other], other: tensors[one]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: swap(t, "res5.2.conv1.norm.weight", "res5.2.conv1.norm.running_var"),
        lambda t: swap(t, "res4.3.conv1.norm.bias", "res4.3.conv2.norm.bias"),
        lambda t: swap(t, "res3.1.conv3.weight", "res3.2.conv3.weight"),
        lambda t: t | {"res5.2.conv3.norm.running_mean": np.zeros(2048, np.float32)},
        lambda t: t | {"res2.0.shortcut.norm.running_var": np.ones(256, np.float32)},
        lambda t: t | {"stem.conv1.weight": np.ascontiguousarray(t["stem.conv1.weight"][:, ::-1])},
        lambda t: t | {"res5.2.conv3.norm.bias": t["res5.2.conv3.norm.bias"] * np.float32(1.01)},
    ],
)
def test_wrong_conversions_are_refused(source_tensors, converted, spoil):
    """Late layers, whose mistakes show least, the channel order, and one per cent on one tensor."""
    with pytest.raises(InputError, match="failed the proof"):
        prove(source_tensors, spoil(converted), RESNET50)


def test_untrained_statistics_are_no_obstacle(source_tensors):
    """Where a mistake would change nothing it is not counted, and the others still must show."""
    source = dict(source_tensors)
    source["bn1.running_mean"] = source["bn1.bias"] = np.zeros(64, np.float32)
    source["bn1.running_var"] = np.ones(64, np.float32)
    proof = prove(source, {detectron2_name(k): v for k, v in source.items()}, RESNET50)
    assert proof.controls["one batch norm's statistics dropped"] is None
    assert proof.controls["two batch norm tensors swapped"] is None
    assert proof.controls["stride in the 1x1"] > 1e-2


@pytest.mark.parametrize("scale", [0, 2e38])
def test_dead_and_exploded_networks_are_refused(source_tensors, scale):
    source = source_tensors | {
        name: source_tensors[name] * np.float32(scale) for name in ("bn1.weight", "bn1.bias")
    }
    if scale == 0:  # nothing comes through the stem, and nothing is added after it
        source = {
            name: array * np.float32(0) if name.endswith((".bias", "running_mean")) else array
            for name, array in source.items()
        }
    converted = {detectron2_name(name): array for name, array in source.items()}
    with pytest.raises(InputError, match="the training went wrong"):
        prove(source, converted, RESNET50)


def test_swavs_padded_stem_is_torchvisions():
    """src/resnet50.py pads by 1 and convolves with padding 2: the weights mean the same."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.ConstantPad2d(1, 0.0), nn.Conv2d(3, 64, 7, stride=2, padding=2, bias=False)
    )
    ours = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
    ours.weight = theirs[1].weight
    image = torch.randn(1, 3, 97, 130)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-6, atol=1e-6)
