"""Coloured polygons on noise, as COCO files: data for a machine with neither OpenCV nor a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 96, 160
"""Of an image: with a short side of 800 it is as large as any of the recipes'."""
CORNERS = (3, 4, 24)
CLASSES = 80  # as COCO, for the sake of memory; objects there are of three


def write_shapes(root: Path, **images: int) -> None:
    """Write ROOT/SPLIT.json and the images in ROOT/SPLIT, so many of each split; always the same ones."""
    from PIL import Image, ImageDraw

    for seed, (split, count) in enumerate(images.items()):
        (root / split).mkdir(parents=True)
        random = np.random.default_rng(seed)
        files, objects = [], []
        for index in range(count):
            image = Image.fromarray(random.integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8))
            for kind, polygon in _polygons(random):
                ink = tuple(random.integers(150, 256, 3).tolist())
                ImageDraw.Draw(image).polygon(polygon.ravel().tolist(), fill=ink)
                ids = {"id": len(objects) + 1, "image_id": index, "category_id": kind}
                objects.append(ids | _annotation(polygon))
            name = f"{index:06d}.png"
            image.save(root / split / name)
            files.append({"id": index, "file_name": name, "height": HEIGHT, "width": WIDTH})
        names = [{"id": n, "name": f"class {n}"} for n in range(CLASSES)]
        content = {"images": files, "annotations": objects, "categories": names}
        (root / f"{split}.json").write_text(json.dumps(content))


def _polygons(random: np.random.Generator):
    """Six of them, class and corners x 2 points, in two rows of three."""
    cell = np.array([WIDTH / 3, HEIGHT / 2])
    for place in np.ndindex(3, 2):
        kind = int(random.integers(len(CORNERS)))
        angles = np.linspace(0, 2 * np.pi, CORNERS[kind], endpoint=False) + random.uniform(0, 6)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.uniform(0.25, 0.45, 2)
        yield kind, (cell * (points + place + 0.5)).round(1)


def _annotation(polygon: np.ndarray) -> dict:
    low, (width, height) = polygon.min(0).tolist(), np.ptp(polygon, axis=0).tolist()
    x, y = polygon.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    outline = {"segmentation": [polygon.ravel().tolist()], "area": float(area), "iscrowd": 0}
    return {"bbox": [*low, width, height], **outline}
