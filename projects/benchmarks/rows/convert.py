"""A conversion beside a straightforward script: whole processes, on a checkpoint of 370 MB."""

from __future__ import annotations

import pickle
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from .. import processes
from ..row import Comparison, Disagreement, Row

HERE = Path(__file__).parents[1]
SCRIPT = HERE / "straightforward.py"
CONVERTER = HERE.parents[1] / "tools" / "convert_checkpoint.py"
CHECKPOINT = "a MoCo v2 checkpoint of 370 MB"
NUM_TENSORS = 265  # of a ResNet-50


def _prepare(folder: Path, small: bool, form: str, unit: str) -> Comparison:
    source = folder / "moco.pth.tar"
    write_checkpoint(source, form, small)
    source.read_bytes()  # into the page cache
    measure = partial(_converted, source, unit)
    ours = partial(measure, folder / "ours.pkl", [str(CONVERTER), "--no-verify"])
    return Comparison(
        stock=partial(measure, folder / "script.pkl", [str(SCRIPT)]),
        ours=ours,
        check=check_equal,
        opponent="straightforward.py: torch.load of everything, rename, pickle; it checks nothing",
        limit=partial(_hashing, source) if unit == "seconds" else None,
        measured=True,
        notes=list if small else partial(_with_proof, source, unit),
    )


def write_checkpoint(path: Path, form: str, small: bool) -> None:
    """Write a MoCo v2 checkpoint as training leaves it: both encoders, queue and optimizer, 370 MB.

    The tensors have the names, shapes and order of MoCo's own class over torchvision's ResNet-50 and random
    values. It is in torch's "zip" or "legacy" format; a small one holds the query encoder alone, 110 MB.
    """
    import torch

    content = _query_alone() if small else _checkpoint()
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


def _checkpoint() -> dict:
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    state = {}
    for name in ("encoder_q", "encoder_k"):
        encoder = torchvision.models.resnet50(num_classes=128)
        encoder.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), encoder.fc)
        state |= {f"module.{name}.{key}": tensor for key, tensor in encoder.state_dict().items()}
    state["module.queue"] = nn.functional.normalize(torch.randn(128, 65536), dim=0)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    momentum = [torch.randn_like(parameter) for parameter in encoder.parameters()]
    optimizer = {
        "state": {index: {"momentum_buffer": tensor} for index, tensor in enumerate(momentum)},
        "param_groups": [{"lr": 0.03, "momentum": 0.9, "params": list(range(len(momentum)))}],
    }
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}


def _query_alone() -> dict:
    import torch
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = torchvision.models.resnet50(num_classes=128)
    state = {f"module.encoder_q.{key}": tensor for key, tensor in encoder.state_dict().items()}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state}


def _converted(source: Path, unit: str, result: Path, command: list[str]) -> tuple[dict, float]:
    """The file that a program wrote, and its seconds or the MiB of its peak."""
    result.unlink(missing_ok=True)
    script, *flags = command
    usage = processes.run([sys.executable, script, str(source), str(result), *flags])
    # Of our own making, so Python's unpickler may read it.
    return pickle.loads(result.read_bytes())["model"], getattr(usage, unit)


def check_equal(stock: dict[str, Any], ours: dict[str, Any]) -> None:
    """The same arrays under the same names, but for the norms' counters, which no detector reads."""
    import numpy as np

    counters = {name for name in stock if name.endswith("num_batches_tracked")}
    if ours.keys() != stock.keys() - counters:
        raise Disagreement(f"other names: {sorted(ours.keys() ^ (stock.keys() - counters))[:5]}")
    if len(ours) != NUM_TENSORS:
        raise Disagreement(f"{len(ours)} tensors instead of {NUM_TENSORS}")
    for name, array in ours.items():
        if array.dtype != stock[name].dtype or not np.array_equal(array, stock[name]):
            raise Disagreement(f"{name} differs")


def _hashing(source: Path) -> tuple[str, float]:
    """Whoever states what was converted has read and hashed it."""
    from ssl_backbones.hashing import digest_of

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        digest_of(source)
        seconds.append(time.perf_counter() - start)
    return "the sha256 of the source, which stands in the converted file", statistics.median(
        seconds
    )


def _with_proof(source: Path, unit: str) -> list[str]:
    """The converter as it is called by default, once."""
    _, value = _converted(source, unit, source.with_name("proved.pkl"), [str(CONVERTER)])
    return [
        f"Ours is `ssl-convert --no-verify`, which accounts for every key, checks every tensor, hashes the "
        f"source, brings the file to the disk and reads it back. With the proof: {value:.3g} "
        f"{'s' if unit == 'seconds' else 'MiB'}, in one run."
    ]


def _row(name: str, what: str, form: str, unit: str, goal: float, must: float) -> Row:
    return Row(
        name=name,
        what=what,
        same=f"equal arrays, {NUM_TENSORS} of them",
        goal=goal,
        must=must,
        prepare=partial(_prepare, form=form, unit=unit),
        unit="s" if unit == "seconds" else "MiB",
    )


ROWS = [
    _row(
        "convert-zip",
        f"from start to exit: {CHECKPOINT} in torch's zip format",
        *("zip", "seconds", 1 / 9, 1 / 6),
    ),
    _row(
        "convert-legacy",
        f"from start to exit: {CHECKPOINT} in the format before torch 1.6, which the published files have",
        *("legacy", "seconds", 1 / 9, 1 / 6),
    ),
    _row(
        "convert-memory",
        f"largest resident memory, mapped parts of the file included: {CHECKPOINT} in the older format",
        *("legacy", "peak_mib", 1 / 6, 1 / 5),
    ),
]
