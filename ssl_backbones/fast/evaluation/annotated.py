"""The annotated objects of a COCO dataset in flat arrays, packed once and evaluated against many times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO

from .detections import Irregular, Strings


class Runs(NamedTuple):
    """Masks as runs of ones.

    Attributes:
        starts, ends: of all runs, in pixels counted down the columns.
        spans: N x 2, where the runs of each mask begin and end.
        boxes: N x 4 (x, y, width, height), integers.
        pixels: number of each mask's ones.
        sizes: N x 2, height and width of each mask's image.
    """

    starts: np.ndarray
    ends: np.ndarray
    spans: np.ndarray
    boxes: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray

    def of(self, indices: np.ndarray) -> Runs:
        """The masks `indices`, in this order."""
        chosen = (column[indices] for column in self[2:])
        return Runs(self.starts, self.ends, *chosen)


class GroundTruth:
    """What an evaluation needs of `coco`; masks are encoded by pycocotools when they are first asked for.

    Attributes:
        image_ids, category_ids: of the N objects.
        areas: in pixels, as annotated.
        crowd: whether an object stands for many.
        has_id: whether an object's id is another than 0, which pycocotools takes for none.

    Raises:
        Irregular: annotations are not as COCO's.
    """

    def __init__(self, coco: COCO):
        annotations = coco.dataset["annotations"]
        if len(coco.anns) != len(annotations):
            raise Irregular("several objects have the same id")
        try:
            self.image_ids = [found["image_id"] for found in annotations]
            self.category_ids = [found["category_id"] for found in annotations]
            areas = np.array([found["area"] for found in annotations])
            crowd = np.array([found["iscrowd"] for found in annotations])
            ids = np.array([found["id"] for found in annotations])
        except (KeyError, ValueError) as error:
            raise Irregular(str(error)) from error
        if len(annotations) and (ids.dtype.kind != "i" or areas.dtype.kind not in "fi"):
            raise Irregular("ids are no integers, or areas no numbers")
        if not np.isin(crowd, (0, 1)).all():
            raise Irregular("iscrowd is neither 0 nor 1")
        self.areas, self.crowd = areas.astype(np.float64), crowd.astype(bool)
        self.has_id = ids != 0
        self._boxes: np.ndarray | None = None
        self._masks: Runs | None = None

    def boxes(self, coco: COCO) -> np.ndarray:
        """N x 4: x, y, width, height in pixels."""
        if self._boxes is None:
            try:
                boxes = np.array([one["bbox"] for one in coco.dataset["annotations"]], np.float64)
                boxes = boxes.reshape(len(self.areas), 4)
            except (KeyError, TypeError, ValueError) as error:
                raise Irregular(str(error)) from error
            if not np.isfinite(boxes).all():
                raise Irregular("a box is not finite")
            self._boxes = boxes
        return self._boxes

    def masks(self, coco: COCO) -> Runs:
        """The masks of all objects."""
        if self._masks is None:
            from .matching_kernels import decode

            try:
                rles = [coco.annToRLE(one) for one in coco.dataset["annotations"]]
            except Exception as error:
                # pycocotools has no errors of its own. It meets this one again, and says what it always says.
                raise Irregular(str(error)) from error
            strings = Strings.pack(rles)
            *runs, is_regular = decode(*strings)
            if not is_regular:
                raise Irregular("the RLE of an object has empty runs")
            self._masks = Runs(*runs, strings.sizes)
        return self._masks
