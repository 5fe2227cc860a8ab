"""What an evaluation compares, column by column and in the order in which pycocotools compares it."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO

from .annotated import GroundTruth
from .detections import Detections, Irregular, Strings


class Columns(NamedTuple):
    """Detections for one kind of IoU; the area is NaN where it is that of the mask."""

    image_ids: list
    category_ids: list
    scores: np.ndarray
    areas: np.ndarray
    shapes: np.ndarray | Strings


def columns_of(found: Detections | None, coco: COCO, is_boxes: bool) -> Columns:
    """The columns of `found`, or of what `loadRes` made of a list of results.

    Raises:
        Irregular: there are none of that kind, or they are not as pycocotools usually makes them.
    """
    if found is None:
        return _of_coco(coco, is_boxes)
    if is_boxes and found.boxes is not None:
        shapes, areas = found.boxes, found.boxes[:, 2] * found.boxes[:, 3]
    elif not is_boxes and found.masks is not None:
        shapes, areas = found.masks, np.full(len(found.scores), np.nan)
    else:
        raise Irregular("there are no boxes, or no masks")
    return _checked(
        Columns(found.image_ids, found.category_ids.tolist(), found.scores, areas, shapes)
    )


def _of_coco(coco: COCO, is_boxes: bool) -> Columns:
    annotations = coco.dataset["annotations"]
    try:
        if len(coco.anns) != len(annotations) or min(coco.anns, default=1) <= 0:
            raise Irregular("ids are there twice, or not above 0")
        if is_boxes:
            boxes = [one["bbox"] for one in annotations]
            shapes = np.array(boxes, np.float64).reshape(len(annotations), 4)
        else:
            shapes = Strings.pack([coco.annToRLE(one) for one in annotations])
        image_ids, category_ids, scores, areas = (
            [one[name] for one in annotations]
            for name in ("image_id", "category_id", "score", "area")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Irregular(str(error)) from error
    return _checked(
        Columns(
            image_ids,
            category_ids,
            np.array(scores, np.float64),
            np.array(areas, np.float64),
            shapes,
        )
    )


def _checked(found: Columns) -> Columns:
    if isinstance(found.shapes, np.ndarray) and not np.isfinite(found.shapes).all():
        raise Irregular("a box is not finite")
    return found


class Order:
    """What belongs together: detections by class and score, and the groups of a class in an image.

    Attributes:
        found: indices of the detections that count, by class, then score, then image.
        ranks: of these, within class and image.
        starts: of the classes among these.
        truth: indices of the objects, by class and image.
        groups: as in matching_kernels.py.
    """

    def __init__(
        self,
        found: Columns,
        truth: GroundTruth,
        images: list,
        classes: list,
        by_class: bool,
        limit: int,
    ):
        index_of_image = {image: index for index, image in enumerate(images)}
        index_of_class = {kind: index for index, kind in enumerate(classes)}
        self._classes = len(classes) if by_class else 1

        def located(things: Columns | GroundTruth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Of each thing its image and its class; and which ones count, by class and image."""
            image = _indices(things.image_ids, index_of_image)
            kind = _indices(things.category_ids, index_of_class)
            order = np.flatnonzero((image >= 0) & (kind >= 0))
            order = order[_stable(kind[order])]
            if not by_class:
                kind = np.zeros_like(kind)
            return image, kind, order[_stable(image[order])]

        image, kind, order = located(found)
        # Of equal scores, the earlier image's comes first, as in pycocotools.
        order = order[np.argsort(-found.scores[order], kind="stable")]
        order = order[_stable(kind[order])]
        members = _stable(image[order])
        members = members[_stable(kind[order][members])]
        keys = (kind[order] * len(images) + image[order])[members]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        ranks = np.empty(len(order), np.int64)
        ranks[members] = np.arange(len(order)) - np.repeat(
            starts, np.diff(starts, append=len(order))
        )
        kept = ranks < limit
        in_group = kept[members]
        members = (np.cumsum(kept) - 1)[members[in_group]]
        keys = keys[in_group]
        self.found, self.ranks = order[kept], ranks[kept]
        self.starts = np.searchsorted(kind[self.found], np.arange(self._classes + 1))

        image, kind, order = located(truth)
        self.truth = order[_stable(kind[order])]
        self._kind = kind[self.truth]
        truth_keys = self._kind * len(images) + image[self.truth]
        groups = np.union1d(keys, truth_keys)
        self.groups = (
            np.append(np.searchsorted(keys, groups), len(keys)),
            members,
            np.append(np.searchsorted(truth_keys, groups), len(truth_keys)),
        )

    def count(self, chosen: np.ndarray) -> np.ndarray:
        """How many objects of each class are chosen (ranges x N): classes x ranges."""
        return np.stack(
            [np.bincount(self._kind[row], minlength=self._classes) for row in chosen], axis=1
        )


def _indices(ids: list, index: dict) -> np.ndarray:
    """-1 for an id that is not asked for."""
    return np.fromiter(map(index.get, ids, itertools.repeat(-1)), np.int64, len(ids))


def _stable(keys: np.ndarray) -> np.ndarray:
    """The order of keys from 0 on, equal ones as they are."""
    # NumPy sorts small integers by their digits, in a fraction of the time.
    small = keys.size == 0 or keys.max() < 1 << 16
    return np.argsort(keys.astype(np.uint16) if small else keys, kind="stable")
