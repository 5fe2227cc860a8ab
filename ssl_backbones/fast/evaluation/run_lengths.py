"""Whether masks in COCO's run-length encoding are whole. pycocotools may compare damaged ones without end."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from ..acceleration import numba_or_none
from .detections import Strings

MOST_PIXELS = 2**32 - 1
"""Of a mask: pycocotools counts them in 32 bits."""


def first_damaged(masks: Strings, empty_runs: bool = True) -> int | None:
    """The place of the first mask whose runs do not fill its image; None if all do.

    Args:
        empty_runs: whether a run of no pixels may stand elsewhere than at the beginning. It changes no
            pixel, and pycocotools compares such masks in a way of its own.
    """
    pixels = masks.sizes.prod(axis=1)
    pixels[(masks.sizes < 1).any(axis=1) | (pixels > MOST_PIXELS)] = -1
    if numba_or_none("Checking masks"):
        # Signed: numba makes floats of unsigned numbers from which others are taken.
        place = _compiled()(masks.characters.view(np.int8), masks.spans, pixels, empty_runs)
    else:
        spans, pixels = masks.spans.tolist(), pixels.tolist()
        place = _first_damaged(masks.characters.tobytes(), spans, pixels, empty_runs)
    return None if place < 0 else int(place)


@functools.cache
def _compiled() -> Callable:
    import numba

    return numba.njit(cache=True, nogil=True)(_first_damaged)


def _first_damaged(characters, spans, pixels, empty_runs):
    """The place of the first string that does not encode as many pixels, or -1; numba compiles it."""
    for place in range(len(spans)):
        number, shift = 0, 0
        before, last, written, total = 0, 0, 0, 0
        is_whole = True
        for index in range(spans[place][0], spans[place][1]):
            bits = int(characters[index]) - 48
            # A difference of two runs has 33 bits with its sign, and a character holds five.
            if bits < 0 or bits > 63 or shift >= 35:
                is_whole = False
                break
            number |= (bits & 31) << shift
            shift += 5
            if bits & 32:
                continue
            if bits & 16:
                number |= -1 << shift
            # From the fourth on, a number is the difference to the run before the last.
            if written > 2:
                number += before
            if number < 0 or number > pixels[place]:
                is_whole = False
                break
            if number == 0 and written > 0 and not empty_runs:
                is_whole = False
                break
            before, last = last, number
            total += number
            written += 1
            number, shift = 0, 0
        if not is_whole or shift or total != pixels[place]:
            return place
    return -1
