"""Detections made of annotations: shifted, missing, twice, of the wrong class, and where nothing is.

Everything that COCO's evaluation decides by order or by size is there: equal scores, more detections of an
image than count, masks of no pixel, detections in crowds and in images without an object.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

# Of as many equal steps are two scores in three; the others are any number.
LEVELS = 50


def detections_of(truth: COCO, seed: int) -> list[dict[str, Any]]:
    """COCO's results for every image of `truth`, in its order; numbers are those of float32."""
    random = np.random.default_rng(seed)
    classes = truth.getCatIds()
    images = truth.getImgIds()
    # More than the 100 that count.
    crammed = set(random.choice(images, 3, replace=False).tolist())
    results = []
    for image in truth.loadImgs(images):
        size = image["height"], image["width"]
        found = []
        for one in truth.loadAnns(truth.getAnnIds(image["id"])):
            mask = truth.annToMask(one)
            made = _in_crowd if one["iscrowd"] else _near
            wrong = random.choice(classes).item()
            found += [
                (wrong if random.random() < 0.1 else one["category_id"], *of_box)
                for of_box in made(random, one["bbox"], mask)
            ]
        for _ in range(150 if image["id"] in crammed else random.poisson(4)):
            found.append((random.choice(classes).item(), *_anywhere(random, size)))
        # As a detector's come: in no order of the objects.
        for place in random.permutation(len(found)).tolist():
            kind, box, mask = found[place]
            rle = mask_util.encode(np.asfortranarray(mask))
            score = random.random()
            score = round(score * LEVELS) / LEVELS if random.random() < 2 / 3 else score
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": kind,
                    "bbox": [float(np.float32(value)) for value in box],
                    "score": float(np.float32(score)),
                    "segmentation": {"size": list(size), "counts": rle["counts"].decode()},
                }
            )
    return results


def _near(random, box, mask):
    """None, one or several for an object: some exact, most up to a quarter of its size away."""
    for _ in range(random.choice(4, p=[0.15, 0.45, 0.3, 0.1])):
        x, y, width, height = box
        away = random.choice([0, 0.03, 0.1, 0.25])
        down, right = np.rint(random.normal(0, away, 2) * (height, width)).astype(int).tolist()
        wider, higher = np.exp(random.normal(0, away, 2))
        moved = x + right, y + down, width * wider, height * higher
        yield moved, np.zeros_like(mask) if random.random() < 0.02 else _shifted(mask, down, right)


def _in_crowd(random, box, mask):
    """Pieces of a crowd, which count as nothing, some of them half outside."""
    x, y, width, height = box
    for _ in range(random.integers(2, 9)):
        piece = width * random.uniform(0.1, 0.6), height * random.uniform(0.1, 0.6)
        corner = x + random.uniform(-0.2, 0.8) * width, y + random.uniform(-0.2, 0.8) * height
        own = (*corner, *piece)
        yield own, mask & _filled(own, mask.shape)


def _anywhere(random, size):
    height, width = size
    sides = np.exp(random.uniform(np.log(4), np.log((width, height))))
    corner = random.uniform(0, (width, height) - sides)
    box = (*corner.tolist(), *sides.tolist())
    return box, _filled(box, size)


def _shifted(mask, down, right):
    """Without what leaves the image."""
    moved = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    rows, columns = rows + down, columns + right
    stays = (rows >= 0) & (rows < len(mask)) & (columns >= 0) & (columns < mask.shape[1])
    moved[rows[stays], columns[stays]] = 1
    return moved


def _filled(box, size):
    x, y, width, height = box
    mask = np.zeros(size, np.uint8)
    left, top, right, bottom = (max(round(end), 0) for end in (x, y, x + width, y + height))
    mask[top:bottom, left:right] = 1
    return mask
