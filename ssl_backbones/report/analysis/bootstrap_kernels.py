"""Compiled loop of bootstrap.py; to be imported only where numba is."""

import numpy as np
from numba import njit

from ...fast.evaluation.coco_eval import FALSE, TRUE


@njit(cache=True, nogil=True)
def weighted_precision(detections, objects, weights, recalls):
    """As `bootstrap.weighted_precision`.

    Args:
        detections: `Walk`, as a tuple.
        objects: classes x images.
        weights: of the images.
        recalls: in increasing order.
    """
    codes, images, false_before, false_images, starts, false_starts = detections
    levels = codes.shape[1]
    precision = np.full((levels, len(recalls), len(objects)), -1.0)
    longest = np.diff(starts).max()
    heights, found = np.empty((levels, longest)), np.empty((levels, longest), np.int64)
    for kind in range(len(objects)):
        total = 0
        for image in range(len(weights)):
            total += objects[kind, image] * weights[image]
        if total == 0:
            continue
        own = slice(starts[kind], starts[kind + 1])
        before = false_starts[kind]
        blocks = _walk(
            codes[own],
            images[own],
            false_before[own] - before,
            false_images[before:],
            weights,
            heights,
            found,
        )
        for level in range(levels):
            column = precision[level, :, kind]
            column[:] = 0
            _read(heights[level, : blocks[level]], found[level], total, recalls, column)
    return precision


@njit(cache=True, nogil=True)
def _walk(codes, images, false_before, false_images, weights, heights, found):
    """Write the precision after each true detection and how many are true; returns the number of these."""
    levels = codes.shape[1]
    blocks, true = np.zeros(levels, np.int64), np.zeros(levels, np.int64)
    # False at some thresholds only; and at all of them, which most detections are.
    false, common = np.zeros(levels, np.int64), 0
    passed = 0
    tiny = np.spacing(1.0)
    for index in range(len(codes)):
        while passed < false_before[index]:
            common += weights[false_images[passed]]
            passed += 1
        weight = weights[images[index]]
        if weight == 0:
            continue
        for level in range(levels):
            code = codes[index, level]
            if code == FALSE:
                false[level] += weight
            elif code == TRUE:
                true[level] += weight
                place = blocks[level]
                blocks[level] = place + 1
                ours = np.float64(true[level])
                heights[level, place] = ours / (np.float64(false[level] + common) + ours + tiny)
                found[level, place] = true[level]
    return blocks


@njit(cache=True, nogil=True)
def _read(heights, found, total, recalls, precision):
    """Write the highest precision at each recall or beyond it, 0 where it is not reached."""
    highest, index = 0.0, len(recalls) - 1
    for place in range(len(heights) - 1, -1, -1):
        # What lies above the recall that is reached here was written with the detections further on.
        while index >= 0 and found[place] / total < recalls[index]:
            if place + 1 < len(heights):
                precision[index] = highest
            index -= 1
        highest = max(highest, heights[place])
    if len(heights):
        while index >= 0:
            precision[index] = highest
            index -= 1
