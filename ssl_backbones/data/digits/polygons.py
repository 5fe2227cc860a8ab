"""Masks as the polygons that COCO's JSON and Detectron2's mapper take by default."""

from __future__ import annotations

import cv2
import numpy as np

from .digit_scenes import CELLS, Scene

TOLERANCE = 0.75  # cells of the mask by which a polygon may cut a corner


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """COCO's annotations: polygons, their area as COCO rasterises them, and the box around them."""
    from pycocotools import mask as coco_mask

    annotations = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        polygons = mask_to_polygons(mask, CELLS)
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        low, high = points.min(0), points.max(0)
        raster = coco_mask.merge(coco_mask.frPyObjects(polygons, *scene.image.shape[:2]))
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": label + 1,  # COCO counts categories from 1
                "segmentation": polygons,
                "area": float(coco_mask.area(raster)),
                "bbox": np.round([*low, *(high - low)], 3).tolist(),
                "iscrowd": 0,
            }
        )
    return annotations


def mask_to_polygons(mask: np.ndarray, scale: int = 1) -> list[list[float]]:
    """Outline a mask by polygons whose rasterisation is the mask again.

    COCO's polygons know no holes: their union is the object. A hole is therefore joined to its outline by
    a bridge of no width, walked once each way, which the even-odd rule of COCO's rasteriser cancels.

    Args:
        mask: boolean (H, W). Taken finer than the image, it keeps the outline within a fraction of a pixel
            of the true one.
        scale: cells of the mask in a pixel of the image, along each axis.

    Returns:
        One flat list [x0, y0, x1, y1, ...] for each connected part, in pixels of the image, whose pixel
        (0, 0) covers [0, 1) x [0, 1).
    """
    # findContours walks through cells' centres, half a cell inside the edge. Grown by one cell to the right
    # and downwards, a mask has its centres where the corners of the original's outermost cells were.
    grown = np.pad(mask.astype(np.uint8), ((0, 1), (0, 1)))
    grown = cv2.dilate(grown, np.ones((2, 2), np.uint8), anchor=(1, 1))
    contours, hierarchy = cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for index, contour in enumerate(contours):
        is_hole = hierarchy[0, index, 3] >= 0
        if is_hole:
            continue
        outline = _simplify(contour)
        hole = hierarchy[0, index, 2]
        while hole >= 0:
            outline = _bridge(outline, _simplify(contours[hole]))
            hole = hierarchy[0, hole, 0]
        polygons.append(np.round(outline / scale, 3).ravel().tolist())
    return polygons


def _simplify(contour: np.ndarray) -> np.ndarray:
    """A contour's corners (N, 2); all its points where fewer than three corners would remain."""
    corners = cv2.approxPolyDP(contour, TOLERANCE, closed=True)
    return (corners if len(corners) >= 3 else contour)[:, 0]


def _bridge(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole (M, 2) to an outline (N, 2) between their nearest points: (N + M + 2, 2)."""
    distance = np.square(outline[:, None] - hole[None]).sum(-1)
    start, entry = np.unravel_index(distance.argmin(), distance.shape)
    walk_round_hole = np.concatenate([hole[entry:], hole[: entry + 1]])
    return np.concatenate([outline[: start + 1], walk_round_hole, outline[start:]])
