"""Predicted masks of regions of interest as COCO's run-length strings, without pasting them into images.

Detectron2 pastes each 28 x 28 mask into an image of its own, which COCO's tools then search for runs: work in
proportion to the pixels of the images. Here it is in proportion to the columns of the boxes.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch.nn import functional as F

from ..acceleration import numba_or_none

THRESHOLD = np.float32(0.5)
"""A pixel belongs to the object from this value on, as in Detectron2's `detector_postprocess`."""

# Interpolated in any order of operations, values differ by less than this from torch's. Pixels that near to
# the threshold are computed once more, in torch's own order.
_NEAR = np.float32(1e-5)
_ONE, _HALF = np.float32(1), np.float32(0.5)


def encode_roi_masks(
    masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int
) -> list[str] | None:
    """The `counts` of COCO's compressed RLE of each mask, pasted into an image of `height` x `width`.

    The strings are those of `paste_masks_in_image` on the CPU followed by `pycocotools.mask.encode`, to the
    last pixel. (On a GPU, torch interpolates with other roundings: there a pixel may differ whose value is
    within 1e-6 of the threshold.)

    Args:
        masks: N x M x M probabilities, float32.
        boxes: N x 4 corners in pixels of the image, x0 < x1 and y0 < y1, float32.

    Returns:
        None where the result could differ: tensors of another type or shape, or a processor on which torch
        interpolates in a way that this module does not know.
    """
    fused = _adds_while_multiplying()
    are_usual = masks.dtype == boxes.dtype == torch.float32 and masks.shape[1] == masks.shape[2]
    if fused is None or not are_usual:
        return None
    arrays = masks.detach().cpu().contiguous().numpy(), boxes.detach().cpu().contiguous().numpy()
    # NaN if there is one among them: then nothing counts as far from the threshold.
    near = _NEAR * np.abs(arrays[0]).max(initial=_ONE)
    if numba_or_none("Encoding masks"):
        from .rle_kernels import encode_masks

        characters, ends = encode_masks(*arrays, height, width, near, fused)
    else:
        characters, ends = _encode_with_numpy(*arrays, height, width, near, fused)
    text = characters.tobytes().decode("ascii")
    starts = [0, *ends.tolist()]
    return [text[start:end] for start, end in itertools.pairwise(starts)]


def _encode_with_numpy(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int, near: np.float32, fused: bool
) -> tuple[np.ndarray, np.ndarray]:
    counts = [
        _runs(*_paste(mask, box, height, width, near, fused), height, width)
        for mask, box in zip(masks, boxes, strict=True)
    ]
    return _strings(counts)


def _paste(
    mask: np.ndarray, box: np.ndarray, height: int, width: int, near: np.float32, fused: bool
) -> tuple[np.ndarray, int, int]:
    """Whether pixels lie in the object, columns first; and the first column and row of these pixels."""
    x0, y0, x1, y1 = box
    # The same pixels as in Detectron2, which leaves those further from the box empty.
    left, top = (max(int(np.floor(value)) - 1, 0) for value in (x0, y0))
    right, bottom = min(int(np.ceil(x1)) + 1, width), min(int(np.ceil(y1)) + 1, height)
    size = len(mask)
    column, across = _positions(left, right, x0, x1, size, fused)
    row, down = _positions(top, bottom, y0, y1, size, fused)
    with np.errstate(invalid="ignore"):
        values = _between(_between(np.pad(mask.T, 2), column, across).T, row, down).T
        doubtful = ~(np.abs(values - THRESHOLD) > near)
    inside = values >= THRESHOLD
    x, y = np.nonzero(doubtful)
    exact = interpolate(mask, column[x], across[x], row[y], down[y], fused)
    inside[x, y] = exact >= THRESHOLD
    return inside, left, top


