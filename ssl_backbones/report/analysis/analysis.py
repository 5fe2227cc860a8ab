"""All that a report says of the detections of one run in one task."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from ...fast.evaluation.coco_eval import FastCOCOeval
from .confusion import confusion_matrix
from .error_types import summarize_errors
from .findings import STATISTICS, ClassRow, TaskAnalysis
from .image_scores import image_outcome
from .outcomes import Outcomes, evaluated, outcomes_of
from .scenes import Scene, scenes


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
