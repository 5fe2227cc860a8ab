"""A plain ViT for Detectron2: timm's blocks, positions as each pretraining has them, ViTDet's pyramid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from .convnext import ChannelNorm

LAST = "last"
"""The name of the last block's map, behind the final norm where the network has one."""

ROPE_BASE = 100.0
"""Of DINOv3's rotary positions, whose periods stand in its own files and in no others."""


class ViT(Backbone):
    """All that a pretraining holds lies in `vit`, under timm's names.

    Attributes:
        num_layers: what a layer-wise decay counts: the embeddings, each block, and what comes after.
        no_weight_decay: parameters that no recipe decays.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        embed_dim: int,
        num_heads: int,
        patch_size: int,
        grid: int,
        class_position: bool,
        num_registers: int,
        final_norm: bool,
        norm_eps: float,
        interpolate_offset: float,
        interpolate_antialias: bool,
        in_channels: int,
        resample_patch: int | None,
        freeze_at: int,
        checkpointing: bool,
        out_features: Sequence[str],
    ):
        super().__init__()
        vit = self.vit = nn.Module()
        vit.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        if num_registers:
            vit.reg_token = nn.Parameter(torch.zeros(1, num_registers, embed_dim))
        if grid:
            vit.pos_embed = nn.Parameter(torch.zeros(1, grid**2 + class_position, embed_dim))
        else:
            vit.rope_embed = nn.Module()
            vit.rope_embed.register_buffer("periods", rope_periods(embed_dim // num_heads))
        vit.patch_embed = nn.Module()
        vit.patch_embed.proj = nn.Conv2d(in_channels, embed_dim, patch_size, stride=patch_size)
        vit.blocks = nn.ModuleList(blocks)
        vit.norm = nn.LayerNorm(embed_dim, eps=norm_eps) if final_norm else nn.Identity()
        self._grid, self._class_position = grid, class_position
        self._interpolation = {"offset": interpolate_offset, "antialias": interpolate_antialias}
        self._channels, self._stride = embed_dim, resample_patch or patch_size
        self._out_features, self._checkpointing = list(out_features), checkpointing
        if self._stride != patch_size:
            resampling = _resampling(patch_size, self._stride)
            self.register_buffer("_resampling", resampling, persistent=False)
        self.num_layers = len(vit.blocks) + 2
        self.no_weight_decay = tuple(f"vit.{n}" for n in ("pos_embed", "cls_token", "reg_token"))
        self._initialize()
        self.freeze(freeze_at)

    def _initialize(self) -> None:
        """As timm's and the projects' own: truncated normals of 0.02, biases at 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.vit.named_parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02 if name == "pos_embed" else 1e-6)

    @property
    def size_divisibility(self) -> int:
        return self._stride

    def freeze(self, freeze_at: int) -> None:
        """1 freezes the embeddings, 2 the first block as well, and so on; one more than these the norm."""
        for name, parameter in self.named_parameters():
            if self.layer_id(name) < freeze_at:
                parameter.requires_grad_(False)

    def layer_id(self, name: str) -> int:
        """Which of the layers a parameter is of, as ViTDet's and BEiT's layer-wise decays count them."""
        _, part, *inside = name.split(".")
        if part == "blocks":
            return int(inside[0]) + 1
        return self.num_layers - 1 if part == "norm" else 0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (N, C, H / patch, W / patch) by name, of images (N, channels, H, W).

        `block1` and so on is a block's output as it is, `last` the last one's behind the final norm.
        """
        maps = self._maps(images)
        return {name: values for name, values in maps if name in self._out_features}

    def _maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        patches = F.conv2d(images, self._kernel(), self.vit.patch_embed.proj.bias, self._stride)
        # As numbers, which a trace holds for constants: positions are of one size.
        height, width = size = tuple(map(int, patches.shape[2:]))
        tokens, rope = self._embed(patches, size, tuple(map(int, images.shape[2:])))
        prefix = tokens.shape[1] - height * width

        def as_map(tokens: Tensor) -> Tensor:
            return tokens[:, prefix:].transpose(1, 2).unflatten(2, size)

        for number, block in enumerate(self.vit.blocks, 1):
            if self._checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(_run, block, tokens, rope, use_reentrant=False)
            else:
                tokens = _run(block, tokens, rope)
            if (name := f"block{number}") in self._out_features:
                yield name, as_map(tokens)
        yield LAST, as_map(self.vit.norm(tokens))

    def _kernel(self) -> Tensor:
        kernel = self.vit.patch_embed.proj.weight
        if self._stride == kernel.shape[-1]:
            return kernel
        with torch.autocast(kernel.device.type, enabled=False):
            flat = kernel.flatten(2) @ self._resampling.to(kernel.dtype)
        return flat.unflatten(2, (self._stride, self._stride))

    def _embed(
        self, patches: Tensor, size: Sequence[int], of: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (N, class and registers and patches, C), and what RoPE turns them by."""
        vit = self.vit
        tokens, rope = patches.flatten(2).transpose(1, 2), None
        first = vit.cls_token
        if self._grid:
            of_class, of_patches = vit.pos_embed.tensor_split([int(self._class_position)], dim=1)
            if not (size[0] == size[1] == self._grid and of[0] == of[1]):
                of_patches = interpolate_positions(of_patches, size, **self._interpolation)
            tokens = tokens + of_patches
            first = first + of_class if self._class_position else first
        else:
            rope = rotations(vit.rope_embed.periods, size)
        prefix = [first] + ([vit.reg_token] if hasattr(vit, "reg_token") else [])
        prefix = torch.cat(prefix, dim=1).expand(len(tokens), -1, -1)
        return torch.cat([prefix, tokens], dim=1), rope

    def output_shape(self) -> dict[str, ShapeSpec]:
        shape = ShapeSpec(channels=self._channels, stride=self._stride)
        return dict.fromkeys(self._out_features, shape)


