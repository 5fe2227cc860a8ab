"""How well each image came out, for the choice of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .error_types import TYPES, find_scene_errors
from .findings import ERROR_TYPES, ImageOutcome
from .scenes import Scene


def image_outcome(scene: Scene, image_id: Any, class_names: Sequence[str]) -> ImageOutcome:
    """What the detections of `scene` come to: F1 at IoU 0.5, and the errors that a picture of it shows.

    Detections are matched with objects of their class, best score first. What lies unmatched in a crowd of
    its class does not count. The mean IoU is that of the matches, 0 without any.

    Args:
        scene: with the detections that are shown.
    """
    errors = find_scene_errors(scene)
    is_true = errors.matches >= 0
    true = int(is_true.sum())
    counted = is_true | ~scene.in_crowd
    shown = int(counted.sum()) + len(scene.objects)
    overlaps = scene.ious[is_true, errors.matches[is_true]]
    kinds = np.union1d(scene.kinds, scene.object_kinds)
    types = {TYPES[kind] for kind in errors.types[counted & ~is_true].tolist()}
    types |= {"Miss"} if errors.missed.any() else set()
    return ImageOutcome(
        image_id=image_id,
        score=2 * true / shown if shown else None,
        mean_iou=float(overlaps.mean()) if true else 0.0,
        classes=tuple(class_names[kind] for kind in kinds.tolist()),
        errors=tuple(name for name in ERROR_TYPES if name in types),
    )
