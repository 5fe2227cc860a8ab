"""Plain Vision Transformers (https://arxiv.org/abs/2010.11929): DINO's, MAE's, DINOv2's, DINOv3's.

Names are timm's. Detectron2's side runs timm's blocks; the reference is a forward of our own in matrix
products alone, its resizing of positions included, since timm's network would prove nothing of timm's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, format_name
from ...modeling.architectures import misfits
from .family import (
    Shapes,
    StatedWrongly,
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

ROPE_BASE = 100.0
"""Of the rotary positions of DINOv3's published networks (its hub/backbones.py)."""

_PATCHES = ((4, 4, 0, 0), (3, 5, 0, 0), (3, 4, 1, 3))
"""Of a proof's images: patches in height and width, then pixels beyond whole ones in eighths of a patch."""


@dataclass(frozen=True)
class ViT:
    """A ViT; the fields are arguments of `modeling.vit.build_vit`, which says what they are.

    Attributes:
        assumed: fields of which neither the tensors nor the layout are sure.
    """

    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 6
    patch_size: int = 16
    mlp_dim: int = 1536
    grid: int = 14
    class_position: bool = True
    num_registers: int = 0
    layer_scale: bool = False
    qkv_bias: bool = True
    swiglu: bool = False
    final_norm: bool = True
    norm_eps: float = 1e-6
    interpolate_offset: float = 0.0
    interpolate_antialias: bool = False
    in_channels: int = 3
    assumed: tuple[str, ...] = ()

    has_bottlenecks = False  # a ResNet's part that a ViT has not

    @property
    def name(self) -> str:
        size = _NAMES.get((self.embed_dim, self.depth), f"{self.embed_dim}x{self.depth}")
        registers = f"_reg{self.num_registers}" if self.num_registers else ""
        return f"vit_{size}_patch{self.patch_size}{registers}{'' if self.grid else '_rope'}"

    def to_dict(self) -> dict[str, object]:
        stated = {"family": "vit", "name": self.name, **asdict(self), "assumed": list(self.assumed)}
        if self.in_channels == 3:
            del stated["in_channels"]
        if not self.assumed:
            del stated["assumed"]
        return stated

    @cached_property
    def shapes(self) -> Shapes:
        return dict(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        dim, patch = self.embed_dim, self.patch_size
        yield "cls_token", (1, 1, dim)
        if self.num_registers:
            yield "reg_token", (1, self.num_registers, dim)
        if self.grid:
            yield "pos_embed", (1, self.grid**2 + self.class_position, dim)
        else:
            yield "rope_embed.periods", (dim // self.num_heads // 4,)
        yield from affine_shapes("patch_embed.proj", (dim, self.in_channels, patch, patch))
        for index in range(self.depth):
            block = f"blocks.{index}"
            yield from affine_shapes(f"{block}.norm1", (dim,))
            yield f"{block}.attn.qkv.weight", (3 * dim, dim)
            if self.qkv_bias:
                yield f"{block}.attn.qkv.bias", (3 * dim,)
            yield from affine_shapes(f"{block}.attn.proj", (dim, dim))
            if self.layer_scale:
                yield f"{block}.ls1.gamma", (dim,)
            yield from affine_shapes(f"{block}.norm2", (dim,))
            yield from affine_shapes(f"{block}.mlp.fc1", (self.mlp_dim * (1 + self.swiglu), dim))
            yield from affine_shapes(f"{block}.mlp.fc2", (dim, self.mlp_dim))
            if self.layer_scale:
                yield f"{block}.ls2.gamma", (dim,)
        if self.final_norm:
            yield from affine_shapes("norm", (dim,))


_ALWAYS = ("embed_dim", "depth", "num_heads", "patch_size", "norm_eps")
"""What a config says of a ViT even where it is `build_vit`'s default."""

_NAMES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1536, 40): "giant",
    (4096, 40): "7b",
}
"""What the papers call them, by width and depth."""

_HEADS = {1280: (16, 20), 4096: (32, 32)}
"""Heads where one has not 64 channels: with positions (MAE's), and with rotary ones (DINOv3's)."""

