"""What a ResNet holds: tensor names, torchvision's and Detectron2's, and shapes, by its depth and widths.

Which of them a file holds is read from its tensors. What only looks like one of them, such as a
network with another stem, is refused by the name of what it is. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from ..errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Number of residual blocks in each of the four stages, by depth."""

BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Architecture:
    """A ResNet as torchvision builds them (https://arxiv.org/abs/1512.03385, tables 1 and 6).

    Attributes:
        stem_channels: output of the 7x7 convolution.
        res2_channels: output of the first stage; each later stage has twice those before it.
        bottleneck_channels: of the 3x3 convolutions of the first stage; without a meaning where
            blocks are of two 3x3 convolutions (depth 18 and 34).
        groups: of each 3x3 convolution.
        in_channels: of the images.
    """

    name: str
    depth: int
    stem_channels: int = 64
    res2_channels: int = 256
    bottleneck_channels: int = 64
    groups: int = 1
    in_channels: int = 3

    def to_dict(self) -> dict[str, object]:
        """As the provenance has it: images of three channels go without saying."""
        stated = asdict(self)
        if self.in_channels == 3:
            del stated["in_channels"]
        return stated

    @property
    def blocks(self) -> tuple[int, ...]:
        """Number of residual blocks in each of the four stages."""
        return BLOCKS[self.depth]

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth >= 50

    @cached_property
    def shapes(self) -> Shapes:
        """Shape of each backbone tensor under its torchvision name, without step counters."""
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield "conv1.weight", (self.stem_channels, self.in_channels, 7, 7)
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
    """The architecture with the fewest misfits, and those.

    Beside the known ones, the one whose depth and widths the shapes state themselves is tried.

    Raises:
        InputError: a network that is none of these although it has a ResNet's names.
    """
    _refuse_variants(shapes)
    known = [replace(known, in_channels=_in_channels(shapes)) for known in ARCHITECTURES]
    candidates = dict.fromkeys(known)
    stated = _stated(shapes)
    if stated is not None and not any(_same_network(stated, one) for one in known):
        candidates[stated] = None
    all_misfits = {architecture: misfits(shapes, architecture) for architecture in candidates}
    best = min(all_misfits, key=lambda architecture: len(all_misfits[architecture]))
    return best, all_misfits[best]


