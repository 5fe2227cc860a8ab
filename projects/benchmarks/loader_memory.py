"""The memory of a loader whose two workers read every record of a COCO file, as a line of JSON.

Another loader comes after it, whose workers read one record that often: what they have of their own is what a
worker takes without the dataset.

python -m projects.benchmarks.loader_memory {stock,ours} FILE
"""

from __future__ import annotations

import copy
import json
import os
import sys
import zlib
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

WORKERS = 2


def measured(side: str, path: str) -> dict[str, Any]:
    """Memory in MiB by process, the main one first: its share, and its own; and the records' checksums.

    "added" is what each worker has for its own beyond a worker that reads one record only.
    """
    from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
    from detectron2.data.datasets import register_coco_instances

    from ssl_backbones.fast.annotations.packed_dataset import packed_detection_dataset

    name = f"benchmark_coco_{side}_{path}"
    register_coco_instances(name, {}, path, "images")
    before = _proportional(os.getpid())
    function = {"stock": get_detection_dataset_dicts, "ours": packed_detection_dataset}[side]
    load = partial(build_detection_test_loader, mapper=checksum, num_workers=WORKERS)
    # The dataset is nobody's but the loader's, which keeps no list.
    every = _read(load(function(name)))
    one = _read(load(_OneRecord(function(name)[0], len(every["checksums"]) + 1)))
    return {
        "checksums": every["checksums"],
        "before": before,
        "shares": every["shares"],
        "own": every["own"],
        "added": [
            own - without for own, without in zip(every["own"][1:], one["own"][1:], strict=True)
        ],
    }


class _OneRecord:
    """The same record at every index, made anew each time."""

    def __init__(self, record: dict, length: int):
        self._record, self._length = record, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict:
        return copy.deepcopy(self._record)


def _read(loader: Any) -> dict[str, list]:
    """The checksums of the records that the workers read, and the memory of all processes then."""
    batches = iter(loader)
    # All but the last: after it the workers would end.
    checksums = [batch[0] for batch in islice(batches, len(loader) - 1)]
    processes = [os.getpid(), *(worker.pid for worker in batches._workers)]
    return {
        "checksums": checksums,
        "shares": [_proportional(pid) for pid in processes],
        "own": [_own(pid) for pid in processes],
    }


def checksum(record: dict) -> int:
    """Made by the worker, so that nothing large travels."""
    return zlib.crc32(repr(record).encode())


def _proportional(pid: int) -> float:
    """MiB of a process, each page divided by the number of processes that share it (PSS)."""
    return _kib(pid, "Pss") / 2**10


def _own(pid: int) -> float:
    """MiB that no other process shares (USS)."""
    return (_kib(pid, "Private_Clean") + _kib(pid, "Private_Dirty")) / 2**10


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"the system does not tell {name}")


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
