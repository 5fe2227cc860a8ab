"""A made-up annotation file with the proportions of COCO's train2017."""

from __future__ import annotations

import json
import random
from pathlib import Path

IMAGES = 118_287
OBJECTS_PER_IMAGE = 860_001 / 118_287
CATEGORIES = [
    number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
]
"""COCO's 80 ids, with its gaps."""

_BLOCK = IMAGES // 16


def write_coco_file(path: Path, num_images: int, seed: int = 0) -> int:
    """Write `num_images` images with 7.3 objects each, and return the number of objects.

    As in train2017, an object takes some 520 bytes, an image in a hundred has none, one object in a hundred
    is a crowd with run lengths for its mask, and one in ten consists of two polygons. Beyond `_BLOCK` images
    the same ones come again under other ids.
    """
    draw = random.Random(seed)
    images, annotations = [], []
    for number in range(min(num_images, _BLOCK)):
        images.append(_image(draw, number))
        if draw.random() >= 0.01:
            for _ in range(draw.randint(1, round(2 * OBJECTS_PER_IMAGE - 0.9))):
                annotations.append(_annotation(draw, images[-1]))
    draw.shuffle(annotations)
    images = [(image.pop("id"), json.dumps(image)[1:-1]) for image in images]
    annotations = [(each.pop("image_id"), json.dumps(each)[1:-1]) for each in annotations]
    categories = [
        {"supercategory": "thing", "id": number, "name": f"class {number}"} for number in CATEGORIES
    ]
    starts = range(0, num_images, _BLOCK)
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'{{"info": {{"description": "made up"}}, "categories": {json.dumps(categories)}'
        )
        file.write(', "images": [')
        written = 0
        for start in starts:
            block = images[: num_images - start]
            texts = [f'{{{text}, "id": {4 * start + id_}}}' for id_, text in block]
            file.write(", " * (start > 0) + ", ".join(texts))
        file.write('], "annotations": [')
        for start in starts:
            last = 4 * (num_images - start)
            block = [(owner, text) for owner, text in annotations if owner < last]
            texts = [
                f'{{{text}, "image_id": {4 * start + owner}, "id": {1_000_000 + 3 * (written + index)}}}'
                for index, (owner, text) in enumerate(block)
            ]
            file.write(", " * (start > 0) + ", ".join(texts))
            written += len(block)
        file.write("]}")
    return written


def _image(draw: random.Random, number: int) -> dict:
    width, height = draw.choice([(640, 480), (480, 640), (640, 427), (500, 375)])
    id_ = number * 4 + draw.randrange(4)
    return {
        "license": 1,
        "file_name": f"{id_:012}.jpg",
        "coco_url": f"http://images.example.org/train2017/{id_:012}.jpg",
        "height": height,
        "width": width,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.example.org/6116/{id_ * 977}_8c59b9e0{id_ % 97}a_z.jpg",
        "id": id_,
    }


def _annotation(draw: random.Random, image: dict) -> dict:
    width, height = image["width"], image["height"]
    w, h = round(draw.uniform(8, width / 2), 2), round(draw.uniform(8, height / 2), 2)
    x, y = round(draw.uniform(0, width - w), 2), round(draw.uniform(0, height - h), 2)
    crowd = draw.random() < 0.01
    if crowd:
        segmentation = {"counts": _run_lengths(draw, width * height), "size": [height, width]}
    else:
        parts = 2 if draw.random() < 0.1 else 1
        segmentation = [_polygon(draw, x, y, w, h) for _ in range(parts)]
    return {
        "segmentation": segmentation,
        "area": round(w * h / 2, 4),
        "iscrowd": int(crowd),
        "image_id": image["id"],
        "bbox": [x, y, w, h],
        "category_id": draw.choice(CATEGORIES),
    }


def _polygon(draw: random.Random, x: float, y: float, w: float, h: float) -> list[float]:
    points = []
    for _ in range(draw.randint(6, 42)):
        points += (round(x + w * draw.random(), 2), round(y + h * draw.random(), 2))
    return points


def _run_lengths(draw: random.Random, pixels: int) -> list[int]:
    runs = []
    while pixels > 0:
        runs.append(min(pixels, draw.randint(100, 3000)))
        pixels -= runs[-1]
    return runs
