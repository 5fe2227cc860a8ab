"""Test-time augmentation by Detectron2's own classes, for a model that was built from any LazyConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from torch import nn

from ..errors import InputError


def with_augmentation(model: nn.Module, tta: Mapping[str, Any]) -> GeneralizedRCNNWithTTA:
    """`model` on every scale, plain and flipped: boxes merged by NMS, masks averaged.

    As in Detectron2's own tools, the scales start from the image that the test mapper hands over.

    Args:
        model: a Mask R-CNN, Faster R-CNN or Cascade R-CNN.
        tta: `min_sizes` (shorter side in pixels), `max_size` (longer side at most), `flip`.

    Raises:
        InputError: Detectron2 has no augmentation for such a model.
    """
    reason = _unsupported(model)
    if reason:
        raise InputError(
            f"test-time augmentation is for boxes and masks of GeneralizedRCNN, and {reason}: set "
            "train.tta.enabled=False"
        )
    augmented = GeneralizedRCNNWithTTA(_node(model, tta), model)
    return augmented.train(model.training)


def _unsupported(model: nn.Module) -> str:
    if not isinstance(model, GeneralizedRCNN):
        return f"this model is a {type(model).__name__}"
    if model.proposal_generator is None:
        return "this model takes proposals from a file"
    return "this one finds keypoints" if getattr(model.roi_heads, "keypoint_on", False) else ""


def _node(model: GeneralizedRCNN, tta: Mapping[str, Any]) -> CfgNode:
    """The part of Detectron2's yaml config that its classes for augmentation read."""
    heads = model.roi_heads
    # A cascade has a predictor a stage; the last one decides.
    predictor = heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = bool(getattr(heads, "mask_on", False))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = int(heads.num_classes)
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = float(predictor.test_nms_thresh)
    cfg.TEST.DETECTIONS_PER_IMAGE = int(predictor.test_topk_per_image)
    cfg.TEST.AUG.MIN_SIZES = tuple(tta["min_sizes"])
    cfg.TEST.AUG.MAX_SIZE = int(tta["max_size"])
    cfg.TEST.AUG.FLIP = bool(tta["flip"])
    return cfg
