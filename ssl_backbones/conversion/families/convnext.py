"""ConvNeXts of both versions (https://arxiv.org/abs/2201.03545, https://arxiv.org/abs/2301.00808).

Names are timm's. Detectron2's side runs timm's modules; the reference is a forward of our own on torch's
functions alone, since timm's network would prove nothing of timm's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...modeling.architectures import misfits
from .family import (
    Shapes,
    Tensors,
    TimmFamily,
    Traits,
    Wrong,
    affine_shapes,
    changed_in,
    reversed_channels,
    swapped,
)

if TYPE_CHECKING:
    import torch

NORM_EPS = 1e-6
"""Of every layer norm of a ConvNeXt, in all of the projects' own code."""

WIDTHS = ("depths", "dims", "grn", "layer_scale", "in_channels")
"""What tells one ConvNeXt from another; arguments of `modeling.convnext.build_convnext` as well."""

_SIZES = ((64, 64), (96, 64), (75, 110))
"""Of the images of a proof, in pixels: the last is no multiple of any stride."""


@dataclass(frozen=True)
class ConvNeXt:
    """A ConvNeXt.

    Attributes:
        depths: blocks in each of the four stages.
        dims: channels of each.
        grn: whether it is of version 2, with global response normalisation.
        layer_scale: whether each block ends in a scale of its own, as in version 1.
        in_channels: of the images.
    """

    name: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    grn: bool
    layer_scale: bool
    in_channels: int = 3

    # A ResNet's parts that a ConvNeXt has not.
    has_bottlenecks = False
    depth = 0

    def to_dict(self) -> dict[str, object]:
        stated = {"family": "convnext", "name": self.name, "depths": list(self.depths)}
        stated |= {"dims": list(self.dims), "grn": self.grn, "layer_scale": self.layer_scale}
        stated["norm_eps"] = NORM_EPS
        return stated if self.in_channels == 3 else stated | {"in_channels": self.in_channels}

    @cached_property
    def shapes(self) -> Shapes:
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from affine_shapes("stem.0", (self.dims[0], self.in_channels, 4, 4))
        yield from affine_shapes("stem.1", (self.dims[0],))
        for stage, (depth, dim) in enumerate(zip(self.depths, self.dims, strict=True)):
            if stage:
                before = self.dims[stage - 1]
                yield from affine_shapes(f"stages.{stage}.downsample.0", (before,))
                yield from affine_shapes(f"stages.{stage}.downsample.1", (dim, before, 2, 2))
            for index in range(depth):
                block = f"stages.{stage}.blocks.{index}"
                if self.layer_scale:
                    yield f"{block}.gamma", (dim,)
                yield from affine_shapes(f"{block}.conv_dw", (dim, 1, 7, 7))
                yield from affine_shapes(f"{block}.norm", (dim,))
                yield from affine_shapes(f"{block}.mlp.fc1", (4 * dim, dim))
                if self.grn:
                    yield from affine_shapes(f"{block}.mlp.grn", (4 * dim,))
                yield from affine_shapes(f"{block}.mlp.fc2", (dim, 4 * dim))


_NAMES = {
    ((2, 2, 6, 2), 40): "atto",
    ((2, 2, 6, 2), 48): "femto",
    ((2, 2, 6, 2), 64): "pico",
    ((2, 2, 8, 2), 80): "nano",
    ((3, 3, 9, 3), 96): "tiny",
    ((3, 3, 27, 3), 96): "small",
    ((3, 3, 27, 3), 128): "base",
    ((3, 3, 27, 3), 192): "large",
    ((3, 3, 27, 3), 256): "xlarge",
    ((3, 3, 27, 3), 352): "huge",
}
"""What the papers call them, by depths and the first stage's channels."""


