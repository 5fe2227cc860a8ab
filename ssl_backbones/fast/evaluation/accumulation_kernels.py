"""Compiled loops of coco_eval.py, from outcomes to precision; to be imported only where numba is.

They do what pycocotools' `COCOeval.accumulate` does, in the same order of floating-point operations.
"""

import numpy as np
from numba import njit

from .matching_kernels import FALSE, TRUE


@njit(cache=True, nogil=True)
def accumulate(outcomes, scores, ranks, starts, objects, limits, recalls):
    """Precision and score at each recall, and the highest recall, as pycocotools computes them.

    Args:
        outcomes: N x ranges x thresholds, as from `match_boxes`.
        scores, ranks: of the detections; a rank counts within image and class, from 0.
        starts: of the classes among the detections, which lie by class and in the order of their scores.
        objects: classes x ranges, how many are to be found.
        limits: numbers of detections of an image and class that count.
        recalls: at which precision is asked for.

    Returns:
        precision and scores (thresholds x recalls x classes x ranges x limits), and recall (without
        recalls); -1 where there is nothing to be found.
    """
    classes, parts = objects.shape
    levels = outcomes.shape[2]
    shape = (levels, len(recalls), classes, parts, len(limits))
    precision, found_scores = np.full(shape, -1.0), np.full(shape, -1.0)
    recall = np.full((levels, classes, parts, len(limits)), -1.0)
    flat = outcomes.reshape(len(outcomes), parts * levels)
    for kind in range(classes):
        most = objects[kind].max()
        if most == 0:
            continue
        # Of each true detection, in the order of the scores.
        heights, places = (
            np.empty((levels * parts, most)),
            np.empty((levels * parts, most), np.int64),
        )
        own = slice(starts[kind], starts[kind + 1])
        for limit in range(len(limits)):
            first, true = _walk(flat[own], ranks[own], limits[limit], heights, places)
            for column in range(parts * levels):
                part, level = column // levels, column % levels
                if objects[kind, part] == 0:
                    continue
                recall[level, kind, part, limit] = true[column] / objects[kind, part]
                _read(
                    heights[column, : true[column]],
                    places[column],
                    scores[own],
                    first,
                    objects[kind, part],
                    recalls,
                    precision[level, :, kind, part, limit],
                    found_scores[level, :, kind, part, limit],
                )
    return precision, recall, found_scores


@njit(cache=True, nogil=True)
def _walk(outcomes, ranks, limit, heights, places):
    """Go through a class's detections; returns the first that counts, and how many are true by column.

    Writes the precision at each true one and its place: between them precision only falls.
    """
    columns = outcomes.shape[1]
    true, false = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
    tiny = np.spacing(1.0)
    first = -1
    for index in range(len(outcomes)):
        if ranks[index] >= limit:
            continue
        if first < 0:
            first = index
        for column in range(columns):
            outcome = outcomes[index, column]
            if outcome == FALSE:
                false[column] += 1
            elif outcome == TRUE:
                place = true[column]
                true[column] = place + 1
                found = np.float64(place + 1)
                heights[column, place] = found / (np.float64(false[column]) + found + tiny)
                places[column, place] = index
    return first, true


@njit(cache=True, nogil=True)
def _read(heights, places, scores, first, objects, recalls, precision, found_scores):
    """Write precision and score at each recall; 0 from the first that is not reached."""
    for index in range(len(heights) - 1, 0, -1):
        heights[index - 1] = max(heights[index - 1], heights[index])
    precision[:] = 0
    found_scores[:] = 0
    place = 0
    for index in range(len(recalls)):
        if index and recalls[index] < recalls[index - 1]:
            place = 0
        if recalls[index] <= 0:
            # Reached by the first detection, true or not.
            if first < 0:
                return
            precision[index] = heights[0] if len(heights) else 0.0
            found_scores[index] = scores[first]
            continue
        while place < len(heights) and (place + 1) / objects < recalls[index]:
            place += 1
        if place == len(heights):
            return
        precision[index] = heights[place]
        found_scores[index] = scores[places[place]]
