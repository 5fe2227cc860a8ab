"""Made-up COCO annotations and detections of the size of val2017, the same ones every time."""

from __future__ import annotations

from typing import Any

import numpy as np

HEIGHT, WIDTH = 480, 640
CLASSES = 80

# As many as in val2017; of a hundred objects about one is a crowd.
_OBJECTS, _CROWD = 7.2, 0.012
# A third of the detections lie on objects: the rest is what a low score threshold lets through.
_ON_OBJECTS = 0.35


def annotations(images: int) -> dict[str, Any]:
    """A COCO annotation file: polygons of one or two parts, crowds as uncompressed RLE."""
    random = np.random.default_rng(0)
    objects: list[dict] = []
    for image in range(images):
        for box in boxes(random, random.poisson(_OBJECTS)):
            is_crowd = bool(random.random() < _CROWD)
            polygons = _polygons(random, box)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image + 1,
                    "category_id": _class(random),
                    "bbox": box.round(2).tolist(),
                    "area": round(float(box[2] * box[3] * np.pi / 4), 2),
                    "iscrowd": int(is_crowd),
                    "segmentation": _uncompressed(polygons) if is_crowd else polygons,
                }
            )
    return {
        "info": {},
        "images": [
            {"id": n + 1, "file_name": f"{n + 1:012}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in range(images)
        ],
        "annotations": objects,
        "categories": [{"id": n + 1, "name": f"class {n + 1}"} for n in range(CLASSES)],
    }


def detections(truth: dict[str, Any], per_image: int = 100) -> list[dict[str, Any]]:
    """COCO's results for `truth`, boxes and masks; a half of the scores are equal to others."""
    import torch

    from ssl_backbones.fast.evaluation.rle import encode_roi_masks

    random = np.random.default_rng(1)
    masks = torch.from_numpy(roi_masks(random, 256))
    by_image: dict[int, list] = {image["id"]: [] for image in truth["images"]}
    for found in truth["annotations"]:
        by_image[found["image_id"]].append(found)
    results = []
    for image_id, objects in by_image.items():
        places = boxes(random, per_image)
        classes = [_class(random) for _ in places]
        if objects:
            for index in np.flatnonzero(random.random(per_image) < _ON_OBJECTS):
                near = objects[random.integers(len(objects))]
                classes[index] = near["category_id"]
                sides = near["bbox"][2:]
                moved = random.normal(0, 0.08, 4) * (sides * 2)
                places[index] = near["bbox"] + moved
            places = _clipped(places)
        scores = random.random(per_image, np.float32)
        scores[::2] = scores[::2].round(2)
        places = torch.from_numpy(corners(places)).float()
        chosen = masks[random.integers(len(masks), size=per_image)]
        strings = encode_roi_masks(chosen, places, HEIGHT, WIDTH)
        places[:, 2:] -= places[:, :2]
        for kind, box, score, counts in zip(
            classes, places.tolist(), np.sort(scores)[::-1].tolist(), strings, strict=True
        ):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": kind,
                    "bbox": box,
                    "score": score,
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
                }
            )
    return results


def roi_masks(random: np.random.Generator, count: int) -> np.ndarray:
    """`count` x 28 x 28 probabilities: dents and bulges in a disc, blurred at the edge as a network's."""
    y, x = np.mgrid[:28, :28] / 13.5 - 1
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    edge = np.full((count, 28, 28), 0.95)
    for frequency in (1, 2, 3, 5):
        size, phase = random.uniform(0, 0.12 / frequency, count), random.uniform(0, 6.3, count)
        edge += size[:, None, None] * np.sin(frequency * angle + phase[:, None, None])
    return (1 / (1 + np.exp((radius - edge) * 12))).astype(np.float32)


def boxes(
    random: np.random.Generator, count: int, height: int = HEIGHT, width: int = WIDTH
) -> np.ndarray:
    """Sides from 10 to 450 pixels, as many of each octave; centres anywhere in the image."""
    sides = np.exp(random.uniform(np.log(10), np.log(450), (count, 2)))
    centres = random.uniform(0, (width, height), (count, 2))
    return _clipped(np.concatenate([centres - sides / 2, sides], axis=1), height, width)


def corners(boxes: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of boxes given as left, top, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _clipped(boxes: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The parts of boxes that lie in the image, at least four pixels on a side."""
    low = np.clip(boxes[:, :2], 0, (width - 4, height - 4))
    high = np.clip(boxes[:, :2] + boxes[:, 2:], low + 4, (width, height))
    return np.concatenate([low, high - low], axis=1)


def _class(random: np.random.Generator) -> int:
    """A few classes are common, as people are in COCO."""
    return 1 + int(CLASSES * random.random() ** 2)


def _polygons(random: np.random.Generator, box: np.ndarray) -> list[list[float]]:
    """A disc with waves in its edge; every fifth in two parts."""
    angle = np.linspace(0, 2 * np.pi, int(random.integers(12, 50)), endpoint=False)
    radius = 0.9 + 0.1 * np.sin(3 * angle + random.uniform(0, 6))
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    points = box[:2] + (unit + 1) / 2 * box[2:]
    half = len(points) // 2
    parts = [points[:half], points[half:]] if random.random() < 0.2 else [points]
    return [part.round(2).ravel().tolist() for part in parts]


def _uncompressed(polygons: list[list[float]]) -> dict[str, Any]:
    from pycocotools import mask as mask_util

    rle = mask_util.merge(mask_util.frPyObjects(polygons, HEIGHT, WIDTH))
    flat = np.pad(mask_util.decode(rle).ravel(order="F"), 1)
    turns = np.flatnonzero(np.diff(flat)).tolist()
    ends = [*turns, HEIGHT * WIDTH]
    return {
        "size": [HEIGHT, WIDTH],
        "counts": [end - start for start, end in zip([0, *ends], ends, strict=False)],
    }