_VARIANTS = {
    r"^patch_embed\.proj\.\d": "with a convolutional stem (as MoCo v3's vit_conv_small)",
    r"^dist_token$": "with a distillation token (DeiT's)",
    r"rel_pos|relative_position": "with relative positions (as SAM's, BEiT's or ViTDet's own)",
    r"\.attn\.[qk]_norm\.": "with normed queries and keys",
    r"^norm_pre\.": "with a norm before its blocks (CLIP's)",
}

_PARTS = re.compile(
    r"(blocks\.\d+\.(?:attn|mlp))\.(q|k|v|fc1_g|fc1_x|qkv)\.(weight|bias|bias_mask)"
)


class ViTFamily(TimmFamily):
    name = "vit"
    title = "ViT"
    roots = (
        *("cls_token", "reg_token", "pos_embed", "rope_embed", "patch_embed", "blocks", "norm"),
        *("dist_token", "norm_pre", "register_tokens", "storage_tokens"),
    )
    begins = ("patch_embed.", "blocks.")
    landmark = "patch_embed.proj.weight"
    stem = "vit.patch_embed.proj.weight"
    detectron2_roots = ("vit.",)
    arguments = tuple(field for field in ViT.__dataclass_fields__ if field != "assumed")
    unshown = ("num_heads", "norm_eps", "interpolate_offset", "interpolate_antialias")

    def is_trained(self, tensors: Tensors) -> bool:
        """By the layer norms' scales, which begin at 1."""
        return any((a != 1).any() for n, a in tensors.items() if re.search(r"norm\d?\.weight$", n))

    def plain(self, name: str, value: object) -> tuple[str, object]:
        """Blocks by their number alone: sharded trainings chunk them, as DINOv2's `block_chunks`."""
        return re.sub(r"^blocks\.[0-9]+\.([0-9]+\.)", r"blocks.\1", name), value

    def merged(
        self, values: Mapping[str, object], known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[dict[str, object], dict[str, tuple[str, ...]]]:
        """Queries, keys and values as one tensor, a SwiGLU's gate before its other half, a masked bias at 0.

        Keys without a bias have 0, which is what DINOv3's mask makes of theirs. Rotary periods that a layout
        assumes are those of DINOv3.
        """
        groups: dict[str, dict[str, str]] = {}
        for name in values:
            if match := _PARTS.fullmatch(name):
                whole = "fc1" if match[2].startswith("fc1") else "qkv"
                of = "bias" if match[3] == "bias_mask" else match[3]
                part = match[3] if match[3] == "bias_mask" else match[2]
                groups.setdefault(f"{match[1]}.{whole}.{of}", {})[part] = name
        found, parts = dict(values), {}
        for whole, names in groups.items():
            held = {part: values[name] for part, name in names.items()}
            value = _merge(held) if set(held) != {"qkv"} else None
            if value is not None:
                for name in names.values():
                    del found[name]
                found[whole], parts[whole] = value, tuple(names.values())
        if "rope_periods" in known.get("assumed", ()) and "rope_embed.periods" not in found:
            shapes = {n: np.shape(v) for n, v in found.items() if isinstance(v, np.ndarray)}
            width = (*shapes.get("patch_embed.proj.weight", ()), 0)[0]
            heads = known.get("num_heads", _usual_heads(width, rotary=True))
            quarter = width // heads // 4 if type(heads) is int and heads > 0 else 0
            steps = np.arange(quarter, dtype=np.float32) / np.float32(max(quarter, 1))
            found["rope_embed.periods"] = np.float32(ROPE_BASE) ** steps
        return found, parts

    def closest(
        self, shapes: Shapes, known: Mapping[str, object] = MappingProxyType({})
    ) -> tuple[ViT, dict[str, str]]:
        """From the shapes; what they do not show from `known`, or as it is in most."""
        _refuse_variants(shapes)
        width, channels, patch = (*shapes.get("patch_embed.proj.weight", ()), 384, 3, 16)[:3]
        blocks = [int(m[1]) for n in shapes if (m := re.match(r"blocks\.([0-9]{1,3})\.", n))]
        gated = (*shapes.get("blocks.0.mlp.fc1.weight", ()), 4 * width)[0]
        mlp_dim = (*shapes.get("blocks.0.mlp.fc2.weight", ())[1:], gated)[0]
        positions = (*shapes.get("pos_embed", ())[1:], 0)[0]
        grid = math.isqrt(positions)
        # Of one patch a class has two positions, which are no square either.
        class_position = grid**2 != positions
        periods = (*shapes.get("rope_embed.periods", ()), 0)[0]
        heads = width // (4 * periods) if periods else _usual_heads(width, rotary=not grid)
        found = ViT(
            embed_dim=width,
            depth=max(blocks, default=0) + 1,
            num_heads=max(heads, 1),
            patch_size=patch,
            mlp_dim=mlp_dim,
            grid=grid,
            class_position=class_position,
            num_registers=(*shapes.get("reg_token", ())[1:], 0)[0],
            layer_scale=any(name.endswith(".ls1.gamma") for name in shapes),
            qkv_bias="blocks.0.attn.qkv.bias" in shapes,
            swiglu=gated == 2 * mlp_dim,
            final_norm="norm.weight" in shapes,
            in_channels=channels,
        )
        assumed = set(known.get("assumed", ()))
        told = bool(periods) and "rope_periods" not in assumed
        # Two projects have a ViT-S, of 6 and of 12 heads; a size that no paper has may have any.
        usual = (width, found.depth) in _NAMES and (width != 384 or "head_dim" in known or periods)
        if not (told or usual or "num_heads" in known):
            assumed.add("num_heads")
        if min(width, channels, patch, mlp_dim) < 1:
            raise InputError("holds a ViT of which an axis has no length: get the file again")
        stated = {name: known[name] for name in self.unshown if name in known}
        found = replace(found, assumed=tuple(sorted(assumed)), **stated)
        _check_stated(found, width // (4 * periods) if told else None)
        if positions and grid**2 + class_position != positions:
            raise InputError(
                f"holds a position embedding of {positions} tokens, which are no square of patches, with or "
                "without a class token: give one that was pretrained on square images"
            )
        return found, misfits(shapes, found)

    def fault_in(self, architecture: Mapping[str, object]) -> str:
        usual, assumed = ViT().to_dict() | {"in_channels": 3}, architecture.get("assumed", [])
        for name in self.arguments:
            value = architecture.get(name, usual[name] if name == "in_channels" else None)
            is_float = isinstance(usual[name], float)
            if type(value) is not type(usual[name]) and not (is_float and type(value) is int):
                return f"{name} is {format_name(str(value))}"
        is_listed = isinstance(assumed, list) and all(isinstance(name, str) for name in assumed)
        return "" if is_listed else f"assumed is {format_name(str(assumed))}"

    def backbone(self, architecture: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
        usual = ViT().to_dict()
        arguments = {
            name: architecture[name]
            for name in self.arguments
            if name in architecture and (name in _ALWAYS or architecture[name] != usual.get(name))
        }
        if architecture["patch_size"] not in (4, 8, 16, 32):
            arguments["resample_patch"] = 16
        bottom_up = {"_target_": "ssl_backbones.modeling.vit.build_vit", **arguments}
        target = "ssl_backbones.modeling.vit.SimpleFeaturePyramid"
        return "model.backbone", {"_target_": target, "bottom_up": bottom_up}

    def facts(self, tensors: Tensors) -> dict[str, object]:
        periods = tensors.get("rope_embed.periods", np.empty(0))
        return {"rope_periods": [round(float(one), 6) for one in periods]} if periods.size else {}

    def image_sizes(self, kernel: tuple[int, ...]) -> Iterable[tuple[int, int]]:
        patch = kernel[-1]
        for high, wide, below, beside in _PATCHES:
            yield high * patch + patch * below // 8, wide * patch + patch * beside // 8

    def forward(
        self, state: Mapping[str, torch.Tensor], architecture: ViT, image: torch.Tensor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        return forward(state, architecture, image)

    def network(self, architecture: ViT, traits: Traits) -> Any:
        import torch

        from ...modeling.vit import build_vit

        arguments = {name: getattr(architecture, name) for name in self.arguments}
        with torch.device("meta"):  # no memory and no random numbers for weights to be replaced
            return build_vit(**arguments | traits, out_features=_levels(architecture)).eval()

    def wrong_conversions(
        self, tensors: Tensors, architecture: ViT, traits: Traits
    ) -> Iterator[Wrong]:
        def filled(pattern: str, value: float) -> Tensors:
            return {n: np.full_like(a, value) for n, a in tensors.items() if re.search(pattern, n)}

        kernel, width = tensors[self.stem], architecture.embed_dim
        changes = {
            **reversed_channels(tensors, self.stem),
            "patch kernels transposed": {self.stem: kernel.swapaxes(2, 3)},
            "layer norms in the blocks left at 1": filled(r"\.norm[12]\.weight$", 1),
            "queries and values swapped": {
                n: np.concatenate([a[2 * width :], a[width : 2 * width], a[:width]])
                for n, a in tensors.items()
                if ".attn.qkv." in n
            },
        }
        if architecture.final_norm:
            changes["final norm left at 1"] = filled(r"^vit\.norm\.weight$", 1)
        if architecture.layer_scale:
            changes["layer scale left at 1"] = filled(r"\.gamma$", 1)
        if architecture.num_registers:
            changes["registers left at 0"] = filled(r"^vit\.reg_token$", 0)
        if architecture.depth > 1:
            swap = swapped(tensors, "vit.blocks.0.", "vit.blocks.1.")
            changes["the first two blocks swapped"] = swap
        if architecture.grid > 1:
            changes |= _of_positions(tensors["vit.pos_embed"], architecture)
        elif not architecture.grid:
            periods = tensors["vit.rope_embed.periods"]
            changes["rotary positions left out"] = {
                "vit.rope_embed.periods": np.full_like(periods, 1e9)
            }
        for name, changed in changes.items():
            yield Wrong(name, changed_in(tensors, changed), traits)
        # A common slip of ViT-S, which MoCo v3 trains with 12 heads and all others with 6.
        heads = architecture.num_heads * (2 if architecture.num_heads % 2 else 0.5)
        if architecture.grid and width % int(heads) == 0:
            yield Wrong("another number of heads", tensors, traits | {"num_heads": int(heads)})


def _merge(held: Mapping[str, object]) -> np.ndarray | None:
    """Parts as the tensor that they are of; None where they are no arrays that fit."""
    if not all(
        isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in held.values()
    ):
        return None
    held = dict(held)
    mask = held.pop("bias_mask", None)
    if "q" in held and "v" in held and held["q"].ndim == 1:
        held.setdefault("k", np.zeros_like(held["q"]))
    order = [("qkv",), ("q", "k", "v"), ("fc1_g", "fc1_x"), ("fc1_x",)]
    names = next((names for names in order if set(names) == set(held)), None)
    if names is None or len({held[name].shape for name in names}) > 1 or not held[names[0]].ndim:
        return None
    whole = np.concatenate([held[name] for name in names])
    if mask is None:
        return whole
    return whole * mask.astype(whole.dtype) if mask.shape == whole.shape else None


def _usual_heads(width: int, rotary: bool) -> int:
    return _HEADS[width][rotary] if width in _HEADS else max(width // 64, 1)


def _check_stated(found: ViT, heads: int | None) -> None:
    """Refuse what a layout, a provenance, a text or a user says, and no network can be.

    Args:
        heads: as the file's rotary periods have them; None where there are none.
    """
    stated, eps, offset = found.num_heads, found.norm_eps, found.interpolate_offset
    mend = "say another with --network, or move the text beside the file away"
    if type(stated) is not int or stated < 1 or found.embed_dim % stated:
        raise StatedWrongly(
            f"is said to have {format_name(str(stated))} heads, into which its {found.embed_dim} channels "
            f"cannot be divided: {mend}"
        )
    if heads not in (None, stated):
        raise StatedWrongly(
            f"is said to have {stated} heads, and its rotary periods are of {heads}: {mend}"
        )
    if not found.grid and (found.embed_dim // stated) % 4:
        raise StatedWrongly(
            f"is said to have {stated} heads, whose {found.embed_dim // stated} channels are no whole fours, "
            f"as rotary positions need: {mend}"
        )
    if type(eps) not in (int, float) or not 0 < eps < 0.1:
        raise StatedWrongly(f"is said to have norms with an eps of {format_name(str(eps))}: {mend}")
    has_offset = type(offset) in (int, float) and (offset == 0 or 1e-3 <= offset <= 0.9)
    antialias = found.interpolate_antialias
    if not has_offset or type(antialias) is not bool or (offset and antialias):
        raise StatedWrongly(
            f"is said to interpolate positions with an offset of {format_name(str(offset))} and antialias "
            f"{format_name(str(antialias))}, which no project does (0.1 and false, 0 and either): {mend}"
        )


def _refuse_variants(shapes: Shapes) -> None:
    for pattern, variant in _VARIANTS.items():
        if any(re.search(pattern, name) for name in shapes):
            raise InputError(
                f"holds a ViT {variant}, which is not converted; give a checkpoint of a plain ViT"
            )


def _of_positions(positions: np.ndarray, architecture: ViT) -> dict[str, Tensors]:
    """Mistakes in a position embedding (1, tokens, C) of a square of patches."""
    begin, grid = int(architecture.class_position), architecture.grid
    patches = positions[:, begin:].reshape(1, grid, grid, -1)
    transposed = patches.swapaxes(1, 2).reshape(1, grid**2, -1)
    shifted = np.roll(positions, 1, axis=1)
    return {
        "positions transposed": {
            "vit.pos_embed": np.concatenate([positions[:, :begin], transposed], axis=1)
        },
        "positions shifted by one": {"vit.pos_embed": shifted},
    }


def _levels(architecture: ViT) -> list[str]:
    """Blocks at each quarter of the depth, and the last map."""
    depth = architecture.depth
    return [
        f"block{number}" for number in dict.fromkeys(-(-depth * q // 4) for q in (1, 2, 3, 4))
    ] + ["last"]


def forward(
    state: Mapping[str, torch.Tensor], architecture: ViT, image: torch.Tensor
) -> Iterator[tuple[str, torch.Tensor]]:
    """Maps (1, C, h, w) of `_levels`, of an image (1, C, H, W), by the papers' formulas."""
    import torch

    one, levels = architecture, _levels(architecture)

    def affine(values: torch.Tensor, name: str) -> torch.Tensor:
        values = values @ state[f"{name}.weight"].T
        return values + state[f"{name}.bias"] if f"{name}.bias" in state else values

    def layer_norm(values: torch.Tensor, name: str) -> torch.Tensor:
        mean = values.mean(-1, keepdim=True)
        variance = (values - mean).square().mean(-1, keepdim=True)
        normed = (values - mean) / (variance + one.norm_eps).sqrt()
        return normed * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(values: torch.Tensor, name: str) -> torch.Tensor:
        split = affine(values, f"{name}.qkv").unflatten(-1, (3, one.num_heads, -1))
        query, key, value = split.permute(1, 2, 0, 3)
        if not one.grid:
            query, key = (_turned(part, state["rope_embed.periods"], size) for part in (query, key))
        scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
        return affine((scores.softmax(-1) @ value).transpose(0, 1).flatten(1), f"{name}.proj")

    def mlp(values: torch.Tensor, name: str) -> torch.Tensor:
        inner = affine(values, f"{name}.fc1")
        if one.swiglu:
            gate, inner = inner.chunk(2, -1)
            return affine(gate * gate.sigmoid() * inner, f"{name}.fc2")
        return affine(inner * (1 + torch.erf(inner / 2**0.5)) / 2, f"{name}.fc2")

    def scaled(values: torch.Tensor, name: str) -> torch.Tensor:
        return values * state[f"{name}.gamma"] if one.layer_scale else values

    def as_map(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[1 + one.num_registers :].T.unflatten(1, size)[None]

    patch = one.patch_size
    size = height, width = image.shape[2] // patch, image.shape[3] // patch
    whole = image[0, :, : height * patch, : width * patch]
    patches = whole.unflatten(2, (width, patch)).unflatten(1, (height, patch))
    patches = patches.permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)
    tokens = (
        patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    )
    first = state["cls_token"][0]
    if one.grid:
        positions = state["pos_embed"][0]
        first = first + positions[:1] if one.class_position else first
        tokens = tokens + _resized(positions[int(one.class_position) :], one, size, image)
    registers = [state["reg_token"][0]] if one.num_registers else []
    tokens = torch.cat([first, *registers, tokens])
    for number in range(one.depth):
        block = f"blocks.{number}"
        inner = attention(layer_norm(tokens, f"{block}.norm1"), f"{block}.attn")
        tokens = tokens + scaled(inner, f"{block}.ls1")
        tokens = tokens + scaled(
            mlp(layer_norm(tokens, f"{block}.norm2"), f"{block}.mlp"), f"{block}.ls2"
        )
        if f"block{number + 1}" in levels:
            yield f"block{number + 1}", as_map(tokens)
    yield "last", as_map(layer_norm(tokens, "norm") if one.final_norm else tokens)


def _turned(values: torch.Tensor, periods: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Heads (heads, tokens, channels) with those of patches turned by their places, as complex numbers."""
    import torch

    height, width = size
    rows, columns = (2 * (torch.arange(n).to(periods) + 0.5) / n - 1 for n in (height, width))
    by_row = (rows[:, None, None] / periods).expand(height, width, -1)
    by_column = (columns[:, None] / periods).expand(height, width, -1)
    angles = 2 * math.pi * torch.cat([by_row, by_column], -1).flatten(0, 1)
    half = values.shape[-1] // 2
    before, patches = values.tensor_split([values.shape[1] - height * width], dim=1)
    pairs = torch.complex(patches[..., :half].contiguous(), patches[..., half:].contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([before, torch.cat([turned.real, turned.imag], -1)], dim=1)


def _resized(
    positions: torch.Tensor, architecture: ViT, size: Sequence[int], image: torch.Tensor
) -> torch.Tensor:
    """Positions (grid * grid, C) for a map of `size`, (height * width, C), an axis after the other."""
    import torch

    grid, offset = architecture.grid, architecture.interpolate_offset
    if size[0] == size[1] == grid and image.shape[2] == image.shape[3]:
        return positions
    down, across = (
        torch.from_numpy(_bicubic(grid, n, (n + offset) / grid, architecture.interpolate_antialias))
        for n in size
    )
    square = positions.unflatten(0, (grid, grid))
    return torch.einsum("hi,wj,ijc->hwc", down.to(square), across.to(square), square).flatten(0, 1)


def _bicubic(old: int, new: int, scale: float, antialias: bool) -> np.ndarray:
    """(new, old): the weights of torch's bicubic resizing along one axis, by its formula.

    Keys' kernel has -0.75 without antialias and -0.5 with it (ATen's UpSample.h); with it the kernel widens
    as the axis shrinks, and weights beyond the border are left out, not given to its last place.
    """
    stretch = max(1 / scale, 1.0) if antialias else 1.0
    a = -0.5 if antialias else -0.75
    centers = (np.arange(new) + 0.5) / scale - 0.5
    weights = np.zeros((new, old))
    reach = math.ceil(2 * stretch) + 1
    for row, center in enumerate(centers):
        for place in range(math.floor(center) - reach, math.floor(center) + reach + 1):
            x = abs(place - center) / stretch
            if x < 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
            if not antialias:
                weights[row, min(max(place, 0), old - 1)] += weight
            elif 0 <= place < old:
                weights[row, place] += weight
    return weights / weights.sum(1, keepdims=True)


VIT = ViTFamily()
