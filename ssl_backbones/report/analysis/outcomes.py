"""What became of each detection of a run, image by image."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO

from ...fast.evaluation.coco_eval import FastCOCOeval
from ...fast.evaluation.detections import Detections, Irregular
from .results import check_results


class Outcomes(NamedTuple):
    """The N detections of a run that count, by class and then in the order of their scores.

    Attributes:
        codes: N x 10 IoU thresholds, int8: FALSE, TRUE or IGNORED of coco_eval.py.
        scores: N.
        results: N, the place of each detection in the list of results.
        images: N, the place of each detection's image in `image_ids`.
        starts: where the detections of each class begin, and the end.
        objects: classes x images, how many are to be found.
        image_ids, category_ids: in increasing order.
    """

    codes: np.ndarray
    scores: np.ndarray
    results: np.ndarray
    images: np.ndarray
    starts: np.ndarray
    objects: np.ndarray
    image_ids: Sequence[Any]
    category_ids: Sequence[int]


def find_outcomes(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    task: str,
    image_ids: Sequence[Any] | None = None,
) -> Outcomes:
    """Match detections with objects as COCO's evaluation does: all sizes, at most 100 an image and class.

    Args:
        results: COCO results; [] for a detector that found nothing.
        task: "bbox" or "segm".
        image_ids: the images that were evaluated; None for all of `truth`.

    Raises:
        InputError: as `check_results`.
    """
    return outcomes_of(evaluated(truth, results, task, image_ids), results)


def evaluated(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    task: str,
    image_ids: Sequence[Any] | None = None,
) -> FastCOCOeval:
    """COCO's evaluation after `evaluate`, of the same arguments as `find_outcomes`.

    Raises:
        InputError: as `check_results`.
    """
    check_results(truth, results, task)
    # pycocotools says what it does on standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = FastCOCOeval(truth, _loaded(truth, results, task), task)
        if image_ids is not None:
            evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
    return evaluation


def outcomes_of(evaluation: FastCOCOeval, results: Sequence[Mapping[str, Any]]) -> Outcomes:
    """The outcomes in `evaluation`, which is of `results`."""
    params = evaluation.params
    # pycocotools leaves scalars of NumPy, which JSON does not take.
    image_ids, category_ids = np.array(params.imgIds).tolist(), np.array(params.catIds).tolist()
    index_of_image = {image: place for place, image in enumerate(image_ids)}
    index_of_class = {kind: place for place, kind in enumerate(category_ids)}
    images = _indices(results, "image_id", index_of_image)
    kinds = _indices(results, "category_id", index_of_class)
    scores = np.array([found["score"] for found in results], np.float64)
    order = _order(images, kinds, scores, params.maxDets[-1])
    return Outcomes(
        evaluation.codes()[order],
        scores[order],
        order,
        images[order],
        np.searchsorted(kinds[order], np.arange(len(category_ids) + 1)),
        _count_objects(evaluation, index_of_image, index_of_class),
        image_ids,
        category_ids,
    )


def _loaded(truth: COCO, results: Sequence[Mapping[str, Any]], task: str) -> Detections | COCO:
    """`results` as Detectron2 has them evaluated: of a mask it is the mask's size that counts."""
    if not results:
        # `loadRes` looks at the first one.
        nothing = COCO()
        nothing.dataset = {"images": [], "annotations": [], "categories": []}
        nothing.createIndex()
        return nothing
    with contextlib.suppress(Irregular):
        return Detections.pack(results, [task])
    other = "bbox" if task == "segm" else "segmentation"
    return truth.loadRes([{k: v for k, v in found.items() if k != other} for found in results])


def _indices(results: Sequence[Mapping[str, Any]], name: str, index: Mapping) -> np.ndarray:
    """-1 for what is not asked for."""
    return np.array([index.get(found[name], -1) for found in results], np.int64)


def _order(images: np.ndarray, kinds: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """The detections that count, by class, score, image and place, as pycocotools goes through them."""
    places = np.arange(len(scores))
    by_group = np.lexsort((places, -scores, images, kinds))
    starts = np.ones(len(scores), bool)
    starts[1:] = (np.diff(images[by_group]) != 0) | (np.diff(kinds[by_group]) != 0)
    first = np.flatnonzero(starts)
    ranks = np.empty(len(scores), np.int64)
    ranks[by_group] = places - np.repeat(first, np.diff(first, append=len(scores)))
    order = np.lexsort((places, images, -scores, kinds))
    return order[((images >= 0) & (kinds >= 0) & (ranks < limit))[order]]


def _count_objects(
    evaluation: FastCOCOeval, index_of_image: Mapping, index_of_class: Mapping
) -> np.ndarray:
    low, high = evaluation.params.areaRng[0]
    objects = np.zeros((len(index_of_class), len(index_of_image)), np.int32)
    for found in evaluation.cocoGt.dataset["annotations"]:
        image = index_of_image.get(found["image_id"], -1)
        kind = index_of_class.get(found["category_id"], -1)
        is_counted = not found.get("iscrowd") and low <= found["area"] <= high
        if image >= 0 and kind >= 0 and is_counted:
            objects[kind, image] += 1
    return objects
