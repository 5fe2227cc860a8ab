"""The digits as a VOC folder and, of the very same pixels and boxes, as a COCO folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycocotools.mask
from own_data import SPLITS
from PIL import Image


def write_voc(digits: Path, root: Path) -> tuple[Path, Path]:
    """Write ROOT/voc and ROOT/coco, with the splits train and val; returns the two.

    Of overlapping objects the later one has the pixels; one that has none left is in neither.
    """
    voc, coco = root / "voc", root / "coco"
    for name in ("ImageSets/Main", "Annotations", "JPEGImages", "SegmentationObject"):
        (voc / name).mkdir(parents=True)
    for split, name in SPLITS.items():
        (coco / name).mkdir(parents=True)
        stems = []
        for image, numbers, classes in _scenes(digits, split):
            stem = f"{name}_{Path(image).stem}"
            stems.append(stem)
            file_name = stem + Path(image).suffix
            for folder in (voc / "JPEGImages", coco / name):
                shutil.copy(digits / split / image, folder / file_name)
            (voc / "Annotations" / f"{stem}.xml").write_text(_xml(file_name, numbers, classes))
            picture = Image.fromarray(numbers)
            picture.putpalette([*range(256)] * 3)
            picture.save(voc / "SegmentationObject" / f"{stem}.png")
        (voc / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")
        (coco / f"{name}.json").write_text(json.dumps(_coco(digits, split)))
    return voc, coco


def _scenes(digits: Path, split: str):
    """Each image's name, the number of the object at each pixel, from 1, and the objects' classes."""
    content = json.loads((digits / "annotations" / f"{split}.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    for image in sorted(content["images"], key=lambda image: image["file_name"]):
        size = image["height"], image["width"]
        numbers, classes = np.zeros(size, np.uint8), []
        for one in (one for one in content["annotations"] if one["image_id"] == image["id"]):
            parts = pycocotools.mask.frPyObjects(one["segmentation"], *size)
            classes.append(names[one["category_id"]])
            numbers[pycocotools.mask.decode(pycocotools.mask.merge(parts)) == 1] = len(classes)
        there, places = np.unique([0, *numbers.ravel()], return_inverse=True)
        yield (
            image["file_name"],
            places[1:].reshape(size).astype(np.uint8),
            [classes[number - 1] for number in there[1:]],
        )


def _corners(pixels: np.ndarray) -> list[int]:
    """Left, top, right and bottom of the pixels, the last two outside."""
    rows, columns = np.nonzero(pixels)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def _xml(file_name: str, numbers: np.ndarray, classes: list[str]) -> str:
    height, width = numbers.shape
    objects = ""
    for number, name in enumerate(classes, 1):
        left, top, right, bottom = _corners(numbers == number)
        objects += (
            f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left + 1}</xmin>"
            f"<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>\n"
        )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{file_name}</filename>{size}\n{objects}</annotation>\n"


def _coco(digits: Path, split: str) -> dict:
    known = {name for one in SPLITS for *_, classes in _scenes(digits, one) for name in classes}
    categories = [{"id": id_, "name": name} for id_, name in enumerate(sorted(known), 1)]
    ids, images, annotations = {one["name"]: one["id"] for one in categories}, [], []
    for image, numbers, classes in _scenes(digits, split):
        size = {"height": numbers.shape[0], "width": numbers.shape[1]}
        images.append({"id": len(images) + 1, "file_name": f"{SPLITS[split]}_{image}", **size})
        for number, name in enumerate(classes, 1):
            left, top, right, bottom = _corners(numbers == number)
            packed = pycocotools.mask.encode(np.asfortranarray(numbers == number, np.uint8))
            one = {"id": len(annotations) + 1, "image_id": len(images), "category_id": ids[name]}
            # Numbers with a point, as COCO's own: whole ones Detectron2 scales to whole ones.
            box = [float(side) for side in (left, top, right - left, bottom - top)]
            one |= {"bbox": box, "iscrowd": 0}
            one |= {"segmentation": {**packed, "counts": packed["counts"].decode()}}
            annotations.append(one | {"area": int((numbers == number).sum())})
    return {"images": images, "annotations": annotations, "categories": categories}
