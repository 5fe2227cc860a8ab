"""The boxes, classes and polygons of an image, transformed together instead of instance by instance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data.detection_utils import filter_empty_instances
from detectron2.data.transforms import TransformList
from detectron2.structures import Boxes, BoxMode, Instances, PolygonMasks

EMPTY = 1e-5
"""Width or height in pixels up to which Detectron2 takes a box for empty."""


class UnusualAnnotationError(ValueError):
    """Annotations that only Detectron2's own functions can transform, or refuse in their own words."""


def transform_instances(
    annotations: Sequence[Mapping[str, Any]],
    transforms: TransformList,
    image_size: tuple[int, int],
    *,
    masks: bool,
    recompute_boxes: bool = False,
) -> Instances:
    """Make what Detectron2's `transform_instance_annotations` and `annotations_to_instances` make of them.

    Empty instances are filtered out, as by `filter_empty_instances`. The results are equal to the last bit.

    Args:
        annotations: of instances that are no crowds, in Detectron2's dataset format; they stay as they are.
        transforms: those that change a coordinate alike wherever it stands, such as resizing and flipping.
        image_size: the height and width of the transformed image.
        masks: whether polygons are wanted.
        recompute_boxes: whether boxes are those of the polygons.

    Raises:
        UnusualAnnotationError: masks that are no polygons, boxes that are not lists of four numbers and the
            like; nothing was changed.
        OverflowError: whole numbers beyond 64 bits.
    """
    height, width = image_size
    boxes = _transform_boxes(annotations, transforms)
    boxes = np.minimum(boxes.clip(min=0), [width, height, width, height])
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.tensor(
        [int(annotation["category_id"]) for annotation in annotations], dtype=torch.int64
    )
    polygons: list[list[np.ndarray]] = []
    if masks and _have_masks(annotations):
        polygons = _transform_polygons([a["segmentation"] for a in annotations], transforms)
        instances.gt_masks = PolygonMasks(polygons)
    if recompute_boxes:
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    # Filtering copies everything, though there is hardly ever anything to leave out.
    nonempty = instances.gt_boxes.nonempty(threshold=EMPTY).all() and all(polygons)
    return instances if nonempty else filter_empty_instances(instances, box_threshold=EMPTY)


def _transform_boxes(
    annotations: Sequence[Mapping[str, Any]], transforms: TransformList
) -> np.ndarray:
    """Boxes (N, 4) as x0, y0, x1, y1. Those of whole numbers stay such, since Detectron2 truncates them."""
    boxes = np.zeros((len(annotations), 4))
    groups: dict[tuple[bool, int], list[int]] = {}
    for index, annotation in enumerate(annotations):
        box, mode = annotation["bbox"], annotation["bbox_mode"]
        if (
            type(box) is not list
            or len(box) != 4
            or mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        ):
            raise UnusualAnnotationError("a box that is not a list of four, or of another mode")
        kinds = {type(number) for number in box}
        if not kinds <= {int, float}:
            raise UnusualAnnotationError("a box that is not of Python's numbers")
        groups.setdefault((kinds == {int}, mode), []).append(index)
    for (whole, mode), indexes in groups.items():
        group = [annotations[index]["bbox"] for index in indexes]
        if mode == BoxMode.XYXY_ABS:
            corners = np.array(group, np.int64 if whole else np.float64)
        else:
            # What is not whole goes through float32, as in BoxMode.convert.
            corners = np.array(group, np.int64 if whole else np.float32)
            corners[:, 2:] += corners[:, :2]
            corners = corners if whole else corners.astype(np.float64)
        boxes[indexes] = transforms.apply_box(corners)
    return boxes


def _have_masks(annotations: Sequence[Mapping[str, Any]]) -> bool:
    have = {"segmentation" in annotation for annotation in annotations}
    if len(have) > 1:
        raise UnusualAnnotationError("masks for some instances only")
    return have == {True}


def _transform_polygons(
    instances: Iterable[Any], transforms: TransformList
) -> list[list[np.ndarray]]:
    """Polygons x0, y0, x1, ... of each instance, float64, all points transformed at once."""
    arrays, counts = [], []
    for polygons in instances:
        if type(polygons) is not list:
            raise UnusualAnnotationError("a mask that is not a list of polygons")
        arrays.extend(np.asarray(polygon) for polygon in polygons)
        counts.append(len(polygons))
    # Polygons of whole numbers stay such, since Detectron2 truncates them.
    transformed: list[np.ndarray] = [np.empty(0)] * len(arrays)
    for dtype in {array.dtype for array in arrays}:
        if dtype not in (np.float64, np.int64):
            raise UnusualAnnotationError(f"polygons of {dtype}")
        indexes = [index for index, array in enumerate(arrays) if array.dtype == dtype]
        lengths = [arrays[index].size for index in indexes]
        if any(length % 2 or length < 6 for length in lengths):
            raise UnusualAnnotationError("a polygon of less than three points")
        points = np.concatenate([arrays[index].reshape(-1) for index in indexes]).reshape(-1, 2)
        flat = transforms.apply_coords(points).reshape(-1)
        stops = list(itertools.accumulate(lengths))
        for index, start, stop in zip(indexes, [0, *stops], stops, strict=False):
            transformed[index] = flat[start:stop]
    parts = iter(transformed)
    return [list(itertools.islice(parts, count)) for count in counts]
