"""Row: one image through the detector on the CPU, to COCO's results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..processes import ALLOCATOR, side
from ..row import Comparison, Disagreement, Row
from .step import THREADS, flops, peak_rate, set_threads

SIZE, SMALL_SIZE = (800, 1333), (96, 128)


def make(small: bool, is_fast: bool) -> Callable[[], list[dict]]:
    """Find the instances of an image; returns COCO's results, masks in run-length encoding."""
    import torch
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json

    from ssl_backbones.fast.evaluation.coco_evaluator import coco_results
    from ssl_backbones.fast.evaluation.roi_masks import WithRoiMasks

    from .. import detector

    set_threads(small)
    batch = detector.images(1, *(SMALL_SIZE if small else SIZE))
    model = detector.build(detector.config(is_fast=is_fast, small=small), batch).eval()

    @torch.no_grad()  # as inference_on_dataset, on both sides
    def stock() -> list[dict]:
        return instances_to_coco_json(model(batch)[0]["instances"], 1)

    @torch.no_grad()
    def ours() -> list[dict]:
        return coco_results(with_roi_masks(batch)[0]["instances"], 1)

    if not is_fast:
        return stock
    with_roi_masks = WithRoiMasks(model)
    return ours


def make_graph(small: bool) -> Callable[[], list[dict]]:
    """The same by the detector's TorchScript graph, whose trace is no part of it."""
    import torch
    from detectron2.evaluation.coco_evaluation import instances_to_coco_json

    from ssl_backbones.export.elsewhere import Found
    from ssl_backbones.export.graph import trace
    from ssl_backbones.export.running import as_instances

    from .. import detector

    set_threads(small)
    (image,) = batch = detector.images(1, *(SMALL_SIZE if small else SIZE))
    model = detector.build(detector.config(small=small), batch).eval()
    height, width = image["image"].shape[1:]
    least = torch.tensor(model.roi_heads.box_predictor.test_score_thresh)
    given = image["image"].float(), torch.tensor([height, width, height, width]), least
    graph = trace(model, given)

    @torch.no_grad()
    def ours() -> list[dict]:
        found = Found(*(one.numpy() for one in graph(*given)))
        return instances_to_coco_json(as_instances(found, image), 1)

    return ours


def prepare_graph(folder: Path, small: bool) -> Comparison:
    start = (lambda make, environment: make()) if small else side
    return Comparison(
        stock=start(partial(make, small, False), {}),
        ours=start(partial(make_graph, small), {}),
        check=check,
        notes=lambda: [
            f"{THREADS} threads and torch.no_grad() on both sides, each in a process started as a user does.",
            "Ours: the graph that tools/export.py --to torchscript writes, with masks pasted in it.",
        ],
    )


def check(stock: list[dict], ours: list[dict]) -> None:
    """The same instances: scores to 1e-4, boxes to 0.01 pixels, all but 1 in 1,000 pixels of the masks."""
    import numpy as np
    from pycocotools import mask as mask_util

    if len(stock) != len(ours) or not stock:
        raise Disagreement(f"{len(ours)} instances, and {len(stock)} with Detectron2")
    for rank, (expected, found) in enumerate(zip(stock, ours, strict=True)):
        if expected["category_id"] != found["category_id"]:
            raise Disagreement(f"instance {rank} is of another class")
        if abs(expected["score"] - found["score"]) > 1e-4:
            raise Disagreement(f"instance {rank}: scores {found['score']} and {expected['score']}")
        if np.abs(np.subtract(expected["bbox"], found["bbox"])).max() > 0.01:
            raise Disagreement(f"instance {rank}: boxes {found['bbox']} and {expected['bbox']}")
        masks = [mask_util.decode(result["segmentation"]) for result in (expected, found)]
        if (masks[0] != masks[1]).sum() > 1e-3 * max(masks[0].sum(), 1000):
            raise Disagreement(f"instance {rank}: masks differ")


def prepare(folder: Path, small: bool) -> Comparison:
    # A test does not wait for another process.
    start = (lambda make, environment: make()) if small else side
    return Comparison(
        stock=start(partial(make, small, False), {}),
        ours=start(partial(make, small, True), ALLOCATOR),
        check=check,
        limit=partial(multiplications, small),
        notes=lambda: [
            f"{THREADS} threads and torch.no_grad() on both sides.",
            "Detectron2's side: its ROIPooler, its pasting of masks and instances_to_coco_json, in a process "
            "started as a user starts it.",
            "Ours: FastROIPooler, WithRoiMasks, coco_results, and a process started with the line that "
            f"docs/speed.md gives, GLIBC_TUNABLES={ALLOCATOR['GLIBC_TUNABLES']}. That line needs nothing of "
            "this project.",
            "Both sides end with COCO's results. Weights are random: 100 instances are found.",
            "What is left is the backbone's convolutions, in oneDNN on both sides.",
        ],
    )


def multiplications(small: bool) -> tuple[str, float]:
    """Seconds of the image's multiplications, at the rate of the machine's matrix product."""
    import torch

    from .. import detector

    set_threads(small)
    batch = detector.images(1, *(SMALL_SIZE if small else SIZE))
    model = detector.build(detector.config(is_fast=True, small=small), batch).eval()
    with torch.no_grad():
        return "its multiplications at the rate of a large matrix product", (
            flops(model, batch) / peak_rate()
        )


ROWS = [
    Row(
        name="inference",
        what="one image of 800x1333 through Mask R-CNN R50-FPN on the CPU, to COCO's results",
        same="the same instances: scores to 1e-4, boxes to 0.01 pixels, masks but for 1 in 1,000 pixels",
        goal=0.85,
        must=None,
        prepare=prepare,
    ),
    Row(
        name="inference-exported",
        what="one image of 800x1333 through Mask R-CNN R50-FPN on the CPU, to COCO's results, by its graph",
        same="scores to 1e-4, boxes to 0.01 pixels, masks but for 1 pixel in 1,000",
        goal=None,
        must=None,
        prepare=prepare_graph,
    ),
]