def _run(block: nn.Module, tokens: Tensor, rope: Tensor | None) -> Tensor:
    """timm's block, whose own forward hands no rotation on."""
    turned = () if rope is None else (rope,)
    tokens = tokens + block.drop_path1(block.ls1(block.attn(block.norm1(tokens), *turned)))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def interpolate_positions(
    positions: Tensor, size: Sequence[int], offset: float, antialias: bool
) -> Tensor:
    """Position embeddings (1, side * side, C) for a map of `size`, (1, height * width, C).

    With an offset the scale is (size + offset) / side, without one it is the sizes'. DINO, iBOT and DINOv2
    have 0.1 and no antialias, DINOv2 with registers and timm no offset and antialias, MAE neither.

    Source: `interpolate_pos_encoding` of DINO's and DINOv2's vision_transformer.py.
    """
    side = math.isqrt(positions.shape[1])
    wide = positions if positions.dtype == torch.float64 else positions.float()
    scale = {"scale_factor": tuple((length + offset) / side for length in size)}
    resized = F.interpolate(
        wide.transpose(1, 2).unflatten(2, (side, side)),
        mode="bicubic",
        antialias=antialias,
        **(scale if offset else {"size": tuple(size)}),
    )
    return resized.flatten(2).transpose(1, 2).to(positions.dtype)


