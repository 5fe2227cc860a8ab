"""ConvNeXt for Detectron2's FPN: timm's stem and stages, with the outputs that an FPN takes."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn

from ..errors import InputError

STAGES = ("res2", "res3", "res4", "res5")


class ConvNeXt(Backbone):
    """What a pretraining holds lies in `convnext`; the norms of the outputs are the detector's own and new.

    Args:
        network: of timm's, whose `stem` and `stages` are taken.
        freeze_at: 1 freezes the stem, 2 the first stage as well, and so on to 5, as Detectron2's ResNets.
        output_norm: a layer norm on each output, as the published detector has them (MMDetection's
            mmdet/models/backbones through ConvNeXt's object_detection/).
        checkpointing: stages keep their blocks' inputs alone and compute the rest again for the gradient,
            which takes less memory and gives the same.

    Attributes:
        num_layers: of `layer_id`.
    """

    def __init__(
        self,
        network: nn.Module,
        dims: Sequence[int],
        out_features: Sequence[str],
        freeze_at: int,
        output_norm: bool,
        checkpointing: bool = False,
    ):
        super().__init__()
        self.convnext = nn.ModuleDict({"stem": network.stem, "stages": network.stages})
        self._out_features = list(out_features)
        self._out_feature_channels = dict(zip(STAGES, dims, strict=True))
        self._out_feature_strides = {stage: 4 << number for number, stage in enumerate(STAGES)}
        self.output_norms = nn.ModuleDict(
            {
                stage: ChannelNorm(self._out_feature_channels[stage])
                for stage in self._out_features
                if output_norm
            }
        )
        for stage in network.stages:
            stage.grad_checkpointing = checkpointing
        # The stem, two stages, every three blocks of the third, the fourth; and what has the whole rate.
        self.num_layers = 5 + -(-len(network.stages[2].blocks) // 3)
        self.freeze(freeze_at)

    def layer_id(self, name: str) -> int:
        """The layer of one of the parameters: 0 is the stem, `num_layers` - 1 the output norms.

        Source: `get_num_layer_layer_wise` in ConvNeXt's object_detection/mmcv_custom/
        layer_decay_optimizer_constructor.py, whose 6 layers of a ConvNeXt-T and 12 of the larger ones leave
        out the stem and all that is new.
        """
        part, *rest = name.removeprefix("convnext.").split(".")
        if part != "stages":
            return 0 if part == "stem" else self.num_layers - 1
        stage, kind, block = int(rest[0]), rest[1], int(rest[2])
        if stage == 3:
            return self.num_layers - 2
        return stage + 1 + (block // 3 if stage == 2 and kind == "blocks" else 0)

    @property
    def size_divisibility(self) -> int:
        return 32

    def freeze(self, freeze_at: int) -> None:
        """The first so many of stem and stages; their norms have no statistics that could move."""
        for part in (self.convnext["stem"], *self.convnext["stages"])[:freeze_at]:
            part.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features by stage, (N, C, H / stride, W / stride), of images (N, C, H, W)."""
        values, outputs = self.convnext["stem"](images), {}
        for name, stage in zip(STAGES, self.convnext["stages"], strict=True):
            values = stage(values)
            if name in self._out_features:
                norm = self.output_norms[name] if name in self.output_norms else nn.Identity()
                outputs[name] = norm(values)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(
                channels=self._out_feature_channels[name], stride=self._out_feature_strides[name]
            )
            for name in self._out_features
        }


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, values: Tensor) -> Tensor:
        # Of movedim an ONNX graph would be wrong.
        return super().forward(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def channel_norm() -> type[ChannelNorm]:
    """The norm of a head in a config: main's "LN", for which Detectron2 v0.6 has no name."""
    return ChannelNorm


def build_convnext(
    *,
    depths: Sequence[int] = (3, 3, 9, 3),
    dims: Sequence[int] = (96, 192, 384, 768),
    grn: bool = False,
    layer_scale: bool = True,
    in_channels: int = 3,
    layer_scale_init: float = 1e-6,
    drop_path: float = 0.0,
    freeze_at: int = 0,
    output_norm: bool = True,
    checkpointing: bool = False,
    out_features: Sequence[str] = STAGES,
) -> ConvNeXt:
    """A ConvNeXt of either version; the first five arguments stand in a converted file's provenance.

    Args:
        grn: version 2's global response normalisation.
        layer_scale: version 1's scale at each block's end.
        layer_scale_init: what it begins with where no weights are loaded.
        drop_path: stochastic depth of the last block; it grows from 0 with the blocks.

    Raises:
        InputError: timm is not installed.
    """
    try:
        from timm.models.convnext import ConvNeXt as TimmConvNeXt
    except ImportError as error:
        raise InputError(
            f"a ConvNeXt needs timm ({error}): pip install 'ssl-backbones[vit]' brings it"
        ) from error
    network = TimmConvNeXt(
        in_chans=in_channels,
        num_classes=0,
        depths=tuple(depths),
        dims=tuple(dims),
        use_grn=grn,
        ls_init_value=layer_scale_init if layer_scale else None,
        drop_path_rate=drop_path,
    )
    return ConvNeXt(network, dims, out_features, freeze_at, output_norm, checkpointing)
