"""Compiled loops of rle.py; to be imported only where numba is."""

import numpy as np
from numba import njit

_HALF, _ONE, _TWO = (np.float32(value) for value in (0.5, 1, 2))
_OUTSIDE, _INSIDE, _MIXED = 0, 1, 2


@njit(cache=True, nogil=True)
def encode_masks(masks, boxes, height, width, near, fused):
    """COCO's characters of all masks' runs (uint8), and where those of each mask end.

    Args:
        masks: N x M x M; boxes: N x 4; both float32.
        near: how near to the threshold a value must be computed as torch does; NaN for all values.
        fused: whether torch multiplies and adds at once.
    """
    size = masks.shape[1]
    ends = np.empty(len(masks), np.int64)
    characters = np.empty(1 << 16, np.uint8)
    runs = np.empty(height * width + 2, np.int32)
    column, across = np.empty(width, np.int64), np.empty(width, np.float32)
    row, down = np.empty(height, np.int64), np.empty(height, np.float32)
    # The mask's columns as rows, zeros around it.
    padded = np.zeros((size + 2, size + 2), np.float32)
    end = 0
    for index in range(len(masks)):
        for y in range(size):
            for x in range(size):
                padded[x + 1, y + 1] = masks[index, y, x]
        x0, y0, x1, y1 = boxes[index]
        # Detectron2 leaves empty what is further from the box.
        left, right = max(int(np.floor(x0)) - 1, 0), min(int(np.ceil(x1)) + 1, width)
        top, bottom = max(int(np.floor(y0)) - 1, 0), min(int(np.ceil(y1)) + 1, height)
        left, right = _locate(left, right, x0, x1, size, fused, column, across)
        top, bottom = _locate(top, bottom, y0, y1, size, fused, row, down)
        count = _trace(
            padded,
            (left, right, top, bottom),
            (column, across, row, down),
            (height, width),
            near,
            fused,
            runs,
        )
        if end + 7 * count > len(characters):
            characters = np.append(characters, np.empty(end + 7 * count, np.uint8))
        end = _write(runs, count, characters, end)
        ends[index] = end
    return characters[:end], ends


@njit(cache=True, nogil=True)
def sample(mask, x, y, fused):
    """The values of a mask (M x M) at N positions from -1 to 1, rounded as in torch's `grid_sample`."""
    size = len(mask)
    padded = np.zeros((size + 2, size + 2), np.float32)
    padded[1:-1, 1:-1] = mask.T
    half = np.float32(size / 2)
    values = np.zeros(len(x), np.float32)
    for index in range(len(x)):
        column = _add(-_HALF, x[index] + _ONE, half, fused)
        row = _add(-_HALF, y[index] + _ONE, half, fused)
        left, top = np.floor(column), np.floor(row)
        if -1 <= left < size and -1 <= top < size:
            cell, place = int(left) + 1, int(top) + 1
            values[index] = _exact(padded, cell, column - left, place, row - top, fused)
    return values


@njit(cache=True, nogil=True)
def _locate(start, stop, low, high, size, fused, cell, way):
    """Where pixels of an axis lie in a mask; returns the first and the end of those that touch it.

    Writes for each the index of the cell before it (-1 for the zeros before the mask) and the way to the
    next. The order of operations is Detectron2's and torch's.
    """
    half = np.float32(size / 2)
    extent = high - low
    first, end = stop, stop
    for pixel in range(start, stop):
        at = (np.float32(pixel) + _HALF - low) / extent * _TWO - _ONE + _ONE
        at = _add(-_HALF, at, half, fused)
        before = np.floor(at)
        if before < -1:
            continue
        if before >= size:
            end = pixel
            break
        first = min(first, pixel)
        cell[pixel], way[pixel] = int(before), at - before
    return first, end


