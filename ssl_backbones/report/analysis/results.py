"""COCO results as they must be before COCO's own code sees them: it has no errors of its own."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from ...errors import InputError
from ...fast.evaluation.detections import MOST_PIXELS, Strings, first_damaged


def check_results(truth: COCO, results: Sequence[Mapping[str, Any]], task: str) -> None:
    """Refuse what could not be compared with `truth`.

    Raises:
        InputError: a detection lacks something, or lies in an image that is not annotated; the annotations
            are not COCO's, their ids are not of one kind, or an object lacks its box, its size or its mask;
            a mask's runs do not fill its image.
    """
    needed = {"bbox": "bbox", "segm": "segmentation"}[task]
    _check_truth(truth, needed)
    if not isinstance(results, Sequence):
        raise InputError("the results are no list of detections")
    for place, found in enumerate(results):
        problem = _problem(truth, found, needed)
        if problem:
            raise InputError(f"detection {place + 1} of {len(results)} {problem}")
    if task == "segm":
        masks = [found["segmentation"] for found in results]
        damaged = first_damaged(Strings.pack(masks))
        if damaged is not None:
            raise InputError(f"detection {damaged + 1} of {len(results)} {_damage(masks[damaged])}")


def _check_truth(truth: COCO, needed: str) -> None:
    for part in ("images", "annotations", "categories"):
        if part not in truth.dataset:
            raise InputError(f"the annotations are not COCO's: they have no {part}")
    # NumPy, with which COCO's code sorts the ids, would make texts of numbers that lie among texts.
    if not any(all(isinstance(image, kind) for image in truth.imgs) for kind in (Real, str)):
        raise InputError("the ids of the annotated images are neither all numbers nor all texts")
    objects = truth.dataset["annotations"]
    for found in objects:
        for name in ("image_id", "category_id", "area", "bbox", needed):
            if name not in found:
                raise InputError(f"object {found.get('id')} of the annotations has no {name}")
    for kind in (*truth.cats, *(found["category_id"] for found in objects)):
        if not isinstance(kind, Integral):
            raise InputError(f"the category id {kind!r} of the annotations is no integer")
    if needed == "segmentation":
        _check_masks(objects)


def _check_masks(objects: Sequence[Mapping[str, Any]]) -> None:
    compressed = []
    for found in objects:
        mask = found["segmentation"]
        if _is_rle(mask):
            compressed.append(found)
        elif _is_uncompressed_rle(mask):
            if sum(mask["counts"]) != math.prod(mask["size"]):
                raise _damaged_object(found)
        elif not _are_polygons(mask):
            raise InputError(
                f"object {found.get('id')} of the annotations has a mask that is neither polygons nor an RLE"
            )
    damaged = first_damaged(Strings.pack([found["segmentation"] for found in compressed]))
    if damaged is not None:
        raise _damaged_object(compressed[damaged])


def _damaged_object(found: Mapping[str, Any]) -> InputError:
    return InputError(
        f"object {found.get('id')} of the annotations {_damage(found['segmentation'])}"
    )


def _damage(mask: Mapping[str, Any]) -> str:
    height, width = mask["size"]
    return f"has a mask whose runs do not fill its {height} x {width} pixels"


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
    """Whether it is a compressed one, as far as can be seen without reading its runs."""
    if not isinstance(mask, Mapping):
        return False
    counts = mask.get("counts")
    return (
        isinstance(counts, (str, bytes)) and bool(counts) and counts.isascii() and _has_size(mask)
    )


def _is_uncompressed_rle(mask: Any) -> bool:
    if not isinstance(mask, Mapping):
        return False
    counts = mask.get("counts")
    return (
        isinstance(counts, list)
        and all(isinstance(run, Integral) and run >= 0 for run in counts)
        and _has_size(mask)
    )


def _are_polygons(mask: Any) -> bool:
    """Whether pycocotools takes it for some, which depends on the first one's length."""
    if not (isinstance(mask, list) and mask and all(isinstance(part, list) for part in mask)):
        return False
    try:
        return len(mask[0]) > 4 and all(
            np.isfinite(np.asarray(part, np.float64)).all() for part in mask
        )
    except (TypeError, ValueError):
        return False


def _has_size(mask: Mapping[str, Any]) -> bool:
    size = mask.get("size")
    # pycocotools divides by the height.
    return (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
        and math.prod(size) <= MOST_PIXELS
    )


def _is_number(value: Any) -> bool:
    # An integer of JSON may be too large for a float.
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
