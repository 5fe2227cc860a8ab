"""What a ResNet holds: tensor names and shapes, computed from its depth and widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

Shapes = Mapping[str, tuple[int, ...]]

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}

BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Architecture:
    """A ResNet as torchvision builds them (https://arxiv.org/abs/1512.03385, tables 1 and 6).

    Attributes:
        stem_channels: output of the 7x7 convolution.
        res2_channels: output of the first stage; each later stage has twice those before it.
        bottleneck_channels: of the 3x3 convolutions of the first stage.
    """

    name: str
    depth: int
    stem_channels: int = 64
    res2_channels: int = 256
    bottleneck_channels: int = 64
    groups: int = 1

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of residual blocks in each of the four stages."""
        return _BLOCKS[self.depth]

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth >= 50

    @cached_property
    def shapes(self) -> Shapes:
        """Shape of each backbone tensor under its torchvision name, without step counters."""
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "conv1.weight", (self.stem_channels, 3, 7, 7)
        yield from _batch_norm("bn1", self.stem_channels)
        channels = self.stem_channels
        for stage, blocks in enumerate(self.blocks):
            out_channels = self.res2_channels << stage
            for block in range(blocks):
                prefix = f"layer{stage + 1}.{block}."
                yield from self._block(prefix, stage, channels, out_channels)
                if block == 0 and (stage > 0 or channels != out_channels):
                    yield f"{prefix}downsample.0.weight", (out_channels, channels, 1, 1)
                    yield from _batch_norm(f"{prefix}downsample.1", out_channels)
                channels = out_channels

    def _block(self, prefix: str, stage: int, channels: int, out_channels: int):
        width = self.bottleneck_channels << stage
        if self.has_bottlenecks:
            convolutions = (
                (width, channels, 1, 1),
                (width, width // self.groups, 3, 3),
                (out_channels, width, 1, 1),
            )
        else:
            convolutions = ((out_channels, channels, 3, 3), (out_channels, out_channels, 3, 3))
        for index, shape in enumerate(convolutions, 1):
            yield f"{prefix}conv{index}.weight", shape
            yield from _batch_norm(f"{prefix}bn{index}", shape[0])


def _batch_norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for tensor in BATCH_NORM_TENSORS:
        yield f"{name}.{tensor}", (channels,)


def _wide(factor: int) -> Architecture:
    """SwAV's wide ResNet-50s multiply every width, the stem's too (swav src/resnet50.py)."""
    return Architecture(f"resnet50w{factor}", 50, 64 * factor, 256 * factor, 64 * factor)


ARCHITECTURES = (
    Architecture("resnet18", 18, res2_channels=64),
    Architecture("resnet34", 34, res2_channels=64),
    Architecture("resnet50", 50),
    Architecture("resnet101", 101),
    Architecture("resnet152", 152),
    _wide(2),
    _wide(4),
    _wide(5),
    Architecture("wide_resnet50_2", 50, bottleneck_channels=128),
    Architecture("wide_resnet101_2", 101, bottleneck_channels=128),
    Architecture("resnext50_32x4d", 50, bottleneck_channels=128, groups=32),
    Architecture("resnext101_32x8d", 101, bottleneck_channels=256, groups=32),
)

CONVERTED = ("resnet50",)
"""Names of the architectures that the converter writes and the recipes train."""


def misfits(shapes: Shapes, architecture: Architecture) -> dict[str, str]:
    """What is wrong with each tensor for it to be `architecture`: missing, its shape, unknown."""
    found = {}
    for name, shape in architecture.shapes.items():
        if name not in shapes:
            found[name] = "is missing"
        elif shapes[name] != shape:
            found[name] = f"has shape {shapes[name]} instead of {shape}"
    for name in shapes:
        if name not in architecture.shapes:
            found[name] = "is not part of it"
    return found


def closest(shapes: Shapes) -> tuple[Architecture, dict[str, str]]:
    """The architecture with the fewest misfits, and those."""
    all_misfits = {architecture: misfits(shapes, architecture) for architecture in ARCHITECTURES}
    best = min(all_misfits, key=lambda architecture: len(all_misfits[architecture]))
    return best, all_misfits[best]


def detectron2_name(name: str) -> str:
    """Detectron2's name for a tensor that torchvision calls `name`.

    Source: detectron2/modeling/backbone/resnet.py and torchvision/models/resnet.py.
    """
    module, tensor = name.rsplit(".", 1)
    stage, *block = module.split(".")
    if not block:
        return f"stem.{_layer(stage)}.{tensor}"
    index, *layer = block
    return f"res{int(stage.removeprefix('layer')) + 1}.{index}.{_layer('.'.join(layer))}.{tensor}"


def _layer(name: str) -> str:
    if name.startswith("bn"):
        return f"conv{name.removeprefix('bn')}.norm"
    return {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}.get(name, name)
