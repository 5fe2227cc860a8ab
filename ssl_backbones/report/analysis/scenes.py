"""The detections and the objects of each image, of whatever class, and how they overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

MATCH = 0.5
"""IoU from which on a detection has found an object, as in TIDE."""

_LIMIT = 100
"""Detections of an image that count, as in TIDE."""


class Scene(NamedTuple):
    """An image with D detections, best score first, and G objects.

    Attributes:
        image: its place among the images.
        results: D places in the list of results.
        scores: D.
        kinds: D places among the classes.
        objects: G annotation ids; crowds are none.
        object_kinds: G places among the classes.
        ious: D x G.
        in_crowd: D, whether most of it lies in a crowd of its class.
    """

    image: int
    results: np.ndarray
    scores: np.ndarray
    kinds: np.ndarray
    objects: Sequence[Any]
    object_kinds: np.ndarray
    ious: np.ndarray
    in_crowd: np.ndarray

    def shown(self, min_score: float) -> Scene:
        """The same without the detections that score below `min_score`."""
        count = int(np.searchsorted(-self.scores, -min_score, side="right"))
        return self._replace(
            results=self.results[:count],
            scores=self.scores[:count],
            kinds=self.kinds[:count],
            ious=self.ious[:count],
            in_crowd=self.in_crowd[:count],
        )


def scenes(
    truth: COCO,
    results: Sequence[Mapping[str, Any]],
    task: str,
    image_ids: Sequence[Any],
    category_ids: Sequence[int],
) -> Iterator[Scene]:
    """A scene of each image; detections and objects of other classes are left out.

    Args:
        results: COCO results that `check_results` has passed.
        task: "bbox" or "segm".
    """
    index = {kind: place for place, kind in enumerate(category_ids)}
    by_image: dict[Any, list[int]] = {image: [] for image in image_ids}
    for place, found in enumerate(results):
        if found["image_id"] in by_image and found["category_id"] in index:
            by_image[found["image_id"]].append(place)
    shape = "bbox" if task == "bbox" else "segmentation"
    for image, image_id in enumerate(image_ids):
        places = sorted(by_image[image_id], key=lambda place: -results[place]["score"])[:_LIMIT]
        found = [results[place] for place in places]
        annotated = [one for one in truth.imgToAnns[image_id] if one["category_id"] in index]
        objects = [one for one in annotated if not one.get("iscrowd")]
        crowds = [one for one in annotated if one.get("iscrowd")]
        shapes = [one[shape] for one in found]
        kinds = _classes(found, index)
        inside = _ious(truth, shapes, crowds, task, is_crowd=True) > MATCH
        yield Scene(
            image,
            np.array(places, np.int64),
            np.array([one["score"] for one in found], np.float64),
            kinds,
            [one["id"] for one in objects],
            _classes(objects, index),
            _ious(truth, shapes, objects, task, is_crowd=False),
            (inside & (kinds[:, None] == _classes(crowds, index))).any(axis=1),
        )


def _classes(things: Sequence[Mapping[str, Any]], index: Mapping[int, int]) -> np.ndarray:
    return np.array([index[one["category_id"]] for one in things], np.int64)


def _ious(
    truth: COCO, shapes: Sequence, objects: Sequence[Mapping[str, Any]], task: str, is_crowd: bool
) -> np.ndarray:
    """Detections x objects. Of a crowd, it is the share of the detection that lies inside."""
    if not (shapes and objects):
        return np.zeros((len(shapes), len(objects)))
    others = [one["bbox"] if task == "bbox" else truth.annToRLE(one) for one in objects]
    # -1 is pycocotools' word for masks of different sizes.
    return np.maximum(mask_util.iou(shapes, others, [is_crowd] * len(others)), 0)
