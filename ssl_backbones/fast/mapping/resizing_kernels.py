"""Pillow's bilinear resize of 8-bit images, compiled: the same fixed-point arithmetic, written as planes.

Pillow (src/libImaging/Resample.c) turns an axis's weights into integers of 22 bits, resizes along x, rounds
to 8 bits, then does the same along y. Sums of weighted values stay below 2 ** 31.

A processor is fast at doing the same to neighbours in memory. Along y these are the pixels of a row; along x,
whose weights change from pixel to pixel, those of a column. So rows are taken LANES at a time, transposed,
resized along x, and transposed back. All loops are written for LLVM to find this: `a[8 * x + 3]` with a
constant step, and inner loops of a constant length.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BITS = 22
HALF = np.int32(1 << (BITS - 1))  # what makes the shift round to nearest
LANES = 32  # rows of bytes that are transposed together: 4 words of 8


@njit(cache=True, nogil=True)
def weigh(length, new_length, flip):
    """How an axis of `length` pixels is resized, and then flipped.

    Returns:
        For each new pixel the first old one that has a share in it, int64 (new_length,), and the weights of
        that one and those after it, with BITS fractional bits, int32 (new_length, a multiple of 4).
    """
    scale = length / new_length
    stretch = max(scale, 1.0)
    most = math.ceil(stretch) * 2 + 1
    first = np.zeros(new_length, np.int64)
    weights = np.zeros((new_length, most + 3), np.int32)
    shares = np.zeros(most)
    taps = 1
    for index in range(new_length):
        # The operations and their order are Pillow's, so that the last bit of each weight is, too.
        centre = (index + 0.5) * scale
        start = max(int(centre - stretch + 0.5), 0)
        stop = min(int(centre + stretch + 0.5), length)
        total = 0.0
        for tap in range(stop - start):
            share = abs((tap + start - centre + 0.5) * (1.0 / stretch))
            shares[tap] = 1.0 - share if share < 1.0 else 0.0
            total += shares[tap]
        target = new_length - 1 - index if flip else index
        first[target] = start
        taps = max(taps, stop - start)
        for tap in range(stop - start):
            weights[target, tap] = int(0.5 + shares[tap] / total * (1 << BITS))
    return first, weights[:, : (taps + 3) // 4 * 4]


@njit(cache=True, nogil=True)
def transpose(rows, words, columns):
    """Turn rows, uint8 (LANES, n), into columns, uint8 (n * LANES,), by way of `words`, uint8 (4, n * 8)."""
    length = rows.shape[1]
    for part in range(4):
        word, first = words[part], 8 * part
        a, b, c, d = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
        e, f, g, h = rows[first + 4], rows[first + 5], rows[first + 6], rows[first + 7]
        for x in range(length):
            word[8 * x], word[8 * x + 1], word[8 * x + 2], word[8 * x + 3] = a[x], b[x], c[x], d[x]
            word[8 * x + 4], word[8 * x + 5], word[8 * x + 6] = e[x], f[x], g[x]
            word[8 * x + 7] = h[x]
    a8, b8 = words[0].view(np.uint64), words[1].view(np.uint64)
    c8, d8 = words[2].view(np.uint64), words[3].view(np.uint64)
    out = columns.view(np.uint64)
    for x in range(length):
        out[4 * x], out[4 * x + 1], out[4 * x + 2], out[4 * x + 3] = a8[x], b8[x], c8[x], d8[x]


@njit(cache=True, nogil=True)
def transpose_back(columns, words, rows):
    """Turn columns, uint8 (n * LANES,), into rows, uint8 (LANES, n): see `transpose`."""
    length = rows.shape[1]
    a8, b8 = words[0].view(np.uint64), words[1].view(np.uint64)
    c8, d8 = words[2].view(np.uint64), words[3].view(np.uint64)
    whole = columns.view(np.uint64)
    for x in range(length):
        a8[x], b8[x], c8[x], d8[x] = (
            whole[4 * x],
            whole[4 * x + 1],
            whole[4 * x + 2],
            whole[4 * x + 3],
        )
    for part in range(4):
        word, first = words[part], 8 * part
        a, b, c, d = rows[first], rows[first + 1], rows[first + 2], rows[first + 3]
        e, f, g, h = rows[first + 4], rows[first + 5], rows[first + 6], rows[first + 7]
        for x in range(length):
            a[x], b[x], c[x], d[x] = word[8 * x], word[8 * x + 1], word[8 * x + 2], word[8 * x + 3]
            e[x], f[x], g[x] = word[8 * x + 4], word[8 * x + 5], word[8 * x + 6]
            h[x] = word[8 * x + 7]


@njit(cache=True, nogil=True)
def blend_columns(columns, new_columns, left, weights):
    """Resize along x where each new pixel lies between two old ones, whose weights add up to 1 exactly.

    a * (1 - w) + b * w is then a + (b - a) * w.
    """
    lanes = np.uint64(LANES)
    for x in range(left.size):
        # Unsigned: an index that cannot be negative needs no check.
        old, new, weight = np.uint64(left[x]) * lanes, np.uint64(x) * lanes, weights[x, 1]
        for lane in range(LANES):
            index = old + np.uint64(lane)
            a, b = np.int32(columns[index]), np.int32(columns[index + lanes])
            new_columns[new + np.uint64(lane)] = ((a << BITS) + (b - a) * weight + HALF) >> BITS


@njit(cache=True, nogil=True)
def sum_columns(columns, new_columns, left, weights):
    """Resize along x where each new pixel may have shares of many old ones."""
    lanes = np.uint64(LANES)
    sums = np.empty(LANES, np.int32)
    for x in range(left.size):
        sums[:] = HALF
        for tap in range(0, weights.shape[1], 4):
            a, b = weights[x, tap], weights[x, tap + 1]
            c, d = weights[x, tap + 2], weights[x, tap + 3]
            first = np.uint64(left[x] + tap) * lanes
            for lane in range(LANES):
                old = first + np.uint64(lane)
                sums[lane] += (
                    np.int32(columns[old]) * a
                    + np.int32(columns[old + lanes]) * b
                    + np.int32(columns[old + lanes + lanes]) * c
                    + np.int32(columns[old + lanes + lanes + lanes]) * d
                )
        new = np.uint64(x) * lanes
        for lane in range(LANES):
            new_columns[new + np.uint64(lane)] = sums[lane] >> BITS


@njit(cache=True, nogil=True)
def resize_rows(image, new_width, flip):
    """Resize uint8 (height, width, 3) along x: uint8 (3, at least height, new width)."""
    height, width = image.shape[:2]
    left, weights = weigh(width, new_width, flip)
    blocks = (height + LANES - 1) // LANES
    rows = np.zeros((3, LANES, width), np.uint8)
    new_rows = np.empty((3, blocks * LANES, new_width), np.uint8)
    words = np.empty((4, max(width, new_width) * 8), np.uint8)
    # Weights of 0 reach beyond the last column.
    columns = np.zeros((width + weights.shape[1]) * LANES, np.uint8)
    new_columns = np.empty(new_width * LANES, np.uint8)
    for first in range(0, height, LANES):
        for lane in range(min(LANES, height - first)):
            red, green, blue = rows[0, lane], rows[1, lane], rows[2, lane]
            for x in range(width):
                red[x] = image[first + lane, x, 0]
                green[x] = image[first + lane, x, 1]
                blue[x] = image[first + lane, x, 2]
        for channel in range(3):
            transpose(rows[channel], words, columns)
            if new_width >= width:
                blend_columns(columns, new_columns, left, weights)
            else:
                sum_columns(columns, new_columns, left, weights)
            transpose_back(new_columns, words, new_rows[channel, first : first + LANES])
    return new_rows


@njit(cache=True, nogil=True)
def blend_row(above, below, weight, out):
    """As `blend_columns`, along y."""
    for x in range(out.size):
        a, b = np.int32(above[x]), np.int32(below[x])
        out[x] = ((a << BITS) + (b - a) * weight + HALF) >> BITS


@njit(cache=True, nogil=True)
def blend_row_coarsely(above, below, weight, out):
    """The same with weights of 8 bits: off by less than half a level before rounding, so by 1 after it."""
    lower = np.uint16((weight + (1 << 13)) >> 14)
    upper = np.uint16(256) - lower
    for x in range(out.size):
        mixed = np.uint16(above[x]) * np.uint16(upper) + np.uint16(below[x]) * np.uint16(lower)
        out[x] = np.uint16(mixed + np.uint16(128)) >> np.uint16(8)


@njit(cache=True, nogil=True)
def resize(image, planes, hflip, vflip, exact):
    """Resize uint8 (height, width, 3) into uint8 planes (3, new height, new width), and flip those."""
    height = image.shape[0]
    new_height, new_width = planes.shape[1:]
    rows = resize_rows(image, new_width, hflip)
    top, weights = weigh(height, new_height, vflip)
    sums = np.empty(new_width, np.int32)
    for channel in range(3):
        for y in range(new_height):
            out = planes[channel, y]
            if new_height >= height:
                above, below = rows[channel, top[y]], rows[channel, min(top[y] + 1, height - 1)]
                if exact:
                    blend_row(above, below, weights[y, 1], out)
                else:
                    blend_row_coarsely(above, below, weights[y, 1], out)
                continue
            sums[:] = HALF
            for tap in range(min(weights.shape[1], height - top[y])):
                row, weight = rows[channel, top[y] + tap], weights[y, tap]
                for x in range(new_width):
                    sums[x] += np.int32(row[x]) * weight
            for x in range(new_width):
                out[x] = sums[x] >> BITS