@njit(cache=True, nogil=True)
def _trace(padded, region, places, shape, near, fused, runs):
    """Write the lengths of the runs in COCO's order; returns how many they are.

    Along a column, values are linear from cell to cell of the mask: between two that are both above or both
    below the threshold there is nothing to look at.
    """
    left, right, top, bottom = region
    column, across, row, down = places
    height, width = shape
    above, below = _HALF + near, _HALF - near
    starts = _first_rows(row, top, bottom, padded.shape[0])
    pieces = np.empty((padded.shape[0], 2), np.int64)
    # The run that is under way, and where it began.
    count, inside, last = 0, False, 0
    before, used = -2, 0
    for x in range(left, right):
        cell, weight = column[x] + 1, across[x]
        if cell != before:
            used = _pieces(padded[cell], padded[cell + 1], starts, above, below, pieces)
            before = cell
        base = x * height
        for piece in range(used):
            index, kind = pieces[piece]
            start = starts[index]
            if kind == _MIXED:
                value = padded[cell, index] * (_ONE - weight) + padded[cell + 1, index] * weight
                index += 1
                following = padded[cell, index] * (_ONE - weight) + padded[cell + 1, index] * weight
                if value > above and following > above:
                    kind = _INSIDE
                elif value < below and following < below:
                    kind = _OUTSIDE
            if kind != _MIXED:
                if inside != (kind == _INSIDE):
                    count, last = _turn(runs, count, last, base + start)
                    inside = kind == _INSIDE
                continue
            slope = following - value
            for y in range(start, starts[index]):
                at = value + down[y] * slope
                if abs(at - _HALF) > near:
                    here = at > _HALF
                else:
                    here = _exact(padded, cell, weight, index - 1, down[y], fused) >= _HALF
                if here != inside:
                    count, last = _turn(runs, count, last, base + y)
                    inside = here
        if inside and base + bottom < height * width:
            count, last = _turn(runs, count, last, base + bottom)
            inside = False
    runs[count] = height * width - last
    return count + 1


@njit(cache=True, nogil=True)
def _pieces(one, other, starts, above, below, pieces):
    """Write what lies between two columns of a mask, (first cell, kind) each; returns how many pieces.

    Cells whose four corners are above the threshold are inside, wherever an image's column runs; those next
    to each other are one piece. Cells with corners on both sides are a piece each.
    """
    used = 0
    for index in range(len(starts) - 1):
        if starts[index] == starts[index + 1]:
            continue
        a, b, c, d = one[index], one[index + 1], other[index], other[index + 1]
        kind = _MIXED
        if a > above and b > above and c > above and d > above:
            kind = _INSIDE
        elif a < below and b < below and c < below and d < below:
            kind = _OUTSIDE
        if kind == _MIXED or used == 0 or pieces[used - 1, 1] != kind:
            pieces[used, 0], pieces[used, 1] = index, kind
            used += 1
    return used


@njit(cache=True, nogil=True)
def _first_rows(row, top, bottom, size):
    """The first image row of each cell of the mask, and the end of the last."""
    starts = np.empty(size, np.int64)
    y = top
    for index in range(size):
        while y < bottom and row[y] + 1 < index:
            y += 1
        starts[index] = y
    return starts


@njit(cache=True, nogil=True)
def _turn(runs, count, last, position):
    """End the run under way at `position`; returns the number of ended runs and where the last one ended."""
    if count and position == last:
        # The run before ended here, at the foot of a column: it goes on in the next.
        return count - 1, last - runs[count - 1]
    runs[count] = position - last
    return count + 1, position


@njit(cache=True, nogil=True)
def _exact(padded, cell, across, index, down, fused):
    """The value at a pixel in the order of torch's `grid_sample`."""
    left, up = _ONE - across, _ONE - down
    total = padded[cell, index] * np.float32(left * up)
    total = _add(total, padded[cell + 1, index], np.float32(across * up), fused)
    total = _add(total, padded[cell, index + 1], np.float32(left * down), fused)
    return _add(total, padded[cell + 1, index + 1], np.float32(across * down), fused)


@njit(cache=True, nogil=True)
def _add(total, value, weight, fused):
    if fused:
        # Products of float32 are exact in float64: one rounding.
        return np.float32(np.float64(total) + np.float64(value) * np.float64(weight))
    return np.float32(total + np.float32(value * weight))


@njit(cache=True, nogil=True)
def _write(runs, count, characters, end):
    """Write runs as COCO's characters from `end` on; returns the new end.

    From the fourth run on, what is written is the difference to the run before the last: five bits a
    character, the lowest first, the sixth bit of each saying whether more follow.
    """
    for index in range(count):
        rest = np.int64(runs[index])
        if index > 2:
            rest -= runs[index - 2]
        more = True
        while more:
            low = rest & 31
            rest >>= 5
            more = rest != -1 if low & 16 else rest != 0
            characters[end] = low + (32 if more else 0) + 48
            end += 1
    return end
