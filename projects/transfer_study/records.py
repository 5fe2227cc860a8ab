"""The study's record: a CSV with a row for each cell, whether its run went well or not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from projects.benchmarks.machine import machine
from projects.transfer_study.cells import Cell
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.engine import record
from ssl_backbones.studies.initializations import read_average_precisions
from ssl_backbones.studies.processes import Outcome
from ssl_backbones.studies.protocol_runs import DONE

METRICS = tuple(f"{task}/{name}" for task in ("bbox", "segm") for name in ("AP", "AP50", "AP75"))
COLUMNS = (
    *("cell", "arm", "protocol", "budget", "seed", "status", *METRICS, "iterations"),
    *("backbone_tensors", "backbone_tensors_moved", "fingerprint", "weights"),
    *("seconds", "cpu_seconds", "processor", "cores", "commit", "finished", "command"),
)
"""`weights` is the SHA-256 of the pretrained file, its method and branch; `seconds` is wall time and
`cpu_seconds` processor time; of the backbone's tensors those have moved whose final values differ from the
initial ones."""


def row_of(cell: Cell, command: str, outcome: Outcome) -> dict[str, str]:
    """What every cell's row says, of one that failed as well."""
    failure = f"exit status {outcome.status}: {outcome.last_line()}" if outcome.status else ""
    here = machine()
    return dict.fromkeys(COLUMNS, "") | {
        "cell": cell.name,
        "arm": cell.arm,
        "protocol": cell.protocol,
        "budget": str(cell.budget),
        "seed": str(cell.seed),
        "status": failure or DONE,
        "seconds": f"{outcome.seconds:.0f}",
        "cpu_seconds": f"{outcome.cpu_seconds:.0f}",
        "processor": str(here["processor"]),
        "cores": str(here["cores"]),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def results_of(run_folder: Path, converted: Path | None) -> dict[str, str]:
    """What the run folder of a finished cell adds.

    Args:
        converted: the weights that it started from; None for random ones.

    Raises:
        InputError: something in the folder is missing.
    """
    run = record.read(run_folder)
    numbers = read_average_precisions(run_folder)
    found = {metric: repr(numbers[metric]) for metric in METRICS if metric in numbers}
    found |= {
        "iterations": str(run["recipe"].get("train.max_iter", "")),
        "fingerprint": run["fingerprint"],
        "weights": str(run["recipe"].get("weights", "")),
        "commit": _commit(run),
    }
    if converted is not None:
        moved, total = backbone_moves(run_folder / "model_final.pth", converted)
        found |= {"backbone_tensors": str(total), "backbone_tensors_moved": str(moved)}
    return found


def backbone_moves(detector: Path, converted: Path) -> tuple[int, int]:
    """How many of the backbone's tensors differ from those that the detector started from; of how many."""
    before = read_checkpoint(converted).content["model"]
    after = read_checkpoint(detector).content["model"]
    moved = sum(
        not np.array_equal(np.asarray(value), np.asarray(after[f"backbone.bottom_up.{name}"]))
        for name, value in before.items()
    )
    return moved, len(before)


def _commit(run: Mapping) -> str:
    state = (run.get("git") or {}).get("ssl_backbones") or {}
    return f"{state.get('commit', '')[:12]}{' with changes' if state.get('dirty') else ''}"
