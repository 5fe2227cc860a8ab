"""Rows: one image from its file to the model's input, in one thread."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

from ..row import Comparison, Disagreement, Row

IMAGES, SMALL = 24, 4  # mapped in a call


def photographs(folder: Path, count: int) -> list[dict[str, Any]]:
    """Records in Detectron2's format of 640x427 photographs in `folder`, with 8 polygons of 40 points."""
    import numpy as np
    from detectron2.structures import BoxMode
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    records = []
    for index in range(count):
        path = folder / f"{index:06d}.jpg"
        photograph = load_sample_image(("china.jpg", "flower.jpg")[index % 2])
        Image.fromarray(photograph).save(path, quality=90)
        annotations = []
        for category in range(8):
            radius = rng.uniform(10, 60)
            centre = rng.uniform(60, 360, size=2)
            points = np.round(centre + circle * radius * rng.uniform(0.8, 1, size=(40, 1)), 2)
            box = [*points.min(axis=0), *np.ptp(points, axis=0)]
            annotations.append(
                {
                    "bbox": [round(float(number), 2) for number in box],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": [points.reshape(-1).tolist()],
                }
            )
        records.append(
            {
                "file_name": str(path),
                "width": 640,
                "height": 427,
                "image_id": index,
                "annotations": annotations,
            }
        )
    return records


def options() -> dict[str, Any]:
    """Arguments of either mapper: those of a published recipe with several scales."""
    from detectron2.data import transforms as T

    return {
        "is_train": True,
        "augmentations": [T.ResizeShortestEdge((640, 800), 1333, "range"), T.RandomFlip()],
        "image_format": "RGB",
        "use_instance_mask": True,
    }


def check_mapped(stock: list[dict], ours: list[dict], levels: int) -> None:
    """Raise `Disagreement` unless all is equal, and pixels are within `levels` of 255."""
    for expected, mapped in zip(stock, ours, strict=True):
        name = expected["file_name"]
        if expected["image"].shape != mapped["image"].shape:
            raise Disagreement(f"{name}: images of different sizes, so of different random draws")
        off = (expected["image"].int() - mapped["image"].int()).abs().max().item()
        if off > levels:
            raise Disagreement(f"{name}: pixels differ by up to {off}")
        a, b = expected["instances"], mapped["instances"]
        polygons = [
            [polygon.tolist() for instance in x.gt_masks.polygons for polygon in instance]
            for x in (a, b)
        ]
        if (
            polygons[0] != polygons[1]
            or not a.gt_boxes.tensor.equal(b.gt_boxes.tensor)
            or not a.gt_classes.equal(b.gt_classes)
        ):
            raise Disagreement(f"{name}: instances differ")


def need_photographs() -> str | None:
    return None if importlib.util.find_spec("sklearn") else "scikit-learn's photographs are missing"


def _prepare(folder: Path, small: bool, exact: bool) -> Comparison:
    import torch
    from detectron2.data import DatasetMapper
    from detectron2.utils.env import seed_all_rng

    from ssl_backbones.fast.mapping.mapper import FastDatasetMapper

    records = photographs(folder, SMALL if small else IMAGES)
    torch.set_num_threads(1)
    stock, ours = DatasetMapper(**options()), FastDatasetMapper(**options(), exact=exact)

    def run(mapper: Any) -> tuple[list[dict], float]:
        seed_all_rng(0)
        mapped, seconds = [], 0.0
        for record in records:
            start = time.perf_counter()
            output = mapper(record)
            seconds += time.perf_counter() - start
            # A loader's worker hands an image on before it maps the next one: its memory is free again.
            output["image"] = output["image"].clone()
            mapped.append(output)
        return mapped, seconds

    run(ours)  # compiles, once for good
    return Comparison(
        stock=lambda: run(stock),
        ours=lambda: run(ours),
        check=lambda a, b: check_mapped(a, b, levels=0 if exact else 1),
        opponent="Detectron2's DatasetMapper",
        limit=lambda: ("decoding the JPEG files alone, by libjpeg-turbo", _decoding(records)),
        measured=True,
    )


def _decoding(records: list[dict[str, Any]]) -> float:
    """Seconds that it takes to decode the files, all in memory."""
    import simplejpeg

    files = [Path(record["file_name"]).read_bytes() for record in records]
    start = time.perf_counter()
    for file in files:
        simplejpeg.decode_jpeg(file)
    return time.perf_counter() - start


ROWS = [
    Row(
        name="mapper-exact",
        what="train mapper, 640x427 JPEG, 8 polygons, short side 640 to 800, flip, one thread",
        same="every pixel, box and polygon equal to stock's",
        goal=0.30,
        must=0.40,
        prepare=lambda folder, small: _prepare(folder, small, exact=True),
        needs=need_photographs,
    ),
    Row(
        name="mapper-fast",
        what="the same, with `exact=False`",
        same="no pixel off by more than 1 level, boxes and polygons equal",
        goal=0.20,
        must=0.25,
        prepare=lambda folder, small: _prepare(folder, small, exact=False),
        needs=need_photographs,
    ),
]
