"""VOC and COCO in miniature, in their own formats, where Detectron2 looks for the large ones.

So real readers, evaluators and protocols run unchanged on pictures that are made in seconds: those of
`digit_scenes`, of other scenes than the digits dataset. Which scene stands where depends on
the seed and its place alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from ...errors import InputError
from ...files import write_folder
from .digit_scenes import CELLS, Photograph, Scene, coco_annotations, photographs, pixel_box
from .digits_dataset import check_arguments, describe

FORMATS = {"voc": ("VOC2007", "VOC2012"), "coco": ("coco",)}
"""What can be written, and the folders that it takes below $DETECTRON2_DATASETS."""

MARK = "miniature.json"
"""The file that tells a miniature from the real dataset: the arguments that it was made with."""


def write_miniatures(
    root: str | os.PathLike,
    formats: Sequence[str] = tuple(FORMATS),
    *,
    num_train: int,
    num_test: int,
    size: int,
    seed: int,
    on_scene: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write VOC2007 and VOC2012, or coco, or all of them into `root`; the same arguments give the same bytes.

    Each folder appears whole or not at all, and takes the place of a miniature that was there before.

    Args:
        num_train: pictures to train on, of each year of VOC and of COCO.
        num_test: pictures to test on, of VOC2007 and of COCO.
        on_scene: called after each of `count_scenes`, for a progress bar.

    Returns:
        The folders.

    Raises:
        InputError: a bad size or number, a folder that cannot be written, or one that holds something else,
            such as the real dataset.
    """
    info = {"num_train": num_train, "num_test": num_test, "size": size, "seed": seed}
    check_arguments(info)
    folders = [Path(root) / name for format_ in formats for name in FORMATS[format_]]
    for folder in folders:
        _refuse_what_is_not_ours(folder)
    for folder in folders:

        def fill(made: Path, name: str = folder.name) -> None:
            if name == "coco":
                write_coco(made, info, on_scene)
            else:
                write_voc(made, name.removeprefix("VOC"), info, on_scene)
            (made / MARK).write_text(json.dumps(describe(**info)))

        write_folder(folder, fill)
    return folders


def count_scenes(formats: Sequence[str], num_train: int, num_test: int) -> int:
    """How many pictures `write_miniatures` makes."""
    per_format = {"voc": 2 * num_train + num_test, "coco": num_train + num_test}
    return sum(per_format[format_] for format_ in formats)


def read_mark(folder: str | os.PathLike) -> dict | None:
    """The arguments that the miniature in `folder` was made with; None if there is none."""
    try:
        return json.loads((Path(folder) / MARK).read_text())
    except (OSError, ValueError):
        return None


def _refuse_what_is_not_ours(folder: Path) -> None:
    if folder.exists() and not (
        folder.is_dir() and (not any(folder.iterdir()) or read_mark(folder))
    ):
        raise InputError(
            f"{folder} holds something else than a miniature, perhaps the real dataset: give another folder, "
            "or set DETECTRON2_DATASETS"
        )


COCO_SPLITS = {"train": "train2017", "test": "val2017"}
COCO_SCENES = {"train": 6, "test": 7}  # of the seed: other scenes than those of the other datasets

CROWD_EVERY = 4
"""In one picture of so many, the last digit that was written stands for a crowd."""

PAIRS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KEYPOINT_NAMES = ("nose", *(f"{side}_{part}" for part in PAIRS for side in ("left", "right")))
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
    for split, name in COCO_SPLITS.items():
        taken = photographs(
            split,
            info[f"num_{split}"],
            size=info["size"],
            seed=(info["seed"], COCO_SCENES[split]),
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
        image_id = 9 + 16 * index + list(COCO_SPLITS).index(split)
        file_name = f"{image_id:012d}.jpg"
        image = Image.fromarray(photograph.scene.image)
        image.save(folder / name / file_name, quality=95, subsampling=0)
        size = {"height": photograph.height, "width": photograph.width}
        images.append({"license": 1, "file_name": file_name, **size, "id": image_id})
        found = _annotations(photograph, image_id, 1 + len(instances), index)
        instances += found
        people += _people(photograph, found)
    person = {"supercategory": "person", "id": 1, "name": "person"}
    person |= {"keypoints": list(KEYPOINT_NAMES), "skeleton": SKELETON}
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
            [0] * 3 * len(KEYPOINT_NAMES)
            if annotation["iscrowd"]
            else keypoints(masks.pop(number), masks)
        )
        labelled = sum(visibility != NOT_LABELLED for visibility in values[2::3])
        facts = {"category_id": 1, "keypoints": values, "num_keypoints": labelled}
        people.append(annotation | facts)
    return people


