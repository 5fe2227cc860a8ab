"""Boxes that are not what COCO means by x, y, width, height in pixels, as far as it can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .masks import mask_boxes

_LOOKED_AT = 20_000
"""Masks, spread evenly over the file, whose boxes are computed: enough to see how the file is written."""

_AGREE = 0.5
"""IoU from which on a box is taken for that of the object whose mask it is compared with."""

_EXACT, _BETTER = 0.9, 0.05
"""IoU of a box that is surely that of its mask, and by how much one of two readings must fit better."""

SLACK = 1
"""Pixels that a box may reach outside its image, as those do that count from 1 or round up."""

_PIXELS = "give x, y, width and height in pixels"


class Objects(NamedTuple):
    """Objects in the order of the file.

    Attributes:
        boxes: (N, 4), x, y, width, height.
        image_sizes: (N, 2), width and height of each one's image.
        masks: in COCO's format, run lengths without a fault; None where there is none.
        named: what a message calls the object of an id.
    """

    ids: Sequence[int]
    boxes: np.ndarray
    image_sizes: np.ndarray
    masks: Sequence[Any]
    named: Callable[[int], str] = "annotation {}".format


class _Fault(NamedTuple):
    """Which objects have it, of those that could show it, and what is said of them."""

    faulty: np.ndarray
    judged: np.ndarray
    what: str
    mend: str

    def sentence(self, objects: Objects) -> str:
        first = objects.named(objects.ids[int(np.argmax(self.faulty))])
        counts = f"{self.faulty.sum()} of {self.judged.sum()}"
        return f"{counts} {self.what} (first: {first}): {self.mend}"


class _Facts(NamedTuple):
    """What the faults are seen from, an entry an object."""

    boxes: np.ndarray
    corners: np.ndarray  # left, top, right, bottom
    sizes: np.ndarray  # of images
    around: np.ndarray  # corners of masks; NaN where there is none, or none was looked at
    masked: np.ndarray  # whether the mask was looked at
    bare: np.ndarray  # whether there is no mask
    fit: np.ndarray  # IoU of box and mask
    reaches: np.ndarray  # whether the box reaches outside its image

    @property
    def looked_at(self) -> str:
        return "" if (self.masked | self.bare).all() else " looked at"


def judge_boxes(objects: Objects) -> tuple[list[str], list[str]]:
    """What is wrong with boxes, a sentence a fault; a box counts for the first that it has.

    Returns:
        Faults of more than half of the boxes, which no run should start with, and those of fewer.
    """
    problems: list[str] = []
    warnings: list[str] = []
    # Sizes near the end of the floats have areas beyond it.
    with np.errstate(over="ignore", invalid="ignore"):
        facts = _facts(objects)
        for fault in (*_shares(facts), *_corners(facts)):
            problems.append(fault.sentence(objects))
        if problems:
            # Every other fault would be one of this reading.
            return problems, []
        told = np.zeros(len(objects.boxes), bool)
        for fault in _faults(facts):
            fault = fault._replace(faulty=fault.faulty & ~told)
            told |= fault.faulty
            if fault.faulty.any():
                is_most = 2 * fault.faulty.sum() > fault.judged.sum()
                (problems if is_most else warnings).append(fault.sentence(objects))
    return problems, warnings


def _facts(objects: Objects) -> _Facts:
    bare = np.array([mask is None for mask in objects.masks], bool)
    looked_at = np.flatnonzero(~bare)
    if len(looked_at) > _LOOKED_AT:
        looked_at = looked_at[np.linspace(0, len(looked_at) - 1, _LOOKED_AT).astype(int)]
    around = np.full((len(bare), 4), np.nan)
    around[looked_at] = mask_boxes([objects.masks[index] for index in looked_at])
    masked = ~np.isnan(around[:, 0])
    boxes = objects.boxes
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    fit, reaches = _iou(corners, around), _reaches_out(corners, objects.image_sizes)
    return _Facts(boxes, corners, objects.image_sizes, around, masked, bare, fit, reaches)


def _shares(facts: _Facts) -> Iterator[_Fault]:
    """Boxes and masks in shares of their image, if more than half of them are so."""
    large = facts.sizes.prod(axis=1) > 1
    every = np.ones(len(large), bool)
    boxes, masks = (
        large
        & (corners >= 0).all(axis=1)
        & (numbers <= 1).all(axis=1)
        # Those without an extent are another fault.
        & (corners[:, :2] < corners[:, 2:]).all(axis=1)
        for corners, numbers in ((facts.corners, facts.boxes), (facts.around, facts.around))
    )
    for faulty, judged, what, mend in (
        (boxes, every, "boxes", _PIXELS),
        (masks, facts.masked, f"masks{facts.looked_at}", "give them in pixels"),
    ):
        if 2 * faulty.sum() > judged.sum():
            words = f"{what} lie between 0 and 1"
            yield _Fault(faulty, judged, words, f"written as shares of the image? {mend}")


def _corners(facts: _Facts) -> Iterator[_Fault]:
    """Boxes whose numbers fit their masks, or else their images, when they are read as two corners.

    Most of those must be so that can tell the readings apart: at the upper left of an image both are alike.
    A few of many are no sign of how a file is written.
    """
    turned = facts.boxes
    possible = (turned[:, :2] < turned[:, 2:]).all(axis=1)
    fit, masked, bare = facts.fit, facts.masked, facts.bare

    other_fit = np.where(possible, _iou(turned, facts.around), 0)
    is_exact = (other_fit >= _EXACT) & (other_fit > fit + _BETTER)
    by_mask = masked & (is_exact | ((fit < _AGREE) & (other_fit >= _AGREE)))
    tells_by_mask = by_mask | (masked & (abs(fit - other_fit) > _BETTER))

    other_reaches = _reaches_out(turned, facts.sizes)
    by_image = bare & facts.reaches & possible & ~other_reaches
    tells_by_image = bare & (facts.reaches | ~possible | other_reaches)

    for faulty, tells, judged, what in (
        (by_mask, tells_by_mask, masked, f"boxes{facts.looked_at} disagree with their masks"),
        (by_image, tells_by_image, bare, "boxes reach outside their image"),
    ):
        if 2 * faulty.sum() > tells.sum() and 4 * faulty.sum() >= judged.sum():
            yield _Fault(faulty, judged, what, f"written as corners? {_PIXELS}")


def _faults(facts: _Facts) -> Iterator[_Fault]:
    """Those of boxes that are x, y, width and height in pixels."""
    every = np.ones(len(facts.boxes), bool)
    yield _Fault(
        (facts.boxes[:, 2:] < 1).any(axis=1),
        every,
        "boxes are less than one pixel wide or high",
        "correct them, or take them out",
    )
    yield _Fault(
        facts.reaches,
        every,
        "boxes reach outside their image",
        f"{_PIXELS} of the image as it is, or cut them at its edge",
    )
    yield _Fault(
        facts.masked & (facts.fit < _AGREE),
        facts.masked,
        f"boxes{facts.looked_at} disagree with their masks",
        "correct the box or the mask; x and y are those of the upper left corner",
    )


def _reaches_out(corners: np.ndarray, image_sizes: np.ndarray) -> np.ndarray:
    before = (corners[:, :2] < -SLACK).any(axis=1)
    return before | (corners[:, 2:] > image_sizes + SLACK).any(axis=1)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes given by corners, grown by half a pixel: masks of lines have an extent as well."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    both = (high - low + 1).clip(min=0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2] + 1).clip(min=0).prod(axis=1) for box in (one, other)]
    return both / (areas[0] + areas[1] - both)
