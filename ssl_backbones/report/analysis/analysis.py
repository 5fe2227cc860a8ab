"""All that a report says of the detections of one run in one task."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from ...fast.evaluation.coco_eval import FastCOCOeval
from .error_types import TYPES, find_scene_errors, summarize_errors
from .findings import ERROR_TYPES, STATISTICS, ClassRow, ImageOutcome, TaskAnalysis
from .outcomes import Outcomes, evaluated, outcomes_of
from .scenes import MATCH, Scene, scenes


def examine(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    task: str,
    *,
    min_score: float,
    class_names: Mapping[int, str],
    image_ids: Sequence[Any] | None = None,
) -> tuple[Outcomes, TaskAnalysis]:
    """AP by size and class, precision over recall, errors, confusion, and how each image came out.

    The outcomes, for `bootstrap`, are of the same evaluation.

    Args:
        truth: the annotations.
        results: COCO results; [] for a detector that found nothing.
        task: "bbox" or "segm".
        min_score: of the detections that are shown. What is of these, and not of all, `TaskAnalysis` says.
        class_names: COCO's category id -> name; a class without one is called by its id.
        image_ids: the images that were evaluated; None for all of `truth`.

    Raises:
        InputError: as `check_results`.
    """
    evaluation = evaluated(truth, results, task, image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    outcomes = outcomes_of(evaluation, results)
    names = [class_names.get(kind, str(kind)) for kind in outcomes.category_ids]
    images = outcomes.image_ids
    whole = list(scenes(truth, results, task, images, outcomes.category_ids))
    shown = [scene.shown(min_score) for scene in whole]
    # Thresholds x recalls x classes: of all sizes, with 100 detections an image.
    precision = evaluation.eval["precision"][..., 0, -1]
    return outcomes, TaskAnalysis(
        recalls=evaluation.params.recThrs.tolist(),
        precision=_precision_by_threshold(precision, evaluation.params.iouThrs),
        by_size=_by_size(evaluation),
        classes=_class_rows(precision, outcomes, shown, names),
        errors=summarize_errors(whole, len(names)),
        confusion=confusion_matrix(shown, len(names)).tolist(),
        class_names=names,
        images=[image_outcome(scene, images[scene.image], names) for scene in shown],
        counts=_counts(truth, outcomes, whole, shown),
    )


def _by_size(evaluation: FastCOCOeval) -> dict[str, float | None]:
    values = evaluation.stats[: len(STATISTICS)].tolist()
    return {
        name: None if value == -1 else 100 * value
        for name, value in zip(STATISTICS, values, strict=True)
    }


def _precision_by_threshold(
    precision: np.ndarray, thresholds: np.ndarray
) -> dict[float, list[float]]:
    """{} where there is no object to find."""
    has_objects = precision[0, 0] > -1
    if not has_objects.any():
        return {}
    means = precision[:, :, has_objects].mean(axis=2)
    return {round(float(t), 2): row.tolist() for t, row in zip(thresholds, means, strict=True)}


def _class_rows(
    precision: np.ndarray, outcomes: Outcomes, shown: Iterable[Scene], names: Sequence[str]
) -> list[ClassRow]:
    objects = outcomes.objects.sum(axis=1)
    detections = sum(
        (np.bincount(scene.kinds, minlength=len(names)) for scene in shown),
        start=np.zeros(len(names), np.int64),
    )
    rows = []
    for place, name in enumerate(names):
        has_objects = objects[place] > 0
        own = precision[:, :, place]
        rows.append(
            ClassRow(
                name,
                int(objects[place]),
                int(detections[place]),
                100 * float(own.ravel().mean()) if has_objects else None,
                100 * float(own[0].mean()) if has_objects else None,
            )
        )
    return rows


def _counts(
    truth: COCO, outcomes: Outcomes, whole: Sequence[Scene], shown: Sequence[Scene]
) -> dict[str, int]:
    per_image = outcomes.objects.sum(axis=0)
    annotated = sum(len(truth.imgToAnns[image]) for image in outcomes.image_ids)
    return {
        "images": len(outcomes.image_ids),
        "images without objects": int((per_image == 0).sum()),
        "objects": int(per_image.sum()),
        "crowds": annotated - sum(len(scene.objects) for scene in whole),
        "detections": sum(len(scene.results) for scene in whole),
        "detections shown": sum(len(scene.results) for scene in shown),
    }


def confusion_matrix(images: Iterable[Scene], classes: int) -> np.ndarray:
    """(classes + 1) x (classes + 1) numbers: rows are what is there, columns what was found.

    The last row is detections where nothing is, the last column objects that nothing found. Objects and
    detections are paired whatever their classes, the pair with the highest IoU first, from 0.5 on. What lies
    unpaired in a crowd of its class is left out.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for scene in images:
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


def image_outcome(scene: Scene, image_id: Any, class_names: Sequence[str]) -> ImageOutcome:
    """What the detections of `scene` come to: F1 at IoU 0.5, and the errors that a picture of it shows.

    Detections are matched with objects of their class, best score first. What lies unmatched in a crowd of
    its class does not count. The mean IoU is that of the matches, 0 without any.

    Args:
        scene: with the detections that are shown.
    """
    errors = find_scene_errors(scene)
    is_true = errors.matches >= 0
    true = int(is_true.sum())
    counted = is_true | ~scene.in_crowd
    shown = int(counted.sum()) + len(scene.objects)
    overlaps = scene.ious[is_true, errors.matches[is_true]]
    kinds = np.union1d(scene.kinds, scene.object_kinds)
    types = {TYPES[kind] for kind in errors.types[counted & ~is_true].tolist()}
    types |= {"Miss"} if errors.missed.any() else set()
    return ImageOutcome(
        image_id=image_id,
        score=2 * true / shown if shown else None,
        mean_iou=float(overlaps.mean()) if true else 0.0,
        classes=tuple(class_names[kind] for kind in kinds.tolist()),
        errors=tuple(name for name in ERROR_TYPES if name in types),
    )
