"""The cells of a study: each a detector, trained from one arm's weights with one seed, and its row."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..evaluation.metrics import metric_name
from .processes import Outcome, Step
from .runner import DONE, METRICS, Record, Row, StepFailed, Study, results_of_run

COLUMNS = (
    *("cell", "arm", "protocol", "budget", "seed", "status", *METRICS, "iterations"),
    *("backbone_tensors", "backbone_tensors_moved", "fingerprint", "weights"),
    *("seconds", "cpu_seconds", "processor", "cores", "commit", "finished", "command"),
)
"""`weights` is the SHA-256 of the pretrained file, its method and branch; `seconds` is wall time and
`cpu_seconds` processor time; of the backbone's tensors those have moved whose final values differ from the
initial ones."""


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What the system calls it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Cell:
    """One detector: trained from an arm's weights on a budget of labelled images with one seed."""

    arm: str
    protocol: str
    budget: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}_{self.protocol}_{self.budget}_{self.seed}"


class CellStudy(Study):
    """The cells that were asked for, and the rows of those that have run.

    A kind of it says what the cells wait for (`prepare_for`), how one is trained (`cell_step`), and from what
    (`weights_of`).

    Attributes:
        output: of the commands, relative to `root`.
        cells: by name, in the order in which they run.
    """

    def __init__(
        self,
        output: Path,
        cells: Iterable[Cell],
        *,
        root: Path,
        jobs: int,
        order: Sequence[str],
        keep_checkpoints: bool = False,
    ):
        """
        Args:
            order: names of cells, by which rows are sorted.
        """
        folder = root / output
        super().__init__(
            folder,
            Record(folder / "cells.csv", COLUMNS),
            "study.json",
            root=root,
            # One thread a process, and as many processes as cores: sums are then always in one order.
            variables={"OMP_NUM_THREADS": "1"},
            jobs=jobs,
        )
        self.output, self.keep_checkpoints = output, keep_checkpoints
        self.cells = {cell.name: cell for cell in cells}
        self._places = {name: place for place, name in reversed(list(enumerate(order)))}

    def prepare_for(self, missing: Sequence[Cell]) -> None:
        """Make what these cells need, unless it is there.

        Raises:
            StepFailed: what all cells wait for went wrong.
        """
        raise NotImplementedError

    def cell_step(self, cell: Cell) -> Step:
        """The training of a cell, in `cells/NAME` of the folder."""
        raise NotImplementedError

    def weights_of(self, arm: str) -> Path | None:
        """The converted file that an arm starts from, relative to `root`; None of random weights."""
        raise NotImplementedError

    def names(self) -> list[str]:
        return list(self.cells)

    def identity(self, name: str) -> dict[str, object]:
        cell = self.cells[name]
        of_cell = {field: getattr(cell, field) for field in ("arm", "protocol", "budget", "seed")}
        return {"cell": name, **of_cell, "processor": processor(), "cores": usable_cores()}

    def results(self, name: str) -> dict[str, object]:
        """What the run folder of a finished cell adds; of one with pretrained weights, what has moved."""
        from ..engine import record

        folder = self.folder / "cells" / name
        run = record.read(folder)
        found = results_of_run(folder, run) | {"commit": _commit(run)}
        if converted := self.weights_of(self.cells[name].arm):
            moved, total = backbone_moves(folder / "model_final.pth", self.root / converted)
            found |= {"backbone_tensors": str(total), "backbone_tensors_moved": str(moved)}
        return found

    def told(self, name: str, row: Row, outcome: Outcome) -> str:
        found = [metric for metric in ("bbox/AP", "segm/AP") if row[metric]]
        aps = ", ".join(f"{metric_name(name)} {float(row[name]):.1f}" for name in found)
        said = (aps or "no AP") if row["status"] == DONE else row["status"]
        return f"{name}: {said}, {row['seconds']} s"

    def place(self, row: Row) -> int:
        return self._places.get(row["cell"], len(self._places))

    def ended(self, step: Step, outcome: Outcome) -> None:
        """What is no longer needed of a cell that is done goes."""
        super().ended(step, outcome)
        if self.is_done(step.name) and not self.keep_checkpoints:
            folder = self.folder / "cells" / step.name
            for file in (*folder.glob("model_*.pth*"), folder / "last_checkpoint"):
                file.unlink(missing_ok=True)

    def go_on(self) -> None:
        """Make what the missing cells need, then the cells.

        Raises:
            StepFailed: what all cells wait for went wrong.
        """
        with self.at_work():
            (self.folder / "weights").mkdir(exist_ok=True)
            missing = [self.cells[name] for name in self.missing()]
            self.prepare_for(missing)
            self._run_cells([self.cell_step(cell) for cell in missing])

    def _run_cells(self, steps: Sequence[Step]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self.announce("cells", steps[:1], total=len(steps))
        columns = ("cells", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not steps) as progress:
            task = progress.add_task("", total=len(steps))

            def say(line: str) -> None:
                progress.advance(task)
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

            self.say = say
            self.run(steps)

    def compare(self) -> int:
        """Say what came out of the cells that are done; returns the exit status."""
        raise NotImplementedError

    def do(self) -> int:
        """Go on to the end, compare, and say where everything is; returns the exit status."""
        try:
            self.go_on()
        except StepFailed as failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        status = self.compare() if any(row["status"] == DONE for row in self.rows.values()) else 0
        done = len(self.cells) - len(self.missing())
        print(
            f"\n{done} of {len(self.cells)} cells are done\nresults: {self.output / self.record.path.name}"
        )
        return self.tell_failures() or status


def chosen(cells: Sequence[Cell], only: Sequence[str] | None) -> list[Cell]:
    """The cells of these names; all of them without any.

    Raises:
        InputError: there is no cell of a name.
    """
    if not only:
        return list(cells)
    by_name = {cell.name: cell for cell in cells}
    for name in only:
        if name not in by_name:
            raise InputError(f"--only {name}: no such cell; --plan lists all {len(cells)}")
    return [by_name[name] for name in dict.fromkeys(only)]


def backbone_moves(detector: Path, converted: Path) -> tuple[int, int]:
    """How many of the backbone's tensors differ from those that the detector started from; of how many."""
    import numpy as np

    from ..conversion.reading import read_checkpoint

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
