"""Whether masks in COCO's run-length encoding are whole. pycocotools may compare damaged ones without end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...fast.acceleration import numba_or_none

MOST_PIXELS = 2**32 - 1
"""Of a mask: pycocotools counts them in 32 bits."""

_TOGETHER = 4096
"""Masks that are read at a time, so that little memory is enough for any number of them."""

# A difference of two runs has 33 bits with its sign, and a character holds five.
_LONGEST = 7


def first_damaged(counts: Sequence[str], pixels: Sequence[int]) -> int | None:
    """The place of the first mask whose runs do not fill its image; None if all do.

    Args:
        counts: N strings of ASCII, none of them empty.
        pixels: N, how many each mask's image has, at most `MOST_PIXELS`.
    """
    find = _first_damaged
    if numba_or_none("Checking masks"):
        from .run_lengths_kernels import first_damaged as find
    for start in range(0, len(counts), _TOGETHER):
        own = counts[start : start + _TOGETHER]
        characters = np.frombuffer("".join(own).encode("ascii"), np.uint8)
        ends = np.cumsum([len(text) for text in own])
        place = find(characters, ends, np.array(pixels[start : start + len(own)]), _LONGEST)
        if place >= 0:
            return start + int(place)
    return None


def _first_damaged(
    characters: np.ndarray, ends: np.ndarray, pixels: np.ndarray, longest: int
) -> int:
    """As the compiled loop."""
    bits = characters.astype(np.int64) - 48
    begins = np.r_[0, ends[:-1]]
    is_damaged = np.logical_or.reduceat((bits < 0) | (bits > 63), begins)
    is_last = (bits & 32) == 0
    is_damaged |= ~is_last[ends - 1]
    # What is cut off must not run into the next mask.
    is_last[ends - 1] = True
    stops = np.flatnonzero(is_last) + 1
    starts = np.r_[0, stops[:-1]]
    # The number with which each mask begins.
    first = np.searchsorted(starts, begins)
    is_damaged |= np.logical_or.reduceat(stops - starts > longest, first)

    own = np.repeat(np.arange(len(ends)), np.diff(first, append=len(starts)))
    runs = _runs(_numbers(bits, starts, stops, longest), first, own)
    is_damaged |= np.logical_or.reduceat((runs < 0) | (runs > pixels[own]), first)
    is_damaged |= np.add.reduceat(runs, first) != pixels
    return int(is_damaged.argmax()) if is_damaged.any() else -1


def _numbers(bits: np.ndarray, starts: np.ndarray, stops: np.ndarray, longest: int) -> np.ndarray:
    """Of five bits a character, the lowest first; the highest one is the sign.

    Of more than `longest` characters it may be any number.
    """
    lengths = stops - starts
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    values = np.add.reduceat((bits & 31) << 5 * np.minimum(place, longest), starts)
    is_negative = (bits[stops - 1] & 16) != 0
    return values - (is_negative.astype(np.int64) << 5 * np.minimum(lengths, longest))


def _runs(numbers: np.ndarray, first: np.ndarray, own: np.ndarray) -> np.ndarray:
    """From a mask's fourth on, a number is the difference to the run before the last.

    Args:
        first: the number with which each mask begins.
        own: the mask of each number.
    """
    place = np.arange(len(numbers)) - first[own]
    # A mask's first run stands alone.
    is_odd, is_even = place % 2 == 1, (place % 2 == 0) & (place > 0)
    runs = numbers.copy()
    for chosen in (is_odd, is_even):
        sums = np.cumsum(np.where(chosen, numbers, 0))
        runs[chosen] = (sums - sums[first][own])[chosen]
    return runs
