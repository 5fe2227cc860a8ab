"""COCO results as they must be before COCO's own code sees them: it has no errors of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools.coco import COCO

from ...errors import InputError


def check_results(truth: COCO, results: Sequence[Mapping[str, Any]], task: str) -> None:
    """Refuse what could not be compared with `truth`.

    Raises:
        InputError: a detection lacks something, or lies in an image that is not annotated; the annotations
            are not COCO's, or an object lacks its box, its size or its mask.
    """
    for part in ("images", "annotations", "categories"):
        if part not in truth.dataset:
            raise InputError(f"the annotations are not COCO's: they have no {part}")
    needed = {"bbox": "bbox", "segm": "segmentation"}[task]
    if not isinstance(results, Sequence):
        raise InputError("the results are no list of detections")
    for place, found in enumerate(results):
        problem = _problem(truth, found, needed)
        if problem:
            raise InputError(f"detection {place + 1} of {len(results)} {problem}")
    for found in truth.dataset["annotations"]:
        for name in ("image_id", "category_id", "area", "bbox", needed):
            if name not in found:
                raise InputError(f"object {found.get('id')} of the annotations has no {name}")


def _problem(truth: COCO, found: Any, needed: str) -> str:
    if not isinstance(found, Mapping):
        return "is none"
    for name in ("image_id", "category_id", "score", needed):
        if name not in found:
            return f"has no {name}"
    try:
        is_known = found["image_id"] in truth.imgs
    except TypeError:
        is_known = False
    if not is_known:
        return f"lies in the image {found['image_id']!r}, which is not annotated"
    if not _is_number(found["score"]) or not isinstance(found["category_id"], int):
        return "has a score or a category that is no number"
    if needed == "bbox":
        box = found["bbox"]
        is_box = isinstance(box, Sequence) and len(box) == 4 and all(map(_is_number, box))
        return "" if is_box else "has a box that is not four numbers"
    return "" if _is_rle(found["segmentation"]) else "has a mask that is no compressed RLE"


def _is_rle(mask: Any) -> bool:
    if not (isinstance(mask, Mapping) and isinstance(mask.get("counts"), str)):
        return False
    size = mask.get("size")
    # pycocotools divides by the height.
    return (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
