"""Compiled loop of run_lengths.py; to be imported only where numba is."""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def first_damaged(characters, ends, pixels, longest):
    """As `run_lengths.first_damaged`, or -1.

    Args:
        characters: of all strings, uint8.
        ends: where the characters of each end.
        longest: number of characters.
    """
    start = 0
    for place in range(len(ends)):
        if not _is_whole(characters[start : ends[place]], pixels[place], longest):
            return place
        start = ends[place]
    return -1


@njit(cache=True, nogil=True)
def _is_whole(characters, pixels, longest):
    number, shift = 0, 0
    before, last, written, total = 0, 0, 0, 0
    for character in characters:
        bits = np.int64(character) - 48
        if bits < 0 or bits > 63:
            return False
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            if shift == 5 * longest:
                return False
            continue
        if bits & 16:
            number |= np.int64(-1) << shift
        if written > 2:
            number += before
        if number < 0 or number > pixels:
            return False
        before, last = last, number
        total += number
        written += 1
        number, shift = 0, 0
    return shift == 0 and total == pixels
