"""The transfer study, all of it: pretrain, convert, fine-tune every cell, compare. Goes on where it stopped.

Every cell is a command that can be typed by itself; it stands in the CSV beside its result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.transfer_study import cells as plan
from projects.transfer_study.cells import ARMS, CHECKOUT, Cell
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.studies.processes import Outcome, Step
from ssl_backbones.studies.runner import (
    DONE,
    METRICS,
    Record,
    Row,
    StepFailed,
    Study,
    results_of_run,
)

COLUMNS = (
    *("cell", "arm", "protocol", "budget", "seed", "status", *METRICS, "iterations"),
    *("backbone_tensors", "backbone_tensors_moved", "fingerprint", "weights"),
    *("seconds", "cpu_seconds", "processor", "cores", "commit", "finished", "command"),
)
"""`weights` is the SHA-256 of the pretrained file, its method and branch; `seconds` is wall time and
`cpu_seconds` processor time; of the backbone's tensors those have moved whose final values differ from the
initial ones."""

SECONDS = {"pretraining": 1200, "finetuned": 106, "frozen": 69}
"""Processor time on an AMD EPYC virtual machine of all pretrainings, and of one cell of either protocol."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/transfer_study/study.py --plan\n"
            "  python projects/transfer_study/study.py\n"
            "  one cell again, to compare its row:\n"
            "    python projects/transfer_study/study.py --output output/again --only moco_frozen_50_0\n\n"
            "Exit status: 0 all cells are done, 1 a command failed, 2 bad usage, 130 interrupted: the same "
            "command goes on."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=Path("output/transfer_study"),
        metavar="FOLDER",
        help="weights, runs, CSV, tables and figure (default: output/transfer_study in the checkout)",
    )
    add("--plan", action="store_true", help="list the cells, say how long they take, and end")
    add("--only", action="append", metavar="CELL", help="run this cell alone; may be given again")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    add("--budgets", nargs="+", type=int, default=plan.BUDGETS, metavar="N", help="labelled scenes")
    add("--seeds", nargs="+", type=int, default=plan.SEEDS, metavar="N")
    add("--iterations", type=int, default=plan.ITERATIONS, metavar="N", help="of each detector")
    add(
        "--pretrain-iterations",
        type=int,
        default=plan.PRETRAIN_ITERATIONS,
        metavar="N",
        help="of each pretraining",
    )
    add("--batch-size", type=int, default=64, metavar="N", help="of each pretraining")
    add("--num-test", type=int, default=plan.NUM_TEST, metavar="N", help="test scenes")
    add("--jobs", type=int, default=_cores(), metavar="N", help="at once (default: one a core)")
    add("--keep-checkpoints", action="store_true", help="keep the detectors, 150 MB a cell")
    return parser.parse_args(argv)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TransferStudy(Study):
    """The cells that were asked for, and the rows of those that have run."""

    def __init__(self, arguments: argparse.Namespace):
        folder = CHECKOUT / arguments.output
        # One thread a process, and as many processes as cores: sums are then always in one order.
        variables = {"OMP_NUM_THREADS": "1"}
        if "DETECTRON2_DATASETS" in os.environ:
            variables["DETECTRON2_DATASETS"] = os.environ["DETECTRON2_DATASETS"]
        record = Record(folder / "cells.csv", COLUMNS)
        super().__init__(
            folder, record, "study.json", root=CHECKOUT, variables=variables, jobs=arguments.jobs
        )
        self.arguments, self.output = arguments, arguments.output
        whole = list(plan.cells(arguments.arms, arguments.budgets, arguments.seeds))
        order = [cell.name for cell in (*plan.cells(), *whole)]
        self.places = {name: place for place, name in reversed(list(enumerate(order)))}
        self.cells = {cell.name: cell for cell in _chosen(whole, arguments.only)}

    def names(self) -> list[str]:
        return list(self.cells)

    def settings(self) -> dict[str, object]:
        names = ("iterations", "pretrain_iterations", "batch_size", "num_test")
        return {name: getattr(self.arguments, name) for name in names}

    def identity(self, name: str) -> dict[str, object]:
        # Not at the top: --help and --plan need no numpy.
        from projects.benchmarks.machine import machine

        cell, here = self.cells[name], machine()
        of_cell = {field: getattr(cell, field) for field in ("arm", "protocol", "budget", "seed")}
        return {"cell": name, **of_cell, "processor": here["processor"], "cores": here["cores"]}

    def results(self, name: str) -> dict[str, object]:
        """What the run folder of a finished cell adds; of one with pretrained weights, what has moved."""
        from ssl_backbones.engine import record

        folder, arm = self.folder / "cells" / name, self.cells[name].arm
        run = record.read(folder)
        found = results_of_run(folder, run) | {"commit": _commit(run)}
        if ARMS[arm].has_weights:
            converted = CHECKOUT / plan.weights(self.output, arm, ".pkl")
            moved, total = backbone_moves(folder / "model_final.pth", converted)
            found |= {"backbone_tensors": str(total), "backbone_tensors_moved": str(moved)}
        return found

    def told(self, name: str, row: Row, outcome: Outcome) -> str:
        ap = "/".join(f"{float(row[f'{t}/AP'] or 0):.1f}" for t in ("bbox", "segm"))
        said = f"box/mask AP {ap}" if row["status"] == DONE else row["status"]
        return f"{name}: {said}, {row['seconds']} s"

    def place(self, row: Row) -> int:
        return self.places.get(row["cell"], len(self.places))

    def ended(self, step: Step, outcome: Outcome) -> None:
        """What is no longer needed of a cell that is done goes."""
        super().ended(step, outcome)
        if self.is_done(step.name) and not self.arguments.keep_checkpoints:
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
            self._prepare(missing)
            self._run_cells(missing)

    def _prepare(self, missing: list[Cell]) -> None:
        needed = [ARMS[name] for name in dict.fromkeys(cell.arm for cell in missing)]
        needed = [arm for arm in needed if arm.has_weights]
        sources = [ARMS[arm.shuffled_from] for arm in needed if arm.shuffled_from]
        pretrained = {arm.name: arm for arm in (*needed, *sources) if arm.pretraining}
        options = ["--iterations", str(self.arguments.pretrain_iterations)]
        options += ["--batch-size", str(self.arguments.batch_size)]
        datasets = Path(self.variables.get("DETECTRON2_DATASETS", "datasets"))
        budgets = dict.fromkeys(cell.budget for cell in missing)
        scenes = [
            plan.dataset_step(datasets, budget, self.arguments.num_test) for budget in budgets
        ]
        self.prepare("scenes", scenes)
        make = [plan.pretraining_step(self.output, arm, options) for arm in pretrained.values()]
        self._make_missing("pretraining", make)
        shuffled = [arm for arm in needed if arm.shuffled_from]
        make = [plan.pretraining_step(self.output, arm, ()) for arm in shuffled]
        self._make_missing("shuffled control", make)
        self._make_missing("conversion", [plan.conversion_step(self.output, arm) for arm in needed])

    def _make_missing(self, what: str, steps: list[Step]) -> None:
        self.prepare(what, [step for step in steps if not (CHECKOUT / step.makes).exists()])

    def _run_cells(self, missing: list[Cell]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        steps = [plan.cell_step(self.output, cell, self.arguments.iterations) for cell in missing]
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
        """Tables and figure of the cells that have run, by the command that a reader can type."""
        table, figure = (self.output / name for name in ("comparison.md", "ap_against_budget.png"))
        arms = {row["arm"] for row in self.rows.values()}
        words = ["tools/compare_init.py", str(self.output / "cells.csv")]
        words += ["--markdown", str(table), "--figure", str(figure)]
        if "scratch" in arms:
            words += ["--reference", "scratch"]
        for expected in plan.EXPECTED:
            if {expected.higher, expected.lower} <= arms:
                words += ["--expect", str(expected)]
        step = Step("compare", tuple(words), table)
        print(f"\n== comparison\n$ {step.command({})}", flush=True)
        return subprocess.run([sys.executable, *words], cwd=CHECKOUT).returncode


def backbone_moves(detector: Path, converted: Path) -> tuple[int, int]:
    """How many of the backbone's tensors differ from those that the detector started from; of how many."""
    import numpy as np

    from ssl_backbones.conversion.reading import read_checkpoint

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


def _chosen(cells: list[Cell], only: list[str] | None) -> list[Cell]:
    if not only:
        return cells
    by_name = {cell.name: cell for cell in cells}
    for name in only:
        if name not in by_name:
            raise InputError(f"--only {name}: no such cell; --plan lists all {len(cells)}")
    return [by_name[name] for name in dict.fromkeys(only)]


def check_arguments(arguments: argparse.Namespace) -> None:
    for name in ("iterations", "pretrain_iterations", "num_test", "jobs"):
        if getattr(arguments, name) < 1:
            option = name.replace("_", "-")
            raise InputError(f"--{option} {getattr(arguments, name)}: give at least 1")
    for name, least in (("budgets", 1), ("seeds", 0)):
        if min(getattr(arguments, name)) < least:
            raise InputError(f"--{name} {min(getattr(arguments, name))}: give at least {least}")


def show_plan(study: TransferStudy) -> None:
    """Every cell by name, and what the whole takes."""
    for name in study.cells:
        print(name)
    share = study.arguments.iterations / plan.ITERATIONS
    seconds = sum(SECONDS[cell.protocol] for cell in study.cells.values()) * share
    seconds += (
        SECONDS["pretraining"] * study.arguments.pretrain_iterations / plan.PRETRAIN_ITERATIONS
    )
    print(
        f"\n{len(study.cells)} cells, about {seconds / 60 / study.arguments.jobs:.0f} minutes on "
        f"{study.arguments.jobs} idle cores\n"
        f"next: python projects/transfer_study/study.py"
    )


def run(arguments: argparse.Namespace) -> int:
    check_arguments(arguments)
    study = TransferStudy(arguments)
    if arguments.plan:
        show_plan(study)
        return 0
    try:
        study.go_on()
    except StepFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    status = study.compare() if any(row["status"] == DONE for row in study.rows.values()) else 0
    done = len(study.cells) - len(study.missing())
    print(f"\n{done} of {len(study.cells)} cells are done\nresults: {study.output / 'cells.csv'}")
    return study.tell_failures() or status


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
