"""Which class was taken for which."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .scenes import MATCH, Scene


def confusion_matrix(scenes: Iterable[Scene], classes: int) -> np.ndarray:
    """(classes + 1) x (classes + 1) numbers: rows are what is there, columns what was found.

    The last row is detections where nothing is, the last column objects that nothing found. Objects and
    detections are paired whatever their classes, the pair with the highest IoU first, from 0.5 on. What lies
    unpaired in a crowd of its class is left out.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for scene in scenes:
        pairs = _pairs(scene.ious)
        alone = np.ones(len(scene.results), bool)
        unfound = np.ones(len(scene.objects), bool)
        for place, target in pairs:
            matrix[scene.object_kinds[target], scene.kinds[place]] += 1
            alone[place] = unfound[target] = False
        np.add.at(matrix, (classes, scene.kinds[alone & ~scene.in_crowd]), 1)
        np.add.at(matrix, (scene.object_kinds[unfound], classes), 1)
    return matrix


def _pairs(ious: np.ndarray) -> list[tuple[int, int]]:
    """(detection, object), each in one pair at most."""
    candidates = np.argwhere(ious >= MATCH)
    # Of equal IoUs, the better score's comes first.
    order = np.argsort(-ious[tuple(candidates.T)], kind="stable")
    pairs: dict[int, int] = {}
    for place, target in candidates[order].tolist():
        if place not in pairs and target not in pairs.values():
            pairs[place] = target
    return list(pairs.items())