def rope_periods(head_dim: int) -> Tensor:
    """(head_dim / 4,): DINOv3's layers/rope_position_encoding.py, of its published networks."""
    return ROPE_BASE ** (torch.arange(head_dim // 4) / (head_dim // 4))


def rotations(periods: Tensor, size: Sequence[int]) -> Tensor:
    """Sines and cosines, (height * width, 2 * head_dim), of patches' centres from -1 to 1 in either axis."""
    axes = [
        (torch.arange(n, dtype=periods.dtype, device=periods.device) + 0.5) / n * 2 - 1
        for n in size
    ]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angles = (2 * math.pi * places / periods).flatten(1).tile(2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _resampling(old: int, new: int) -> Tensor:
    """(old * old, new * new): what makes a patch kernel one of another size (FlexiViT's pseudo-inverse)."""
    from timm.layers.patch_embed import resample_patch_embed

    basis = torch.eye(old**2).reshape(-1, 1, old, old)
    return resample_patch_embed(basis, [new, new]).flatten(1)


def build_vit(
    *,
    embed_dim: int = 384,
    depth: int = 12,
    num_heads: int = 6,
    patch_size: int = 16,
    mlp_dim: int = 1536,
    grid: int = 14,
    class_position: bool = True,
    num_registers: int = 0,
    layer_scale: bool = False,
    qkv_bias: bool = True,
    swiglu: bool = False,
    final_norm: bool = True,
    norm_eps: float = 1e-6,
    interpolate_offset: float = 0.0,
    interpolate_antialias: bool = False,
    in_channels: int = 3,
    resample_patch: int | None = None,
    drop_path: float = 0.0,
    freeze_at: int = 0,
    checkpointing: bool = False,
    out_features: Sequence[str] = (LAST,),
) -> ViT:
    """A plain ViT; all arguments up to `in_channels` stand in a converted file's provenance.

    Args:
        mlp_dim: hidden width of each MLP, behind the gate of a SwiGLU.
        grid: patches on a side of the position embedding; 0 where rotary positions (RoPE) take its place.
        class_position: whether the class token has a position embedding too.
        norm_eps: of every layer norm.
        interpolate_offset, interpolate_antialias: how the pretraining's own code interpolates positions.
        resample_patch: patch size to resample the kernel to, such as 16 for a network of patch 14, whose
            strides no FPN takes; an approximation.
        drop_path: stochastic depth of the last block; it grows from 0 with the blocks.
        freeze_at: 1 freezes the embeddings, 2 the first block as well, and so on; depth + 2 all.
        checkpointing: compute each block again in the backward pass, for less memory.
        out_features: of `block1` and so on, and `last`.

    Raises:
        InputError: timm is not installed, or there is no such ViT.
    """
    _check(
        num_heads=num_heads > 0 and embed_dim % num_heads == 0,
        depth=depth > 0,
        mlp_dim=mlp_dim > 0,
        drop_path=0 <= drop_path < 1,
        freeze_at=freeze_at >= 0,
        resample_patch=resample_patch is None or resample_patch > 0,
        interpolate_offset=not (interpolate_offset and interpolate_antialias),
        out_features=set(out_features) <= {*(f"block{n + 1}" for n in range(depth)), LAST},
    )
    try:
        from timm.layers import AttentionRope, SwiGLUPacked
        from timm.models.vision_transformer import Block
    except ImportError as error:
        raise InputError(
            f"a ViT needs timm ({error}): pip install 'ssl-backbones[vit]' brings it"
        ) from error
    options = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if swiglu else {}
    # Block rounds a product down, hence the half.
    ratio = ((2 if swiglu else 1) * mlp_dim + 0.5) / embed_dim
    blocks = [
        Block(
            embed_dim,
            num_heads,
            mlp_ratio=ratio,
            qkv_bias=qkv_bias,
            init_values=1e-5 if layer_scale else None,
            drop_path=drop_path * number / max(depth - 1, 1),
            norm_layer=partial(nn.LayerNorm, eps=norm_eps),
            **options,
        )
        for number in range(depth)
    ]
    if not grid:
        for block in blocks:
            block.attn = AttentionRope(
                embed_dim,
                num_heads,
                qkv_bias=qkv_bias,
                num_prefix_tokens=1 + num_registers,
                rotate_half=True,
            )
    return ViT(
        blocks,
        embed_dim=embed_dim,
        num_heads=num_heads,
        patch_size=patch_size,
        grid=grid,
        class_position=class_position,
        num_registers=num_registers,
        final_norm=final_norm,
        norm_eps=norm_eps,
        interpolate_offset=interpolate_offset,
        interpolate_antialias=interpolate_antialias,
        in_channels=in_channels,
        resample_patch=resample_patch,
        freeze_at=freeze_at,
        checkpointing=checkpointing,
        out_features=out_features,
    )


def _check(**fits: bool) -> None:
    for name, is_possible in fits.items():
        if not is_possible:
            raise InputError(
                f"build_vit can make nothing of this {name}: see what it says of its arguments"
            )


class SimpleFeaturePyramid(Backbone):
    """p2 to p6 out of one map of a plain ViT, each by deconvolution or pooling of it alone.

    Source: Li et al., arXiv:2203.16527; detectron2's main, modeling/backbone/vit.py, `SimpleFeaturePyramid`
    with norm "LN" and `LastLevelMaxPool`.
    """

    def __init__(self, bottom_up: ViT, out_channels: int = 256):
        """
        Raises:
            InputError: the patches are of no size that the strides of a pyramid can be made of, or there is
                another number of maps than one.
        """
        super().__init__()
        self.bottom_up = bottom_up
        if len(maps := bottom_up.output_shape()) != 1:
            raise InputError(
                f"a simple feature pyramid is made of one map, and this backbone gives {', '.join(maps)}: "
                "a ResNet or ConvNeXt goes into an FPN"
            )
        ((self._in_feature, shape),) = maps.items()
        if shape.stride not in (4, 8, 16, 32):
            raise InputError(
                f"a pyramid of strides 4 to 32 cannot be made of patches of {shape.stride}: write "
                "resample_patch=16 into the ViT's arguments"
            )
        strides = {f"p{level}": 1 << level for level in (2, 3, 4, 5)}
        self.levels = nn.ModuleDict(
            {
                name: _level(shape.channels, shape.stride, stride, out_channels)
                for name, stride in strides.items()
            }
        )
        self.top_block = LastLevelMaxPool()
        self._out_feature_strides = {**strides, "p6": 64}
        self._out_features = list(self._out_feature_strides)
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    @property
    def size_divisibility(self) -> int:
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by level, (N, out_channels, H / stride, W / stride), of images (N, C, H, W)."""
        values = self.bottom_up(images)[self._in_feature]
        outputs = {name: level(values) for name, level in self.levels.items()}
        outputs["p6"] = self.top_block(outputs["p5"])[0]
        return outputs


def _level(channels: int, of: int, stride: int, out_channels: int) -> nn.Sequential:
    """From a map of stride `of` to one of `stride`."""
    layers: list[nn.Module] = []
    if of < stride:
        layers.append(nn.MaxPool2d(stride // of))
    while of > stride:
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        of, channels = of // 2, channels // 2
        if of > stride:
            layers += [ChannelNorm(channels), nn.GELU()]
    for size, inner in ((1, channels), (3, out_channels)):
        convolution = nn.Conv2d(inner, out_channels, size, padding=size // 2, bias=False)
        layers += [convolution, ChannelNorm(out_channels)]
    return nn.Sequential(*layers)
