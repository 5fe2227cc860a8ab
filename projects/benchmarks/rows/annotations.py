"""COCO's annotations: reading the file, opening it again, and the memory of a loader's processes."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..coco_file import IMAGES, write_coco_file
from ..loader_memory import measured
from ..processes import run
from ..row import Comparison, Disagreement, Row


def _made(folder: Path, small: bool) -> Path:
    path = folder / "instances.json"
    write_coco_file(path, 60 if small else IMAGES // 4)
    return path


def _load(folder: Path, small: bool) -> Comparison:
    from detectron2.data.datasets import load_coco_json as stock

    from ssl_backbones.fast.annotations.coco_json import load_coco_json

    path = str(_made(folder, small))
    name = "benchmark_coco_{}_" + str(folder)
    return Comparison(
        stock=partial(stock, path, "images", name.format("stock")),
        ours=partial(load_coco_json, path, "images", name.format("ours")),
        check=_same_records,
        opponent="detectron2.data.datasets.load_coco_json",
        limit=partial(_parsing, path),
    )


def _same_records(stock: Any, ours: Any) -> None:
    if len(stock) != len(ours):
        raise Disagreement(f"{len(ours)} records instead of {len(stock)}")
    for index, (one, other) in enumerate(zip(stock, ours, strict=True)):
        # As text, 1 and 1.0 differ, and so does the order of keys.
        if repr(one) != repr(other):
            raise Disagreement(f"record {index} is {str(other)[:500]} instead of {str(one)[:500]}")


def _parsing(path: str) -> tuple[str, float]:
    """The parser alone, on what Detectron2 reads of the file."""
    from ssl_backbones.fast.annotations.coco_json import collector_paused, content_decoder

    data, decoder = Path(path).read_bytes(), content_decoder()
    seconds = []
    with collector_paused():
        for _ in range(3):
            start = time.perf_counter()
            decoder.decode(data)
            seconds.append(time.perf_counter() - start)
    return "parsing with msgspec, before any record is made", statistics.median(seconds)


def _open_again(folder: Path, small: bool) -> Comparison:
    from detectron2.data import get_detection_dataset_dicts
    from detectron2.data.datasets import register_coco_instances

    from ssl_backbones.fast.annotations.packed_dataset import packed_detection_dataset

    path = _made(folder, small)
    names = {side: f"benchmark_coco_{side}_{folder}" for side in ("stock", "ours")}
    for name in names.values():
        register_coco_instances(name, {}, str(path), "images")
    ours = partial(_with_cache, folder / "cache", packed_detection_dataset, names["ours"])
    start = time.perf_counter()
    ours()
    first = time.perf_counter() - start
    if not small:
        # Until then the file counts as one that may still change, whose hash is not remembered.
        time.sleep(2.5)
    return Comparison(
        stock=partial(get_detection_dataset_dicts, names["stock"]),
        ours=ours,
        check=_same_records,
        opponent="get_detection_dataset_dicts, which reads the JSON file each time",
        notes=lambda: [f"Reading, hashing and packing at the first opening took {first:.1f} s."],
    )


def _with_cache(folder: Path, function: Callable[[str], Any], name: str) -> Any:
    with _environment(SSL_BACKBONES_CACHE=str(folder)):
        return function(name)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _memory(folder: Path, small: bool) -> Comparison:
    path = _made(folder, small)
    told: dict[str, dict[str, Any]] = {}

    def side(name: str) -> tuple[dict[str, list], float]:
        if small:
            told[name] = _with_cache(folder / "cache", partial(measured, name), str(path))
        else:
            command = [sys.executable, "-m", measured.__module__, name, str(path)]
            usage = run(command, {"SSL_BACKBONES_CACHE": str(folder / "cache")})
            told[name] = json.loads(usage.output.splitlines()[-1])
        return told[name], sum(told[name]["shares"])

    def notes() -> list[str]:
        return [
            f"{name}: {_list(each['own'])} MiB are each process's own (the main process first); the main "
            f"process had {each['before']:.0f} MiB before it opened the dataset. Each worker has "
            f"{_list(each['added'])} MiB more of its own than one that reads a single record that often."
            for name, each in told.items()
        ]

    return Comparison(
        stock=partial(side, "stock"),
        ours=partial(side, "ours"),
        check=_same_and_shared,
        opponent="get_detection_dataset_dicts, which the loader serialises into one array",
        measured=True,
        notes=notes,
    )


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _same_and_shared(stock: dict[str, list], ours: dict[str, list]) -> None:
    if stock["checksums"] != ours["checksums"]:
        raise Disagreement("the workers saw other records")
    if max(ours["added"]) > OWN:
        raise Disagreement(f"a worker took {max(ours['added']):.0f} MiB for itself: not one copy")


def _no_smaps() -> str | None:
    return (
        None if Path("/proc/self/smaps_rollup").exists() else "no Linux that tells shares of memory"
    )


OWN = 10
"""MiB that a worker may have of its own for having read the dataset: a tenth of the quarter's packed copy."""

QUARTER = "a quarter of train2017, made up: 29,571 images, 220,000 objects, 135 MB"

ROWS = [
    Row(
        name="annotations",
        what=f"load the annotation file: {QUARTER}",
        same="equal dataset dicts, keys in the same order, numbers of the same types",
        goal=1 / 6,
        must=1 / 4,
        prepare=_load,
    ),
    Row(
        name="annotations-second",
        what=f"from the registered name to the filtered dataset, not for the first time: {QUARTER}",
        same="equal dataset dicts",
        goal=0.5,
        must=None,
        prepare=_open_again,
        absolute=True,
    ),
    Row(
        name="annotations-memory",
        what="memory of a loader's main process and its two workers together, pages that are shared counted "
        f"once, when they have read every record of {QUARTER}",
        same="equal records in the workers, and no worker of ours has a copy: reading every record adds at "
        f"most {OWN} MiB to what it has of its own",
        goal=None,
        must=None,
        prepare=_memory,
        unit="MiB",
        needs=_no_smaps,
    ),
]