class ConvNeXtFamily(TimmFamily):
    name = "convnext"
    title = "ConvNeXt"
    roots = ("stem", "stages")
    begins = ("stem.", "stages.")
    landmark = "stages.3.downsample.1.weight"
    stem = "convnext.stem.0.weight"
    detectron2_roots = ("convnext.",)
    arguments = WIDTHS

    def is_trained(self, tensors: Tensors) -> bool:
        """By the layer norms' scales, which begin at 1."""
        return any((a != 1).any() for n, a in tensors.items() if n.endswith(".norm.weight"))

    def plain(self, name: str, value: object) -> tuple[str, object]:
        """Kernels of sparse convolutions as dense ones, and vectors without the axes that broadcast them.

        Source: `remap_checkpoint_keys` of ConvNeXt-V2's utils.py; timm's 1x1 convolutions in place of linear
        layers are these.
        """
        if not isinstance(value, np.ndarray):
            return name, value
        array = value
        if name.endswith(".kernel"):
            name = f"{name.removesuffix('kernel')}weight"
            side = round(array.shape[0] ** 0.5)
            if side * side == array.shape[0] and array.ndim in (2, 3):
                # (positions, [inputs,] outputs), the positions column by column.
                array = array.reshape(side, side, *array.shape[1:]).swapaxes(0, 1)
                array = np.moveaxis(array, -1, 0)
                array = array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1)
        elif re.search(r"\.fc\d\.weight$", name) and array.ndim == 4:
            array = array.reshape(array.shape[:2]) if array.shape[2:] == (1, 1) else array
        elif name.endswith((".bias", ".gamma", ".grn.weight")) and array.ndim > 1:
            array = array.reshape(-1) if array.size == max(array.shape) else array
        return name, array

    def closest(
        self, shapes: Shapes, known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[ConvNeXt, dict[str, str]]:
        """From the shapes alone: as many blocks as there are, and the width of each stage's first norm."""
        depths = [0, 0, 0, 0]
        for name in shapes:
            if match := re.match(r"stages\.([0-3])\.blocks\.(\d{1,3})\.", name):
                depths[int(match[1])] = max(depths[int(match[1])], int(match[2]) + 1)
        first, channels = (*shapes.get("stem.0.weight", ()), 96, 3)[:2]
        dims = [
            (*shapes.get(f"stages.{stage}.blocks.0.conv_dw.weight", ()), first << stage)[0]
            for stage in range(4)
        ]
        grn = any(".grn." in name for name in shapes)
        layer_scale = any(name.endswith(".gamma") for name in shapes)
        size = _NAMES.get((tuple(depths), dims[0]))
        version = "convnextv2" if grn else "convnext"
        name = (
            f"{version}_{size}" if size and dims == [dims[0] << stage for stage in range(4)] else ""
        )
        found = ConvNeXt(
            name or f"{version} of depths {depths} and dims {dims}",
            tuple(depths),
            tuple(dims),
            grn,
            layer_scale,
            channels,
        )
        return found, misfits(shapes, found)

    def backbone(self, architecture: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        widths = {key: architecture[key] for key in WIDTHS if key in architecture}
        target = "ssl_backbones.modeling.convnext.build_convnext"
        outputs = {"freeze_at": 0, "out_features": ["res2", "res3", "res4", "res5"]}
        return "model.backbone.bottom_up", {"_target_": target, **widths, **outputs}

    def image_sizes(self, kernel: tuple[int, ...]) -> Iterable[tuple[int, int]]:
        return _SIZES

    def forward(
        self, state: Mapping[str, torch.Tensor], architecture: ConvNeXt, image: torch.Tensor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        return forward(state, architecture, image)

    def network(self, architecture: ConvNeXt, traits: Traits) -> Any:
        from ...modeling.convnext import build_convnext

        widths = {name: getattr(architecture, name) for name in WIDTHS}
        # The outputs' norms of a detector are new, and none of the pretraining's.
        return build_convnext(**widths, output_norm=False).eval()

    def wrong_conversions(
        self, tensors: Tensors, architecture: ConvNeXt, traits: Traits
    ) -> Iterator[Wrong]:
        kernels = {n: a for n, a in tensors.items() if n.endswith("conv_dw.weight")}
        norms = [n for n in tensors if n.endswith(("stem.1.weight", "downsample.0.weight"))]
        changes = {
            **reversed_channels(tensors, self.stem),
            "depthwise kernels transposed": {n: a.swapaxes(2, 3) for n, a in kernels.items()},
            "depthwise kernels mirrored": {n: a[..., ::-1] for n, a in kernels.items()},
            "norms of the stem and before each stage left at 1": {
                n: np.ones_like(tensors[n]) for n in norms
            },
            "layer norms in the blocks left at 1": {
                n: np.ones_like(a) for n, a in tensors.items() if n.endswith(".norm.weight")
            },
        }
        if architecture.layer_scale:
            scales = {n: np.ones_like(a) for n, a in tensors.items() if n.endswith(".gamma")}
            changes["layer scale left at 1"] = scales
        if architecture.grn:
            changes["response normalisation left at 0"] = {
                n: np.zeros_like(a) for n, a in tensors.items() if ".grn." in n
            }
        if architecture.depths[0] > 1:
            changes["the first two blocks swapped"] = swapped(
                tensors, "convnext.stages.0.blocks.0.", "convnext.stages.0.blocks.1."
            )
        for name, changed in changes.items():
            yield Wrong(name, changed_in(tensors, changed), traits)


def forward(
    state: Mapping[str, torch.Tensor], architecture: ConvNeXt, image: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """res2..res5 of an image (1, C, H, W), by the papers' formulas on torch's functions."""
    from torch.nn import functional as F

    def affine(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def layer_norm(values: torch.Tensor, name: str) -> torch.Tensor:
        """Over the channels, which stand last."""
        mean = values.mean(-1, keepdim=True)
        variance = (values - mean).square().mean(-1, keepdim=True)
        weight, bias = affine(name)
        return (values - mean) / (variance + NORM_EPS).sqrt() * weight + bias

    def block(values: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = affine(f"{name}.conv_dw")
        inner = F.conv2d(values, weight, bias, padding=3, groups=len(weight)).movedim(1, -1)
        inner = F.gelu(F.linear(layer_norm(inner, f"{name}.norm"), *affine(f"{name}.mlp.fc1")))
        if architecture.grn:
            norms = inner.square().sum((1, 2), keepdim=True).sqrt()
            scaled = norms / (norms.mean(-1, keepdim=True) + NORM_EPS)
            weight, bias = affine(f"{name}.mlp.grn")
            inner = inner + weight * (inner * scaled) + bias
        inner = F.linear(inner, *affine(f"{name}.mlp.fc2"))
        if architecture.layer_scale:
            inner = inner * state[f"{name}.gamma"]
        return values + inner.movedim(-1, 1)

    values = F.conv2d(image, *affine("stem.0"), stride=4)
    values = layer_norm(values.movedim(1, -1), "stem.1").movedim(-1, 1)
    for stage, depth in enumerate(architecture.depths):
        if stage:
            name = f"stages.{stage}.downsample"
            values = layer_norm(values.movedim(1, -1), f"{name}.0").movedim(-1, 1)
            values = F.conv2d(values, *affine(f"{name}.1"), stride=2)
        for index in range(depth):
            values = block(values, f"stages.{stage}.blocks.{index}")
        yield f"res{stage + 2}", values


CONVNEXT = ConvNeXtFamily()
