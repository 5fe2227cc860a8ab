"""The proof passes a right conversion, and fails every wrong one that it is shown."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import torchvision
from narrow_resnet import trained
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from ssl_backbones.conversion.families import FAMILIES, RESNET
from ssl_backbones.conversion.families.resnet import torchvision_network
from ssl_backbones.conversion.proof import prove
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import ARCHITECTURES, closest, detectron2_name
from ssl_backbones.modeling.resnet import build_resnet

BY_NAME = {row.name: row for row in ARCHITECTURES}
RESNET50 = BY_NAME["resnet50"]
STAGES = ["res2", "res3", "res4", "res5"]


@pytest.fixture
def converted(source_tensors) -> dict[str, np.ndarray]:
    return {detectron2_name(name): array for name, array in source_tensors.items()}


def test_a_right_conversion_passes_by_a_wide_margin(source_tensors, converted):
    proof = prove(source_tensors, converted, RESNET50)
    assert {precision: list(stages) for precision, stages in proof.stages.items()} == {
        "float64": STAGES,
        "float32": STAGES,
    }
    exact = [difference.relative for difference in proof.stages["float64"].values()]
    assert 0 < max(exact) < 1e-11  # not 0: other kernels, so that rounding is seen
    assert all(difference.absolute == 0 for difference in proof.stages["float32"].values())
    assert list(proof.controls) == [
        "BGR statistics",
        "one batch norm's statistics dropped",
        "two batch norm tensors swapped",
        "stride in the 1x1",
    ]
    assert min(proof.controls.values()) > 1e-2
    assert proof.other_branch is None
    assert proof.margin == pytest.approx(min(proof.controls.values()) / 1e-5)
    assert proof.to_dict()["tolerances"] == RESNET.tolerances == {"float64": 1e-10, "float32": 1e-5}


def test_the_other_branch_is_scored_and_may_be_near(source_tensors, converted):
    """A momentum copy ends near its model: that is told, and no reason to refuse."""
    name = "res2.0.conv1.weight"
    far = converted | {name: converted[name] * np.float32(2)}
    late = "res5.2.conv3.norm.bias"
    near = converted | {late: converted[late] * np.float32(1 + 2e-6)}
    assert prove(source_tensors, converted, RESNET50, far).other_branch > 1e-2
    assert 0 < prove(source_tensors, converted, RESNET50, near).other_branch < 1e-5


def backbone_tensors(network: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: tensor.numpy()
        for name, tensor in network.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }


class SwavResNet(torchvision.models.ResNet):
    """What src/resnet50.py of SwAV's repository changes in torchvision's network for resnet50w2.

    All planes are doubled by `widen`, the stem's too, and the stem pads in a layer of its own.
    """

    def __init__(self):
        super().__init__(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3])
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.inplanes = 128
        self.conv1 = nn.Conv2d(3, 128, kernel_size=7, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(128)
        block = torchvision.models.resnet.Bottleneck
        self.layer1 = self._make_layer(block, 128, 3)
        self.layer2 = self._make_layer(block, 256, 4, stride=2)
        self.layer3 = self._make_layer(block, 512, 6, stride=2)
        self.layer4 = self._make_layer(block, 1024, 3, stride=2)
        self.fc = nn.Linear(4096, 8)

    def forward(self, images):
        return super().forward(self.padding(images))


@pytest.mark.parametrize("channels", [1, 2, 12, 13])
def test_images_of_other_channels_are_proved_through_the_one_constructor(channels):
    """The features are those of a torchvision network with another first convolution."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None
    with torch.no_grad():
        network(torch.randn(2, channels, 64, 64))
    tensors = backbone_tensors(network.eval())
    architecture, problems = closest({name: array.shape for name, array in tensors.items()})
    assert (architecture.name, architecture.in_channels, problems) == ("resnet18", channels, {})
    converted = {detectron2_name(name): array for name, array in tensors.items()}
    proof = prove(tensors, converted, architecture)
    scores = dict(proof.controls)
    assert (scores.pop("channels reversed") is None) == (channels == 1)  # the same either way
    assert min(scores.values()) > 1e-3
    ours = build_resnet(depth=18, res2_channels=64, in_channels=channels).eval()
    counters = {n: t for n, t in ours.state_dict().items() if n.endswith("num_batches_tracked")}
    ours.load_state_dict({n: torch.from_numpy(a) for n, a in converted.items()} | counters)
    images = torch.randn(1, channels, 64, 64)
    theirs = create_feature_extractor(network, {"layer4": "res5"})
    with torch.no_grad():
        assert torch.equal(ours(images)["res5"], theirs(images)["res5"])


SOURCES = {
    name: getattr(torchvision.models, name)
    for name in ("resnet18", "resnet34", "resnet101", "resnet152", "wide_resnet50_2",
                 "resnext50_32x4d")
} | {"resnet50w2": SwavResNet}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_each_architecture_is_recognised_and_computes_what_its_own_class_does(name):
    """Recognised by shapes alone; the features are those of the class that trains it."""
    torch.manual_seed(0)
    source = trained(SOURCES[name]())
    tensors = backbone_tensors(source)
    architecture, problems = closest({key: array.shape for key, array in tensors.items()})
    assert (architecture.name, problems) == (name, {})

    widths = {key: value for key, value in vars(architecture).items() if key in WIDTHS}
    with torch.device("meta"):
        network = build_resnet(**widths)
    state = {detectron2_name(key): torch.from_numpy(array) for key, array in tensors.items()}
    missing, unexpected = network.load_state_dict(state, strict=False, assign=True)
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert unexpected == []
    layers = {f"layer{index}": stage for index, stage in enumerate(STAGES, 1)}
    images = torch.randn(1, 3, 65, 98)
    with torch.inference_mode():
        expected = create_feature_extractor(source, layers)(images)
        features = network.eval()(images)
    for stage in STAGES:
        largest = expected[stage].abs().max()
        assert (features[stage] - expected[stage]).abs().max() <= 1e-5 * largest, stage


WIDTHS = ("depth", "stem_channels", "res2_channels", "bottleneck_channels", "groups")


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_the_proof_of_other_architectures(name):
    torch.manual_seed(0)
    tensors = backbone_tensors(trained(SOURCES[name]()))
    converted = {detectron2_name(key): array for key, array in tensors.items()}
    proof = prove(tensors, converted, BY_NAME[name])
    assert max(d.relative for stages in proof.stages.values() for d in stages.values()) < 1e-11
    assert min(proof.controls.values()) > 1e-2
    # Blocks of two 3x3 convolutions have no 1x1 to put the stride in.
    assert ("stride in the 1x1" in proof.controls) == (name != "resnet18")


@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.startswith("resnet50w")])
def test_the_sources_network_is_torchvisions(name):
    """Layer by layer with widths, strides, padding and groups, as torchvision's constructor makes it."""
    with torch.device("meta"):
        expected = getattr(torchvision.models, name)()
        expected.fc = nn.Identity()
        assert str(torchvision_network(BY_NAME[name])) == str(expected)


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


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
@pytest.mark.parametrize("module", ["detectron2.modeling", "the network of the source"])
def test_what_a_proof_needs_and_is_not_there_is_one_line(family, module, monkeypatch):
    own = "torchvision" if family.name == "resnet" else "timm"
    monkeypatch.setitem(sys.modules, module if "." in module else own, None)
    with pytest.raises(InputError, match=r"cannot be proved without PyTorch, .*\(--no-verify\)"):
        prove({}, {}, RESNET50, family=family)
