"""A digit's key points, under the names that COCO gives a person's.

A nose is where the strokes begin, at the top and from the left. Below it, at eight heights from top to
bottom, the outermost strokes are a person's eyes, ears, shoulders, elbows, wrists, hips, knees and ankles:
who faces us has the right one on the left, so that a mirrored picture has them as Detectron2's flip expects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..digits import CELLS

PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = ("nose", *(f"{side}_{part}" for part in PAIRS for side in ("left", "right")))
"""COCO's order, which `detectron2.data.datasets.builtin_meta` has as well."""

SKELETON = [
    [16, 14],
    [14, 12],
    [17, 15],
    [15, 13],
    [12, 13],
    [6, 12],
    [7, 13],
    [6, 7],
    [6, 8],
    [7, 9],
    [8, 10],
    [9, 11],
    [2, 3],
    [1, 2],
    [1, 3],
    [2, 4],
    [3, 5],
    [4, 6],
    [5, 7],
]
"""The lines that COCO draws between key points, counted from 1."""

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2


def keypoints(mask: np.ndarray, others: Sequence[np.ndarray]) -> list[int]:
    """COCO's x, y and visibility of each of `NAMES`, in whole pixels as COCO's annotators gave them.

    A point is hidden where another digit touches the strokes, which may go on beneath it, and not labelled
    where there is no stroke at its height.

    Args:
        mask: the digit's visible strokes, boolean (height * CELLS, width * CELLS).
        others: those of the other digits.
    """
    rows = np.flatnonzero(mask.any(1))
    top, bottom = int(rows[0]), int(rows[-1])
    covers = np.logical_or.reduce([np.zeros_like(mask), *others])
    values = _point(covers, top, int(np.flatnonzero(mask[top])[0]), 0)
    for number in range(len(PAIRS)):
        row = top + (bottom - top) * (2 * number + 1) // (2 * len(PAIRS))
        found = np.flatnonzero(mask[row]).tolist()
        if found:
            values += [*_point(covers, row, found[-1], 1), *_point(covers, row, found[0], -1)]
        else:
            values += [0, 0, NOT_LABELLED] * 2
    return values


def _point(covers: np.ndarray, row: int, column: int, side: int) -> list[int]:
    """`side` is the direction away from the strokes along the row; 0 is upwards."""
    beyond = (row, column + side) if side else (row - 1, column)
    inside = all(0 <= place < extent for place, extent in zip(beyond, covers.shape, strict=True))
    hidden = inside and covers[beyond]
    return [column // CELLS, row // CELLS, HIDDEN if hidden else VISIBLE]