def keypoints(mask: np.ndarray, others: Sequence[np.ndarray]) -> list[int]:
    """COCO's x, y and visibility of each of `KEYPOINT_NAMES`, in whole pixels as COCO's annotators gave them.

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


DIFFICULT_BELOW = 0.3
"""An object is marked as difficult whose longer side is less than this share of the picture's."""

VOC_SCENES = {("2007", "train"): 3, ("2012", "train"): 4, ("2007", "test"): 5}
"""Years and splits, each with its number in the seed. There is no test set of 2012, as in VOC itself."""


def write_voc(folder: Path, year: str, info: dict[str, int], on_scene: Callable[[], None]) -> None:
    """Fill `folder`: JPEGImages/ID.jpg, Annotations/ID.xml, ImageSets/Main/{train,val,trainval,test}.txt.

    Digits have the first ten of VOC's 20 classes, from 0, an aeroplane, to 9, a cow. Every second training
    scene is of `val`; `test` there is in 2007 alone, and the ids of its images stand among the others'.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {}
    for (of, split), number in VOC_SCENES.items():
        if of != year:
            continue
        taken = photographs(
            split,
            info[f"num_{split}"],
            size=info["size"],
            seed=(info["seed"], number),
            on_scene=on_scene,
        )
        ids = list(_write_images(folder, year, split, taken))
        parts = {"test": ids}
        if split == "train":
            parts = {"trainval": ids, "train": ids[::2], "val": ids[1::2]}
        lists |= parts
    for name, ids in lists.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(
            "".join(f"{id_}\n" for id_ in ids)
        )


def _write_images(
    folder: Path, year: str, split: str, taken: Iterable[Photograph]
) -> Iterator[str]:
    """Write pictures and XML; yield their ids, as VOC numbers them."""
    from PIL import Image

    for index, photograph in enumerate(taken):
        number = 2 * index + (1 if split == "train" else 2)
        id_ = f"{number:06d}" if year == "2007" else f"2008_{number:06d}"
        image = Image.fromarray(photograph.scene.image)
        image.save(folder / "JPEGImages" / f"{id_}.jpg", quality=95, subsampling=0)
        tree = ET.ElementTree(_annotation(photograph, year, id_))
        ET.indent(tree, "\t")
        tree.write(folder / "Annotations" / f"{id_}.xml", encoding="utf-8")
        yield id_


def _annotation(photograph: Photograph, year: str, id_: str) -> ET.Element:
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES

    root = ET.Element("annotation")
    _add(root, folder=f"VOC{year}", filename=f"{id_}.jpg")
    size = ET.SubElement(root, "size")
    _add(size, width=photograph.width, height=photograph.height, depth=3)
    _add(root, segmented=0)
    scene: Scene = photograph.scene
    for label, mask, cut in zip(scene.labels, scene.masks, photograph.cut, strict=True):
        left, top, right, bottom = pixel_box(mask)
        longer = max(right - left, bottom - top)
        is_difficult = longer < DIFFICULT_BELOW * max(photograph.width, photograph.height)
        object_ = ET.SubElement(root, "object")
        _add(object_, name=CLASS_NAMES[label], pose="Unspecified")
        _add(object_, truncated=int(cut), difficult=int(is_difficult))
        # The first pixel is 1, and the last one is inside.
        box = ET.SubElement(object_, "bndbox")
        _add(box, xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    return root


def _add(parent: ET.Element, **texts: object) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = str(text)
