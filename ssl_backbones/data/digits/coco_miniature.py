"""COCO in miniature: instances with polygons and crowds, and people with key points.

A digit's key points have the names that COCO gives a person's. A nose is where the strokes begin, at the
top and from the left. Below it, at eight heights from top to bottom, the outermost strokes are a person's
eyes, ears, shoulders, elbows, wrists, hips, knees and ankles: who faces us has the right one on the left, so
that a mirrored picture has them as Detectron2's flip expects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .digit_scenes import CELLS, Photograph, photographs, pixel_box
from .polygons import coco_annotations

SPLITS = {"train": "train2017", "test": "val2017"}
SCENES = {"train": 6, "test": 7}  # of the seed: other scenes than those of the other datasets

CROWD_EVERY = 4
"""In one picture of so many, the last digit that was written stands for a crowd."""

PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = ("nose", *(f"{side}_{part}" for part in PAIRS for side in ("left", "right")))
"""COCO's order, which `detectron2.data.datasets.builtin_meta` has as well."""

SKELETON = [
    [16, 14],
    [14, 12],
    [17, 15],
    [15, 13],
    [12, 13],
    [6, 12],
    [7, 13],
    [6, 7],
    [6, 8],
    [7, 9],
    [8, 10],
    [9, 11],
    [2, 3],
    [1, 2],
    [1, 3],
    [2, 4],
    [3, 5],
    [4, 6],
    [5, 7],
]
"""The lines that COCO draws between key points, counted from 1."""

NOT_LABELLED, HIDDEN, VISIBLE = 0, 1, 2


def write_coco(folder: Path, info: dict[str, int], on_scene: Callable[[], None]) -> None:
    """Fill `folder`: {train,val}2017/*.jpg and annotations/{instances,person_keypoints}_{train,val}2017.json.

    Digits have the first ten of COCO's 80 categories, from 0, a person, to 9, a traffic light; for the key
    points, of which COCO knows a person's alone, each is a person.
    """
    for split, name in SPLITS.items():
        taken = photographs(
            split,
            info[f"num_{split}"],
            size=info["size"],
            seed=(info["seed"], SCENES[split]),
            on_scene=on_scene,
        )
        _write_split(folder, split, name, taken)


def categories() -> list[dict[str, Any]]:
    """COCO's 80, with the ids and names that Detectron2 expects of the files."""
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    return [
        {"supercategory": "digit" if number < 10 else "none", "id": one["id"], "name": one["name"]}
        for number, one in enumerate(filter(lambda one: one["isthing"], COCO_CATEGORIES))
    ]


def _write_split(folder: Path, split: str, name: str, taken: Iterable[Photograph]) -> None:
    from PIL import Image

    (folder / name).mkdir()
    images: list[dict] = []
    instances: list[dict] = []
    people: list[dict] = []
    for index, photograph in enumerate(taken):
        # Ids are COCO's in this: neither dense nor the place in the file, and no image of both splits has
        # the same one.
        image_id = 9 + 16 * index + list(SPLITS).index(split)
        file_name = f"{image_id:012d}.jpg"
        image = Image.fromarray(photograph.scene.image)
        image.save(folder / name / file_name, quality=95, subsampling=0)
        size = {"height": photograph.height, "width": photograph.width}
        images.append({"license": 1, "file_name": file_name, **size, "id": image_id})
        found = _annotations(photograph, image_id, 1 + len(instances), index)
        instances += found
        people += _people(photograph, found)
    person = {"supercategory": "person", "id": 1, "name": "person"}
    person |= {"keypoints": list(NAMES), "skeleton": SKELETON}
    for kind, objects, known in (
        ("instances", instances, categories()),
        ("person_keypoints", people, [person]),
    ):
        content = {
            "info": {"description": "COCO in miniature, of handwritten digits", "year": 2017},
            "licenses": [{"id": 1, "name": "that of scikit-learn's data", "url": ""}],
            "images": images,
            "annotations": objects,
            "categories": known,
        }
        path = folder / "annotations" / f"{kind}_{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def _annotations(
    photograph: Photograph, image_id: int, first_id: int, index: int
) -> list[dict[str, Any]]:
    annotations = coco_annotations(photograph.scene, image_id, first_id)
    if index % CROWD_EVERY == 1 and len(annotations) > 1:
        annotations[-1] = _as_crowd(annotations[-1], photograph)
    return annotations


def _as_crowd(annotation: dict[str, Any], photograph: Photograph) -> dict[str, Any]:
    """COCO's crowds have run lengths, uncompressed, and a box of whole pixels."""
    from pycocotools import mask as coco_mask

    height, width = photograph.height, photograph.width
    parts = coco_mask.frPyObjects(annotation["segmentation"], height, width)
    pixels = coco_mask.decode(coco_mask.merge(parts)).ravel(order="F")
    turns = np.flatnonzero(np.diff(np.r_[0, pixels]))
    counts = np.diff(np.r_[0, turns, len(pixels)]).tolist()
    left, top, right, bottom = pixel_box(photograph.scene.masks[-1])
    return annotation | {
        "segmentation": {"counts": counts, "size": [height, width]},
        "bbox": [left, top, right - left, bottom - top],
        "area": int(pixels.sum()),
        "iscrowd": 1,
    }


def _people(photograph: Photograph, annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same objects as people; of a crowd no key point is labelled."""
    people = []
    for number, annotation in enumerate(annotations):
        masks = list(photograph.scene.masks)
        values = (
            [0] * 3 * len(NAMES) if annotation["iscrowd"] else keypoints(masks.pop(number), masks)
        )
        labelled = sum(visibility != NOT_LABELLED for visibility in values[2::3])
        facts = {"category_id": 1, "keypoints": values, "num_keypoints": labelled}
        people.append(annotation | facts)
    return people


def keypoints(mask: np.ndarray, others: Sequence[np.ndarray]) -> list[int]:
    """COCO's x, y and visibility of each of `NAMES`, in whole pixels as COCO's annotators gave them.

    A point is hidden where another digit touches the strokes, which may go on beneath it, and not labelled
    where there is no stroke at its height.

    Args:
        mask: the digit's visible strokes, boolean (height * CELLS, width * CELLS).
        others: those of the other digits.
    """
    rows = np.flatnonzero(mask.any(1))
    top, bottom = int(rows[0]), int(rows[-1])
    covers = np.logical_or.reduce([np.zeros_like(mask), *others])
    values = _point(covers, top, int(np.flatnonzero(mask[top])[0]), 0)
    for number in range(len(PAIRS)):
        row = top + (bottom - top) * (2 * number + 1) // (2 * len(PAIRS))
        found = np.flatnonzero(mask[row]).tolist()
        if found:
            values += [*_point(covers, row, found[-1], 1), *_point(covers, row, found[0], -1)]
        else:
            values += [0, 0, NOT_LABELLED] * 2
    return values


def _point(covers: np.ndarray, row: int, column: int, side: int) -> list[int]:
    """`side` is the direction away from the strokes along the row; 0 is upwards."""
    beyond = (row, column + side) if side else (row - 1, column)
    inside = all(0 <= place < extent for place, extent in zip(beyond, covers.shape, strict=True))
    hidden = inside and covers[beyond]
    return [column // CELLS, row // CELLS, HIDDEN if hidden else VISIBLE]