def _stated(shapes: Shapes) -> Architecture | None:
    """The architecture that a few shapes imply; None where they contradict any."""
    blocks = _blocks(shapes)
    has_bottlenecks = "layer1.0.conv3.weight" in shapes
    depths = (d for d, known in BLOCKS.items() if known == blocks and (d >= 50) == has_bottlenecks)
    depth = next(depths, None)
    stem, middle, last = (
        shapes.get(name, ())
        for name in (
            "conv1.weight",
            "layer1.0.conv2.weight",
            f"layer1.0.conv{3 if has_bottlenecks else 2}.weight",
        )
    )
    if depth is None or any(len(shape) != 4 or 0 in shape for shape in (stem, middle, last)):
        return None
    channels = _in_channels(shapes)
    widths = {"stem_channels": stem[0], "res2_channels": last[0]}
    if has_bottlenecks:
        widths |= {"bottleneck_channels": middle[0], "groups": middle[0] // middle[1] or 1}
    numbers = ", ".join(f"{name} {width}" for name, width in widths.items())
    return Architecture(f"resnet{depth} of {numbers}", depth, **widths, in_channels=channels)


def _in_channels(shapes: Shapes) -> int:
    """The images' channels, as the first convolution states them; three where it states nothing."""
    _, channels, *kernel = (*shapes.get("conv1.weight", ()), 0, 0)[:4]
    return channels if channels and kernel == [7, 7] else 3


def _same_network(one: Architecture, other: Architecture) -> bool:
    return one.depth == other.depth and one.shapes == other.shapes


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """Number of blocks in each stage, as the names count them."""
    counts = [0, 0, 0, 0]
    for name in shapes:
        if match := re.match(r"layer([1-4])\.(\d{1,4})\.", name):
            stage = int(match[1]) - 1
            counts[stage] = max(counts[stage], int(match[2]) + 1)
    return tuple(counts)


def _refuse_variants(shapes: Shapes) -> None:
    """Networks with a ResNet's names that compute something else, or that nothing here builds."""
    if variant := _variant(shapes):
        raise InputError(
            f"holds {variant}, which Detectron2's ResNet does not compute; give a checkpoint of a "
            "plain ResNet or ResNeXt"
        )
    blocks = _blocks(shapes)
    has_bottlenecks = any(name.endswith(".conv3.weight") for name in shapes)
    known = [BLOCKS[depth] for depth in BLOCKS if (depth >= 50) == has_bottlenecks]
    if all(blocks) and blocks not in known:
        kind = "bottleneck" if has_bottlenecks else "basic"
        depths = ", ".join(map(str, BLOCKS))
        raise InputError(
            f"holds a network of {', '.join(map(str, blocks))} {kind} blocks in its four stages, "
            f"which is no ResNet of {depths} layers; give a whole checkpoint of one of these"
        )


def _variant(shapes: Shapes) -> str | None:
    """What a network is called that differs from a ResNet in a way that its tensors show."""
    _, _, *kernel = (*shapes.get("conv1.weight", ()), 0, 0, 0, 0)[:4]
    if "conv1.0.weight" in shapes or (kernel == [3, 3] and "conv2.weight" in shapes):
        return (
            "a ResNet with a deep stem (several 3x3 convolutions, as in timm's resnet50d and CLIP)"
        )
    if kernel == [3, 3]:
        return "a ResNet with a 3x3 stem, as for CIFAR's small images"
    if all(kernel) and kernel != [7, 7]:
        return f"a ResNet with a {kernel[0]}x{kernel[1]} stem"
    for name, shape in shapes.items():
        for part, variant in _VARIANT_PARTS.items():
            if re.search(part, name):
                return variant
        if name.endswith("downsample.1.weight") and len(shape) == 4:
            return "a ResNet whose shortcuts pool first (as timm's resnet50d)"
    if "bn1.weight" in shapes and not any(name.endswith("running_mean") for name in shapes):
        return (
            "a ResNet without batch norm statistics (another norm, such as group norm, or saved by "
            "named_parameters())"
        )
    return None


_VARIANT_PARTS = {
    r"^layer\d\.\d+\.(se|se_module|se_layer|attn)\.": "a ResNet with squeeze-and-excitation",
    r"^layer\d\.\d+\.conv2\.(fc1|conv_reduce|attn|paths)\.": "a ResNet with attention in its "
    "3x3 convolutions (ResNeSt or SKNet)",
    r"\.filt$": "an anti-aliased ResNet (blur pooling)",
    r"^layer\d\.\d+\.convs\.": "a Res2Net",
}


WIDTHS = ("depth", "stem_channels", "res2_channels", "bottleneck_channels", "groups", "in_channels")
"""What tells one architecture from another; the arguments of `modeling.resnet.build_resnet` as well."""


def config_line(architecture: Mapping[str, object]) -> str:
    """The line of a config that builds an architecture, given as the provenance has it.

    FPN takes its inputs from the config's `out_features`, so they are written out.
    """
    widths = "".join(f"{name}={architecture[name]}, " for name in WIDTHS if name in architecture)
    return (
        f'model.backbone.bottom_up = L(build_resnet)({widths}norm="SyncBN", freeze_at=1, '
        'out_features=["res2", "res3", "res4", "res5"])'
    )


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


def torchvision_name(name: str) -> str:
    """torchvision's name for a tensor that Detectron2 calls `name`: `detectron2_name` undone.

    Raises:
        ValueError: it is no name of a plain ResNet's tensor.
    """
    match = re.fullmatch(
        r"(?:stem|res([2-5])\.(\d+))\.(?:conv(\d)|(shortcut))(\.norm)?\.(\w+)", name
    )
    if match is None or (match[1] is None and match[3] != "1"):
        raise ValueError(f"{name!r} is no tensor of a ResNet")
    stage, block, number, shortcut, norm, tensor = match.groups()
    layer = f"{'bn' if norm else 'conv'}{number}"
    if shortcut:
        layer = f"downsample.{1 if norm else 0}"
    return (
        f"{layer}.{tensor}" if stage is None else f"layer{int(stage) - 1}.{block}.{layer}.{tensor}"
    )
