"""Masks: other forms brought to COCO's two, polygons x, y, x, y, ... and run lengths, and what these hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pycocotools.mask

from ...fast.annotations.coco_json import compressed
from .fields import ABSENT, Change, UnsureError, are_finite, number_of, whole_number_of

# Five bits a character from "0" on, the sixth saying that more follow. What ends in the midst of a number
# would have pycocotools read on past the text.
_COMPRESSED = re.compile(r"(?:[P-o]{0,6}[0-O])*")
_MOST_PIXELS = 2**32 - 1  # pycocotools counts pixels in uint32
_FARTHEST = 2**18
"""Of a coordinate, in pixels; several times what an image may have.

pycocotools follows an outline pixel by pixel, in memory that grows with it, and past the 32 bits of its
numbers it ends the process.
"""
_POLYGONS = "is neither polygons nor run lengths"


def are_masks(masks: list[Any]) -> bool:
    """Whether all are in COCO's form, or not there, in little time where they are."""
    kinds = set(map(type, masks))
    if not kinds <= {list, dict, type(ABSENT)}:
        return False
    parts = list(chain.from_iterable([mask for mask in masks if type(mask) is list]))
    if not set(map(type, parts)) <= {list}:
        return False
    lengths = set(map(len, parts))
    if any(length < 6 or length % 2 for length in lengths):
        return False
    numbers = list(chain.from_iterable(parts))
    if not are_finite(numbers):
        return False
    if max(numbers, default=0) > _FARTHEST or min(numbers, default=0) < -_FARTHEST:
        return False
    return dict not in kinds or all(_is_run_lengths(mask) for mask in masks if type(mask) is dict)


