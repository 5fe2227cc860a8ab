"""Small annotations and detections with everything in them that COCO's tools treat in a way of its own."""

import contextlib
import copy
import io

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

HEIGHT, WIDTH = 40, 60


def scene(seed, images=6, classes=3):
    """A COCO file and results: crowds, equal scores, several parts, images and classes without anything."""
    random = np.random.default_rng(seed)
    objects, results = [], []
    # The last image has detections only, the first objects only; nothing is of the last class.
    for image in range(1, images + 1):
        boxes = random.uniform(0, (WIDTH - 12, HEIGHT - 12, 30, 30), (random.integers(1, 7), 4))
        kinds = random.integers(1, classes, len(boxes)).tolist()
        if image < images:
            for box, kind in zip(boxes, kinds, strict=True):
                objects.append(_object(random, len(objects) + 1, image, kind, box))
        if image > 1:
            for _ in range(12):
                near = random.integers(len(boxes))
                box = boxes[near] + random.normal(0, 2, 4)
                results.append(_result(random, image, kinds[near], box))
    dataset = {
        "info": {},
        "images": [
            {"id": n, "height": HEIGHT, "width": WIDTH, "file_name": f"{n}.jpg"}
            for n in range(1, images + 1)
        ],
        "annotations": objects,
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)],
    }
    return dataset, results


def coco(dataset):
    with contextlib.redirect_stdout(io.StringIO()):
        made = COCO()
        made.dataset = copy.deepcopy(dataset)
        made.createIndex()
    return made


def _object(random, number, image, kind, box):
    x, y, width, height = box
    polygons = _polygons(x, y, width, height)
    is_crowd = bool(random.random() < 0.2)
    return {
        "id": number,
        "image_id": image,
        "category_id": kind,
        "bbox": [x, y, width, height],
        # Unlike the mask's: it is the annotated area that counts.
        "area": float(random.choice([100, 32**2, 2000, 96**2 + 1])),
        "iscrowd": int(is_crowd),
        "segmentation": _uncompressed(polygons) if is_crowd else polygons,
    }


def _result(random, image, kind, box):
    x, y = box[:2].clip(0, (WIDTH - 3, HEIGHT - 3))
    width, height = box[2:].clip(1)
    rle = mask_util.merge(mask_util.frPyObjects(_polygons(x, y, width, height), HEIGHT, WIDTH))
    return {
        "image_id": image,
        "category_id": kind,
        "bbox": [float(x), float(y), float(width), float(height)],
        # So few levels that many are equal.
        "score": float(random.integers(1, 8)) / 8,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()},
    }


def _polygons(x, y, width, height):
    """A step: the left half of the box, and the upper half of its right half."""
    return [
        _rectangle(x, y, width / 2, height),
        _rectangle(x + width / 2, y, width / 2, height / 2),
    ]


def _rectangle(x, y, width, height):
    corners = (x, y, x + width, y, x + width, y + height, x, y + height)
    return [float(value) for value in corners]


def _uncompressed(polygons):
    rle = mask_util.merge(mask_util.frPyObjects(polygons, HEIGHT, WIDTH))
    flat = mask_util.decode(rle).ravel(order="F")
    turns = np.flatnonzero(np.diff(np.r_[0, flat]))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff(np.r_[0, turns, len(flat)]).tolist()}