def _positions(
    start: int, stop: int, low: np.float32, high: np.float32, size: int, fused: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels `start`..`stop` of an axis lie in a mask: the cell before, and the way to the next."""
    pixels = np.arange(start, stop, dtype=np.float32) + _HALF
    # In the order of Detectron2's `_do_paste_mask`: the box reaches from -1 to 1.
    return cells((pixels - low) / (high - low) * np.float32(2) - _ONE, size, fused)


def cells(positions: np.ndarray, size: int, fused: bool) -> tuple[np.ndarray, np.ndarray]:
    """As torch's `grid_sample`: the cell before each position in -1..1, and the way to the next."""
    half = np.float32(size / 2)
    scaled = (positions + _ONE).astype(np.float64 if fused else np.float32) * half
    at = (scaled - _HALF).astype(np.float32)
    before = np.floor(at)
    # Whatever lies outside has no neighbour in the mask.
    return np.clip(before, -2, size).astype(np.intp), at - before


def interpolate(
    mask: np.ndarray,
    column: np.ndarray,
    across: np.ndarray,
    row: np.ndarray,
    down: np.ndarray,
    fused: bool,
) -> np.ndarray:
    """As torch's `grid_sample`, zeros around the mask: the values, rounded as torch rounds them."""
    padded = np.pad(mask, 2)
    x, y = column + 2, row + 2
    left, up = _ONE - across, _ONE - down
    total = padded[y, x] * (left * up)
    terms = (
        (padded[y, np.minimum(x + 1, len(padded) - 1)], across * up),
        (padded[np.minimum(y + 1, len(padded) - 1), x], left * down),
        (
            padded[np.minimum(y + 1, len(padded) - 1), np.minimum(x + 1, len(padded) - 1)],
            across * down,
        ),
    )
    for value, weight in terms:
        # Products of float32 are exact in float64: one rounding, as in a fused instruction.
        precise = value.astype(np.float64 if fused else np.float32)
        total = (total + precise * weight).astype(np.float32)
    return total


def _between(values: np.ndarray, cell: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Linear interpolation between the rows of values that have two rows of zeros around them."""
    way = way[:, None]
    return values[cell + 2] * (_ONE - way) + values[cell + 3] * way


def _runs(inside: np.ndarray, left: int, top: int, height: int, width: int) -> np.ndarray:
    """Lengths of the runs of an image, column by column and the first of zeros, from a part of its pixels."""
    edges = np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    column, row = np.nonzero(edges)
    # Runs begin and end by turns. One that ends where the next begins goes on from column to column.
    turns = (column + left) * height + row + top
    kept = np.ones(len(turns), bool)
    goes_on = np.flatnonzero(turns[1:] == turns[:-1])
    kept[goes_on] = kept[goes_on + 1] = False
    turns = turns[kept]
    if len(turns) and turns[-1] == height * width:
        turns = turns[:-1]
    return np.diff(turns, prepend=0, append=height * width)


def _strings(counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """COCO's characters of all runs, and where those of each mask end.

    From the fourth run on, what is written is the difference to the run before the last: five bits a
    character, the lowest first, the sixth bit of each saying whether more follow.
    """
    rest = np.concatenate([np.r_[run[:3], run[3:] - run[1:-2]] for run in counts] or [[]])
    rest = rest.astype(np.int64)
    # A run is shorter than 2^31: seven characters.
    characters = np.zeros((len(rest), 7), np.uint8)
    lengths = np.zeros(len(rest), np.intp)
    active = np.arange(len(rest))
    for place in range(characters.shape[1]):
        low = rest[active] & 31
        rest[active] >>= 5
        more = rest[active] != np.where(low & 16, -1, 0)
        characters[active, place] = low + 32 * more + 48
        lengths[active] += 1
        active = active[more]
    used = np.arange(characters.shape[1]) < lengths[:, None]
    runs = np.cumsum([len(run) for run in counts], dtype=np.intp)
    return characters[used], np.r_[0, np.cumsum(lengths)][runs]


@functools.cache
def _adds_while_multiplying() -> bool | None:
    """Whether torch interpolates with fused instructions here, found by trying; None if it does otherwise.

    Its vectorized code does so where the processor can, its plain code does not.
    """
    random = np.random.default_rng(0)
    mask = random.random((28, 28), dtype=np.float32)
    # Some of them beyond the mask.
    x, y = random.uniform(-1.1, 1.1, (2, 4096)).astype(np.float32)
    for fused in (True, False):
        expected = interpolate(mask, *cells(x, 28, fused), *cells(y, 28, fused), fused)
        if np.array_equal(expected, _grid_sample(mask, x, y)):
            return fused
    return None


def _grid_sample(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    grid = torch.from_numpy(np.stack([x, y], axis=-1)).reshape(1, 64, -1, 2)
    found = F.grid_sample(torch.from_numpy(mask)[None, None], grid, align_corners=False)
    return found.reshape(-1).numpy()
