"""One constructor for every ResNet that the converter writes, over Detectron2's own parts."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock

from .architectures import BLOCKS


def build_resnet(
    *,
    depth: int = 50,
    stem_channels: int = 64,
    res2_channels: int = 256,
    bottleneck_channels: int = 64,
    groups: int = 1,
    in_channels: int = 3,
    norm: str = "BN",
    stride_in_1x1: bool = False,
    freeze_at: int = 0,
    out_features: Sequence[str] = ("res2", "res3", "res4", "res5"),
) -> ResNet:
    """A ResNet, wide ResNet or ResNeXt; `make_default_stages` fixes the widths and cannot build it.

    The first six arguments stand in a converted file's provenance under "architecture".

    Args:
        depth: 18, 34, 50, 101 or 152. The first two have blocks of two 3x3 convolutions, for which
            `bottleneck_channels`, `groups` and `stride_in_1x1` mean nothing, and usually
            `res2_channels=64`.
        stem_channels: output of the 7x7 convolution.
        res2_channels: output of res2; each later stage has twice those before it.
        bottleneck_channels: of the 3x3 convolutions of res2; doubled likewise.
        groups: of each 3x3 convolution.
        in_channels: of the images. Detectron2 and the recipes read images of three.

    Example, in a config for Detectron2's FPN, which takes its inputs from `out_features`:
        >>> model.backbone.bottom_up = L(build_resnet)(
        ...     bottleneck_channels=128, groups=32, norm="SyncBN", freeze_at=1,
        ...     out_features=["res2", "res3", "res4", "res5"],
        ... )
    """
    stages = []
    channels = stem_channels
    for stage, blocks in enumerate(BLOCKS[depth]):
        out_channels = res2_channels << stage
        options = {"block_class": BasicBlock}
        if depth >= 50:
            options = {
                "block_class": BottleneckBlock,
                "bottleneck_channels": bottleneck_channels << stage,
                "num_groups": groups,
                "stride_in_1x1": stride_in_1x1,
            }
        first_stride = 1 if stage == 0 else 2
        stages.append(
            ResNet.make_stage(
                num_blocks=blocks,
                stride_per_block=[first_stride] + [1] * (blocks - 1),
                in_channels=channels,
                out_channels=out_channels,
                norm=norm,
                **options,
            )
        )
        channels = out_channels
    stem = BasicStem(in_channels=in_channels, out_channels=stem_channels, norm=norm)
    return ResNet(stem, stages, out_features=list(out_features), freeze_at=freeze_at)
