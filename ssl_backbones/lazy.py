"""Detectron2's lazy calls, looked at without making them."""

from __future__ import annotations

from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig

STAND_INS = {
    "ssl_backbones.fast.mapping.mapper.FastDatasetMapper": (
        "detectron2.data.dataset_mapper.DatasetMapper"
    ),
    "ssl_backbones.fast.annotations.packed_dataset.packed_detection_dataset": (
        "detectron2.data.build.get_detection_dataset_dicts"
    ),
    # Of a model on a GPU it may paste a pixel otherwise whose value is within 1e-6 of the threshold.
    "ssl_backbones.fast.evaluation.coco_evaluator.FastCOCOEvaluator": (
        "detectron2.evaluation.coco_evaluation.COCOEvaluator"
    ),
    # It differs in rounding, as another device does.
    "ssl_backbones.fast.pooling.roi_pooler.FastROIPooler": "detectron2.modeling.poolers.ROIPooler",
}
"""Parts with the same result as Detectron2's, by their names: with them a config means the same."""


def stock_name(target: Any) -> str:
    """The dotted name of what a lazy call calls, where it is defined; Detectron2's if ours stands in."""
    try:
        target = locate(target) if isinstance(target, str) else target
        name = f"{target.__module__}.{target.__qualname__}"
    except Exception:  # what a name imports may raise anything
        name = str(target)
    return STAND_INS.get(name, name)


def target_of(call: DictConfig) -> Any:
    """What a lazy call calls; configs read from YAML have its name instead."""
    target = call.get("_target_")
    return locate(target) if isinstance(target, str) else target
