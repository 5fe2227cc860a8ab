"""The heads of the MoCo paper's C4 detectors: Detectron2's, and a norm after res5."""

from __future__ import annotations

from typing import Any

from detectron2.config import configurable
from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """`Res5ROIHeads` whose res5 ends in a norm of its own, `res5.norm`.

    Self-supervised res5 features have another scale than supervised ones, which nothing after them corrects.
    The norm is new: no pretraining has it.

    Source: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning" (arXiv:1911.05722),
    appendix A.1; `Res5ROIHeadsExtraNorm` of MoCo's detection/train_net.py.

    Args:
        norm: as `detectron2.layers.get_norm` takes it; from a yaml config it is `MODEL.RESNETS.NORM`.
        options: those of `Res5ROIHeads`.

    Example, in a lazy config with Detectron2's `common/models/mask_rcnn_c4.py`:
        >>> model.roi_heads._target_ = Res5ROIHeadsExtraNorm
        >>> model.roi_heads.norm = "naiveSyncBN"

    In a yaml config, after importing this module: `MODEL.ROI_HEADS.NAME: "Res5ROIHeadsExtraNorm"`.
    """

    @configurable
    def __init__(self, *, norm: str, **options: Any):
        super().__init__(**options)
        self.res5.add_module("norm", get_norm(norm, self.res5[-1].out_channels))

    @classmethod
    def from_config(cls, cfg, input_shape) -> dict[str, Any]:
        return {**super().from_config(cfg, input_shape), "norm": cfg.MODEL.RESNETS.NORM}
