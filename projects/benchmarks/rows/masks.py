"""Rows: a hundred predicted masks as COCO's run-length strings, in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..row import Comparison, Disagreement, Row

IMAGES, SMALL = 8, 1  # in a call, each with a hundred masks


def instances(count: int, height: int, width: int) -> list[Any]:
    """What a Mask R-CNN hands to its postprocessing: a hundred boxes and masks an image."""
    import numpy as np
    import torch
    from detectron2.structures import Boxes, Instances

    from .. import scenes

    random = np.random.default_rng(0)
    # The network saw the image with a shorter side of 800 pixels.
    scale = 800 / min(height, width)
    size = (round(height * scale), round(width * scale))
    found = []
    for _ in range(count):
        boxes = torch.from_numpy(scenes.corners(scenes.boxes(random, 100, height, width)))
        one = Instances(size)
        one.pred_boxes = Boxes(boxes.float() * scale)
        one.scores = torch.from_numpy(random.random(100, np.float32))
        one.pred_classes = torch.from_numpy(random.integers(0, 80, 100))
        one.pred_masks = torch.from_numpy(scenes.roi_masks(random, 100))[:, None]
        found.append(one)
    return found


def prepare(height: int, width: int) -> Callable[[Path, bool], Comparison]:
    """What a row of images of this size is made with."""

    def prepare_row(folder: Path, small: bool) -> Comparison:
        import torch
        from detectron2.evaluation.coco_evaluation import instances_to_coco_json
        from detectron2.modeling.postprocessing import detector_postprocess

        from ssl_backbones.fast.evaluation.coco_evaluator import coco_results
        from ssl_backbones.fast.evaluation.roi_masks import postprocess

        torch.set_num_threads(1)
        found = instances(SMALL if small else IMAGES, height, width)

        def stock() -> list[list[dict]]:
            return [
                instances_to_coco_json(detector_postprocess(one, height, width), 1)
                for one in _copied(found)
            ]

        def ours() -> list[list[dict]]:
            size = {"height": height, "width": width}
            return [coco_results(postprocess(one, size), 1) for one in _copied(found)]

        def boxes_only() -> tuple[str, float]:
            def work() -> None:
                for one in _copied(found):
                    one.remove("pred_masks")
                    instances_to_coco_json(detector_postprocess(one, height, width), 1)

            return "boxes and scores alone, without masks", _fastest(work)

        return Comparison(stock, ours, check, limit=boxes_only)

    return prepare_row


def check(stock: list[list[dict]], ours: list[list[dict]]) -> None:
    """Raise `Disagreement` unless every string, box, score and class is equal."""
    for expected, found in zip(stock, ours, strict=True):
        if expected != found:
            different = sum(a != b for a, b in zip(expected, found, strict=True))
            raise Disagreement(f"{different} of {len(expected)} results differ")


def _copied(found: list[Any]) -> list[Any]:
    """Postprocessing scales boxes in place."""
    copies = [one[:] for one in found]
    for one in copies:
        one.pred_boxes = one.pred_boxes.clone()
    return copies


def _fastest(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


ROWS = [
    Row(
        f"masks-{height}x{width}",
        f"100 predicted 28x28 masks to COCO RLE, {height}x{width} pixels, {IMAGES} images, one thread",
        "every RLE string, box, score and class equal to stock's",
        goal,
        must,
        prepare(height, width),
    )
    for height, width, goal, must in ((480, 640, 1 / 30, 1 / 15), (800, 1333, 1 / 40, 1 / 20))
]