def read_mask(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
    """A mask in COCO's form; as `fields.Read`."""
    if value is ABSENT:
        return ABSENT, None
    if value is None:
        return ABSENT, Change("is null", "read as no mask")
    if type(value) is dict:
        return _read_run_lengths(value)
    if type(value) is list:
        return _read_polygons(value)
    raise UnsureError(_POLYGONS)


def _read_polygons(mask: list[Any]) -> tuple[list[Any], Change | None]:
    states = []
    if mask and all(map(_is_scalar, mask)):
        parts = [mask]
        states.append("is one flat list")
    elif mask and all(map(_is_point, mask)):
        parts = [_flat(mask)]
        states.append("is a list of points")
    else:
        are_points = [type(part) is list and part and all(map(_is_point, part)) for part in mask]
        parts = [_flat(part) if flat else part for part, flat in zip(mask, are_points, strict=True)]
        if any(are_points):
            states.append("has polygons that are lists of points")
    read = []
    for part in parts:
        if type(part) is not list:
            raise UnsureError(_POLYGONS)
        numbers = [number_of(value) for value in part]
        if None in numbers:
            raise UnsureError("has a polygon with something in it that is not a finite number")
        if max(map(abs, numbers), default=0) > _FARTHEST:
            raise UnsureError(
                f"has a polygon that reaches farther than {_FARTHEST:,} pixels",
                "give it in pixels of the image",
            )
        if len(numbers) < 6 or len(numbers) % 2:
            raise UnsureError(
                "has a polygon that is not three or more points x, y",
                "correct it, or set the segmentation to null where the object has a box alone",
            )
        read.append(numbers)
    if any(type(value) is str for value in chain.from_iterable(parts)):
        states.append("has numbers that are text")
    if not states:
        return mask, None
    return read, Change(" and ".join(states), "read as polygons x, y, x, y, ...")


def _is_scalar(value: Any) -> bool:
    return type(value) in (int, float, str)


def _is_point(value: Any) -> bool:
    if type(value) is dict:
        return value.keys() == {"x", "y"} and all(map(_is_scalar, value.values()))
    return type(value) is list and len(value) == 2 and all(map(_is_scalar, value))


def _flat(points: list[Any]) -> list[Any]:
    pairs = ([one["x"], one["y"]] if type(one) is dict else one for one in points)
    return list(chain.from_iterable(pairs))


def _is_run_lengths(mask: dict[str, Any]) -> bool:
    size, counts = mask.get("size"), mask.get("counts")
    return (
        type(size) is list
        and len(size) == 2
        and all(type(side) is int and 0 <= side < 2**31 for side in size)
        and (
            _COMPRESSED.fullmatch(counts) is not None
            if type(counts) is str
            else type(counts) is list
            and set(map(type, counts)) <= {int}
            and min(counts, default=0) >= 0
        )
    )


def _read_run_lengths(mask: dict[str, Any]) -> tuple[dict[str, Any], Change | None]:
    if _is_run_lengths(mask):
        return mask, None
    read = dict(mask)
    for key in ("size", "counts"):
        values = mask.get(key)
        if type(values) is list and set(map(type, values)) <= {int, float}:
            read[key] = [whole_number_of(value) for value in values]
    if not _is_run_lengths(read):
        raise UnsureError("is not run lengths: a size of height and width, and counts of pixels")
    return read, Change("has run lengths with decimal points", "read as whole numbers")


def area_of(mask: Any, size: tuple[int, int] | None) -> int:
    """Pixels of a mask in COCO's form, as pycocotools counts them.

    Args:
        size: height and width of the image, in pixels; None where it is not in the file.

    Raises:
        UnsureError: it is not known, for the reason given.
    """
    if type(mask) is dict:
        return sum(_runs_of(mask)[1::2])
    coordinates = list(chain.from_iterable(mask))
    # Of an image that is not in the file: what the polygons are on.
    height, width = size or (max(1, int(min(max(coordinates), 2**15)) + 1),) * 2
    # It follows the outline pixel by pixel, also where that is far from the image.
    longest = 2 * max(height, width)
    if height * width > _MOST_PIXELS or not all(-longest <= x <= longest for x in coordinates):
        raise UnsureError(
            "cannot be counted, since the mask is far outside its image, or that too large",
            "correct the mask, or write the area",
        )
    parts = pycocotools.mask.frPyObjects(mask, height, width)
    return int(pycocotools.mask.area(pycocotools.mask.merge(parts)))


def box_of(mask: Any) -> list[int | float]:
    """The box x, y, width, height around a mask in COCO's form.

    Raises:
        UnsureError: it is not known, for the reason given.
    """
    if type(mask) is dict:
        runs = _runs_of(mask)
        if not sum(runs[1::2]):
            return [0.0, 0.0, 0.0, 0.0]
        packed = pycocotools.mask.frPyObjects({**mask, "counts": runs}, *mask["size"])
        return pycocotools.mask.toBbox(packed).tolist()
    xs = list(chain.from_iterable(part[::2] for part in mask))
    ys = list(chain.from_iterable(part[1::2] for part in mask))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def mask_boxes(masks: Sequence[Any]) -> np.ndarray:
    """The boxes around masks in COCO's format.

    Args:
        masks: lists of polygons, run-length dicts without a fault (`run_length_fault`), or None.

    Returns:
        (N, 4), left, top, right and bottom in pixels; NaN where there is no mask.
    """
    boxes = np.full((len(masks), 4), np.nan)
    # Detectron2 leaves out the same parts.
    parts = [
        [part for part in mask if len(part) >= 6 and len(part) % 2 == 0]
        if isinstance(mask, list)
        else []
        for mask in masks
    ]
    outlined = [index for index, found in enumerate(parts) if found]
    if outlined:
        points = [sum(map(len, parts[index])) // 2 for index in outlined]
        starts = np.cumsum([0, *points[:-1]])
        numbers = np.fromiter(chain.from_iterable(chain.from_iterable(parts)), float)
        for axis in (0, 1):
            boxes[outlined, axis] = np.minimum.reduceat(numbers[axis::2], starts)
            boxes[outlined, axis + 2] = np.maximum.reduceat(numbers[axis::2], starts)
    of_runs = [index for index, mask in enumerate(masks) if isinstance(mask, dict)]
    if of_runs:
        found = pycocotools.mask.toBbox([compressed(masks[index]) for index in of_runs])
        boxes[of_runs, :2], boxes[of_runs, 2:] = found[:, :2], found[:, :2] + found[:, 2:]
    return boxes


def run_length_fault(mask: Mapping[str, Any], height: int, width: int) -> str | None:
    """Why a run-length mask does not fit its image of this size; None of one that does.

    One of another size fails in Detectron2's mapper; over one whose runs do not fill the image, pycocotools
    may loop for ever.
    """
    size, counts = mask.get("size"), mask.get("counts")
    if size != [height, width]:
        return f"of height and width {size}, its image {[height, width]}"
    if not isinstance(counts, list):
        if not (counts and isinstance(counts, str) and _COMPRESSED.fullmatch(counts)):
            return "whose counts are not COCO's compressed run lengths"
        counts = uncompressed(counts)
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        return f"whose runs do not add up to the {height * width} pixels of its image"
    return None


def _runs_of(mask: dict[str, Any]) -> list[int]:
    """Lengths of the runs, of background first.

    Raises:
        UnsureError: they do not fill the image.
    """
    counts = mask["counts"]
    runs = uncompressed(counts) if type(counts) is str else counts
    height, width = mask["size"]
    if min(runs, default=0) < 0 or sum(runs) != height * width or sum(runs) > _MOST_PIXELS:
        raise UnsureError(
            "does not follow from the mask, whose runs do not fill its image", "correct the mask"
        )
    return runs


def uncompressed(counts: str) -> list[int]:
    """Lengths of runs from COCO's compressed form, in a text that matches it.

    Source: `rleFrString` of pycocotools' maskApi.c: from the third on, a run is given by its difference from
    the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
