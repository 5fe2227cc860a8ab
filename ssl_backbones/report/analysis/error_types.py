"""Which errors cost average precision: the definitions of TIDE.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020;
where the paper leaves something open, as its library `tidecv` 1.0.1 has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .findings import ErrorSummary
from .scenes import MATCH, Scene

BACKGROUND = 0.1
"""IoU up to which a detection has found nothing."""

TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg")
"""Of the detections; an object that no detection found, nor would find if it were mended, is "Miss"."""

_NONE = -1
_CLS, _LOC, _BOTH, _DUPE, _BKG = range(len(TYPES))

# As TIDE has them; the last bits of COCO's own are others.
_RECALLS = np.arange(101) / 100


class SceneErrors(NamedTuple):
    """The errors in a scene of D detections and G objects.

    Attributes:
        matches: D, the object that a detection has found, or -1.
        types: D, a place in `TYPES` or -1.
        mended: D, the object that a "Cls" or "Loc" would find if it were mended, or -1; only the best
            detection of an object, and only if no other has found that.
        missed: G, whether an object is "Miss".
    """

    matches: np.ndarray
    types: np.ndarray
    mended: np.ndarray
    missed: np.ndarray


def find_scene_errors(scene: Scene) -> SceneErrors:
    """Match detections with objects of their class, best score first, and say of the others what is wrong."""
    same = scene.kinds[:, None] == scene.object_kinds
    own, others = scene.ious * same, scene.ious * ~same
    matches = _match(own)
    found = np.zeros(len(scene.objects), bool)
    found[matches[matches >= 0]] = True

    types = np.full(len(matches), _NONE)
    mended = np.full(len(matches), _NONE)
    covered = found.copy()
    for place in np.flatnonzero(matches < 0):
        types[place], target = _type(scene.ious[place], own[place], others[place], found)
        if target >= 0 and not covered[target]:
            mended[place] = target
            covered[target] = True
    return SceneErrors(matches, types, mended, ~covered)


def summarize_errors(scenes: Iterable[Scene], classes: int) -> dict[str, ErrorSummary]:
    """Number and cost of the errors of each type in all images, and of "FalsePos" and "FalseNeg".

    The gain is in percent points of AP50. It is AP as TIDE has it: a class without objects of which something
    was detected has 0.

    Args:
        scenes: with all detections, or with those that are to count.
        classes: their number.
    """
    table = _Table(classes)
    for scene in scenes:
        table.add(scene, find_scene_errors(scene))
    return table.summaries()


def _match(ious: np.ndarray) -> np.ndarray:
    """D: the object that each detection finds, or -1, of the IoUs with objects of its class."""
    matches = np.full(len(ious), _NONE)
    free = ious.copy()
    # Objects that are taken do not come back: what is near to none need not be looked at.
    for place in np.flatnonzero((ious >= MATCH).any(axis=1)):
        best = int(free[place].argmax())
        if free[place, best] >= MATCH:
            matches[place] = best
            free[:, best] = 0
    return matches


def _type(
    ious: np.ndarray, own: np.ndarray, others: np.ndarray, found: np.ndarray
) -> tuple[int, int]:
    """Of a detection that found no object: its type, and the object that it would find, or -1."""
    if not len(ious):
        return _BKG, _NONE
    best = int(own.argmax())
    if BACKGROUND <= own[best] <= MATCH:
        return _LOC, best
    best = int(others.argmax())
    if others[best] >= MATCH:
        return _CLS, best
    if (own * found).max() >= MATCH:
        return _DUPE, _NONE
    return (_BKG if ious.max() <= BACKGROUND else _BOTH), _NONE


class _Detections(NamedTuple):
    """Columns: class, score, whether true, whether ignored, type of error, class once mended or -1."""

    kinds: np.ndarray
    scores: np.ndarray
    is_true: np.ndarray
    is_ignored: np.ndarray
    types: np.ndarray
    mended_kinds: np.ndarray

    def of(self, chosen: np.ndarray) -> _Detections:
        """Those that are `chosen`, by a mask or by their places."""
        return _Detections(*(column[chosen] for column in self))


class _Table:
    """The detections and objects of all images, and average precision with errors of a type mended."""

    def __init__(self, classes: int):
        self._classes = classes
        self._parts: list[_Detections] = []
        self._objects, self._found, self._missed = (np.zeros(classes, np.int64) for _ in range(3))

    def add(self, scene: Scene, errors: SceneErrors) -> None:
        is_true, is_mended = errors.matches >= 0, errors.mended >= 0
        mended_kinds = np.full(len(is_true), _NONE)
        mended_kinds[is_mended] = scene.object_kinds[errors.mended[is_mended]]
        is_ignored = scene.in_crowd & ~is_true
        columns = (scene.kinds, scene.scores, is_true, is_ignored, errors.types, mended_kinds)
        self._parts.append(_Detections(*columns))
        self._objects += self._count(scene.object_kinds)
        self._found += self._count(scene.object_kinds[errors.matches[is_true]])
        self._missed += self._count(scene.object_kinds[errors.missed])

    def summaries(self) -> dict[str, ErrorSummary]:
        """By type, and "FalsePos" and "FalseNeg"."""
        if not self._parts:
            return {name: ErrorSummary(0, 0.0) for name in (*TYPES, "Miss", "FalsePos", "FalseNeg")}
        whole = _Detections(*map(np.concatenate, zip(*self._parts, strict=True)))
        before = self._average_precision(whole, self._objects)
        # Once something is mended, TIDE puts the true ones last; that decides between equal scores.
        whole = whole.of(np.argsort(whole.is_true, kind="stable"))

        def gain(found: _Detections, objects: np.ndarray) -> float:
            return self._average_precision(found, objects) - before

        summaries = {}
        for place, name in enumerate(TYPES):
            count = int((whole.types == place).sum())
            # Below 0 it comes from the steps of the recall.
            change = max(gain(_mend(whole, place), self._objects), 0.0)
            summaries[name] = ErrorSummary(count, change)
        change = max(gain(whole, self._objects - self._missed), 0.0)
        summaries["Miss"] = ErrorSummary(int(self._missed.sum()), change)

        false = int((~whole.is_true & ~whole.is_ignored).sum())
        sure = whole._replace(scores=whole.is_true.astype(float))
        summaries["FalsePos"] = ErrorSummary(false, gain(sure, self._objects))
        unfound = int((self._objects - self._found).sum())
        summaries["FalseNeg"] = ErrorSummary(unfound, gain(whole, self._found))
        return summaries

    def _count(self, kinds: np.ndarray) -> np.ndarray:
        return np.bincount(kinds, minlength=self._classes)

    def _average_precision(self, found: _Detections, objects: np.ndarray) -> float:
        """In percent, the mean over the classes that have objects or detections."""
        found = found.of(~found.is_ignored)
        order = np.lexsort((-found.scores, found.kinds))
        kinds, is_true = found.kinds[order], found.is_true[order]
        ends = np.searchsorted(kinds, np.arange(self._classes + 1))
        values = [
            _average_precision(is_true[ends[kind] : ends[kind + 1]], objects[kind])
            for kind in range(self._classes)
            if objects[kind] or ends[kind] < ends[kind + 1]
        ]
        return 100 * float(np.mean(values)) if values else 0.0


def _mend(found: _Detections, kind: int) -> _Detections:
    """The detections once the errors of a type are mended: true, or gone."""
    found = found.of((found.types != kind) | (found.mended_kinds >= 0))
    is_kind = found.types == kind
    return found._replace(
        kinds=np.where(is_kind, found.mended_kinds, found.kinds),
        is_true=found.is_true | is_kind,
        is_ignored=found.is_ignored & ~is_kind,
    )


def _average_precision(true: np.ndarray, objects: int) -> float:
    """0 to 1, of a class's detections in the order of their scores."""
    if not objects or not len(true):
        return 0.0
    hits = np.cumsum(true)
    precision = hits / np.arange(1, len(true) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / objects, _RECALLS, side="left")
    return float(precision[places[places < len(true)]].sum()) / len(_RECALLS)
