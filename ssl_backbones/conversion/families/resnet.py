"""ResNets and ResNeXts: torchvision's on the source's side, Detectron2's own on the other.

In float32 both run the same kernels in the same order, so that a right conversion differs by nothing at
all; in float64 torchvision's runs on another memory format, hence by other kernels, and rounding is all
that a right conversion may differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from ...modeling import architectures
from ...modeling.architectures import Architecture
from .family import (
    Family,
    Features,
    Shapes,
    Tensors,
    Traits,
    Wrong,
    changed_in,
    in_torch,
    reversed_channels,
)

_INPUT_SIZE = (65, 98)  # odd and even sides: both roundings of a stride occur
_TORCHVISION_STAGES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}


class ResNetFamily(Family):
    name = "resnet"
    title = "ResNet"
    roots = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    begins = ("conv1.", "layer")
    landmark = "layer4.0.conv1.weight"
    stem = "stem.conv1.weight"
    detectron2_roots = ("stem.conv", "res2.", "res3.", "res4.", "res5.")
    reference = "torchvision"
    untrained = "batch norms whose statistics are all at their initial values"
    needs = "PyTorch, torchvision and Detectron2"
    # Far above rounding, and far below the 1e-2 of a single wrong tensor.
    tolerances = MappingProxyType({"float64": 1e-10, "float32": 1e-5})
    arguments = architectures.WIDTHS

    def is_trained(self, tensors: Tensors) -> bool:
        """By the batch norms' statistics, which are 0 and 1 until the first image."""
        initial = {"running_mean": 0, "running_var": 1}
        return any(
            (array != initial[part]).any()
            for name, array in tensors.items()
            if (part := name.rsplit(".", 1)[1]) in initial
        )

    def closest(
        self, shapes: Shapes, known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[Architecture, dict[str, str]]:
        return architectures.closest(shapes)

    def to_detectron2(self, name: str) -> str:
        return architectures.detectron2_name(name)

    def from_detectron2(self, name: str) -> str:
        return architectures.torchvision_name(name)

    def config_line(self, architecture: Mapping[str, object]) -> str:
        return architectures.config_line(architecture)

    def traits(self, origin: Mapping[str, Any]) -> Traits:
        """Whether the strides are known to lie in the 1x1 convolutions of the bottlenecks."""
        return {"stride_in_1x1": (origin["input"] or {}).get("stride_in_1x1") is True}

    def import_networks(self) -> None:
        import detectron2.modeling  # noqa: F401
        import torchvision  # noqa: F401

    def expected(
        self, tensors: Tensors, architecture: Architecture, traits: Traits
    ) -> dict[str, Features]:
        network = torchvision_network(architecture, traits.get("stride_in_1x1", False))
        features = {}

        def keep(stage: str) -> Callable:
            return lambda module, inputs, output: features.update({stage: output.numpy()})

        for stage, layer in _TORCHVISION_STAGES.items():
            network.get_submodule(layer).register_forward_hook(keep(stage))
        expected = {}
        for precision in self.tolerances:
            _run(network, tensors, precision, other_kernels=precision == "float64")
            expected[precision] = dict(features)
        return expected

    def network(self, architecture: Architecture, traits: Traits) -> Any:
        import torch

        from ...modeling.resnet import build_resnet

        widths = asdict(architecture)
        del widths["name"]
        with torch.device("meta"):
            return build_resnet(**widths, stride_in_1x1=traits.get("stride_in_1x1", False))

    def features(self, network: Any, tensors: Tensors, precision: str) -> Features:
        found = _run(network, tensors, precision)
        return {stage: np.asarray(values) for stage, values in found.items()}

    def wrong_conversions(
        self, tensors: Tensors, architecture: Architecture, traits: Traits
    ) -> Iterator[Wrong]:
        """Mistakes in the stem, which every later feature depends on, and the stride's other place.

        Statistics in BGR's order feed a network with its input channels reversed, which is what a first
        convolution with reversed input channels computes.
        """
        norm = "stem.conv1.norm."
        mean, variance, bias = (
            tensors[norm + name] for name in ("running_mean", "running_var", "bias")
        )
        changes = {
            **reversed_channels(tensors, self.stem),
            "one batch norm's statistics dropped": {
                f"{norm}running_mean": np.zeros_like(mean),
                f"{norm}running_var": np.ones_like(variance),
            },
            "two batch norm tensors swapped": {f"{norm}running_mean": bias, f"{norm}bias": mean},
        }
        for name, changed in changes.items():
            yield Wrong(name, changed_in(tensors, changed), traits)
        if architecture.has_bottlenecks:  # or there is no 1x1 convolution to put a stride in
            in_1x1 = traits.get("stride_in_1x1", False)
            kernel = "3x3" if in_1x1 else "1x1"
            yield Wrong(f"stride in the {kernel}", tensors, {"stride_in_1x1": not in_1x1})


RESNET = ResNetFamily()


def torchvision_network(architecture: Architecture, stride_in_1x1: bool = False):
    """torchvision's ResNet of any widths, without a classifier, on the meta device.

    Its strides lie in the 3x3 convolutions; with `stride_in_1x1` those of the bottlenecks are moved.

    torchvision's constructor has no argument for the stem's width and the stages' output, which
    SwAV's wide networks double (swav src/resnet50.py, `widen`); what it builds them with, and all
    that computes, is used as it is.
    """
    import torch
    from torchvision.models import resnet

    block = resnet.Bottleneck if architecture.has_bottlenecks else resnet.BasicBlock
    planes = architecture.res2_channels // block.expansion
    stem = architecture.stem_channels
    with torch.device("meta"):  # no memory and no random numbers for weights to be replaced
        network = resnet.ResNet(block, list(architecture.blocks), groups=architecture.groups)
        network.fc = torch.nn.Identity()
        if architecture.has_bottlenecks:  # `width = int(planes * (base_width / 64)) * groups`
            width = architecture.bottleneck_channels // architecture.groups
            network.base_width = 64 * width / planes
        network.inplanes = stem
        network.conv1 = torch.nn.Conv2d(
            architecture.in_channels, stem, 7, stride=2, padding=3, bias=False
        )
        network.bn1 = torch.nn.BatchNorm2d(stem)
        for stage, blocks in enumerate(architecture.blocks):
            layer = network._make_layer(block, planes << stage, blocks, stride=min(1 + stage, 2))
            setattr(network, f"layer{stage + 1}", layer)
    if stride_in_1x1:
        for module in network.modules():
            if isinstance(module, resnet.Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    return network


def _run(network, tensors: Tensors, precision: str, *, other_kernels: bool = False):
    """The network's output for the fixed input, with every one of its tensors from `tensors`."""
    import torch

    dtype = getattr(torch, precision)
    state = in_torch(tensors, dtype)
    counters = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    state |= {name: torch.tensor(0) for name in counters}
    network.load_state_dict(state, strict=True, assign=True)
    first = tensors["conv1.weight" if "conv1.weight" in tensors else "stem.conv1.weight"]
    image = np.random.default_rng(0).standard_normal((1, first.shape[1], *_INPUT_SIZE))
    image = torch.from_numpy(image).to(dtype)
    if other_kernels:
        network.to(memory_format=torch.channels_last)
        image = image.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        return network.eval()(image)
