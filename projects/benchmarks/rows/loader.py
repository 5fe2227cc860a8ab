"""Row: training batches from Detectron2's loader with two workers, with either mapper."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..row import Comparison, Row
from .mapper import check_mapped, need_photographs, options, photographs

WORKERS = 2
BATCH = 4  # images
BATCHES, SMALL = 40, 2  # timed
RECORDS = 32
STEP = 0.005
"""Seconds an image that the training step takes for which the wait for data is told: 200 images a second."""


def _prepare(folder: Path, small: bool) -> Comparison:
    from detectron2.data import DatasetMapper

    from ssl_backbones.fast.mapping.mapper import FastDatasetMapper

    records = photographs(folder, SMALL * BATCH if small else RECORDS)
    batches = SMALL if small else BATCHES
    stock, ours = DatasetMapper(**options()), FastDatasetMapper(**options())
    ours(records[0])  # compiles, once for good
    return Comparison(
        stock=partial(_load, records, stock, batches),
        ours=partial(_load, records, ours, batches),
        check=lambda a, b: check_mapped(a, b, levels=0),
        opponent="the same loader with Detectron2's DatasetMapper",
        measured=True,
        notes=lambda: [
            f"of a loop whose step takes {STEP * 1000:g} ms an image, "
            f"{_waiting(records, stock, batches):.0%} is a wait for data with Detectron2's mapper, "
            f"{_waiting(records, ours, batches):.0%} with ours"
        ],
    )


def _batches(records: list[dict[str, Any]], mapper: Any) -> Iterator[list[dict]]:
    import torch
    from detectron2.data import build_detection_train_loader
    from detectron2.data.samplers import TrainingSampler

    loader = build_detection_train_loader(
        records,
        mapper=mapper,
        sampler=TrainingSampler(len(records), seed=0),
        total_batch_size=BATCH,
        num_workers=WORKERS,
    )
    torch.manual_seed(0)  # from which the workers' seeds are drawn
    return iter(loader)


def _load(records: list[dict[str, Any]], mapper: Any, batches: int) -> tuple[list[dict], float]:
    """Images of so many batches, and the seconds for these once the first batch is there."""
    iterator = _batches(records, mapper)
    images = list(next(iterator))
    start = time.perf_counter()
    for batch in itertools.islice(iterator, batches):
        images.extend(batch)
    return images, time.perf_counter() - start


def _waiting(records: list[dict[str, Any]], mapper: Any, batches: int) -> float:
    """The share of a training loop's time in which it waits for its next batch."""
    iterator = _batches(records, mapper)
    next(iterator)
    waiting, start = 0.0, time.perf_counter()
    for _ in range(batches):
        time.sleep(STEP * BATCH)  # as a GPU is busy, and no core
        asked = time.perf_counter()
        next(iterator)
        waiting += time.perf_counter() - asked
    return waiting / (time.perf_counter() - start)


ROWS = [
    Row(
        name="loader",
        what=f"{BATCHES} batches of {BATCH} images from a training loader with {WORKERS} workers",
        same="the same batches",
        goal=0.5,
        must=0.5,
        prepare=_prepare,
        needs=need_photographs,
    )
]
