"""The transfer study, all of it: pretrain, convert, fine-tune every cell, compare. Goes on where it stopped.

Every cell is a command that can be typed by itself; it stands in the CSV beside its result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.records import check_settings, read_rows, write_rows
from projects.transfer_study import cells as plan
from projects.transfer_study.cells import ARMS, CHECKOUT, Cell
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.studies.processes import Outcome, Step, alone_in, run_steps
from ssl_backbones.studies.protocol_runs import DONE

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


class Study:
    """The cells that were asked for, and the rows of those that have run."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.output = arguments.output
        self.csv = CHECKOUT / self.output / "cells.csv"
        whole = list(plan.cells(arguments.arms, arguments.budgets, arguments.seeds))
        self.order = [cell.name for cell in plan.cells()] + [cell.name for cell in whole]
        self.cells = _chosen(whole, arguments.only)
        # One thread a process, and as many processes as cores: sums are then always in one order.
        self.variables = {"OMP_NUM_THREADS": "1"}
        if "DETECTRON2_DATASETS" in os.environ:
            self.variables["DETECTRON2_DATASETS"] = os.environ["DETECTRON2_DATASETS"]
        self.rows: dict[str, dict[str, str]] = {}
        self.failed: list[str] = []

    @property
    def missing(self) -> list[Cell]:
        return [cell for cell in self.cells if self.rows.get(cell.name, {}).get("status") != DONE]

    def settings(self) -> dict[str, object]:
        names = ("iterations", "pretrain_iterations", "batch_size", "num_test")
        return {name: getattr(self.arguments, name) for name in names}

    def run(self) -> None:
        """Make what the missing cells need, then the cells."""
        # Not at the top: --help and --plan need neither numpy nor the checkpoint reader.
        from projects.transfer_study import records

        (CHECKOUT / self.output / "weights").mkdir(parents=True, exist_ok=True)
        check_settings(CHECKOUT / self.output / "study.json", self.settings())
        self.rows = read_rows(self.csv, records.COLUMNS)
        missing = self.missing
        needed = [ARMS[name] for name in dict.fromkeys(cell.arm for cell in missing)]
        needed = [arm for arm in needed if arm.has_weights]
        sources = [ARMS[arm.shuffled_from] for arm in needed if arm.shuffled_from]
        pretrained = {arm.name: arm for arm in (*needed, *sources) if arm.pretraining}
        options = ["--iterations", str(self.arguments.pretrain_iterations)]
        options += ["--batch-size", str(self.arguments.batch_size)]
        datasets = Path(self.variables.get("DETECTRON2_DATASETS", "datasets"))
        budgets = dict.fromkeys(cell.budget for cell in missing)
        self._make(
            "scenes",
            [plan.dataset_step(datasets, budget, self.arguments.num_test) for budget in budgets],
            always=True,
        )
        make = [plan.pretraining_step(self.output, arm, options) for arm in pretrained.values()]
        self._make("pretraining", make)
        shuffled = [arm for arm in needed if arm.shuffled_from]
        make = [plan.pretraining_step(self.output, arm, ()) for arm in shuffled]
        self._make("shuffled control", make)
        self._make("conversion", [plan.conversion_step(self.output, arm) for arm in needed])
        self._run_cells(missing)

    def _make(self, what: str, steps: list[Step], *, always: bool = False) -> None:
        """Run those steps whose file is not there.

        Raises:
            StepFailed: nothing that comes after can be done.
        """
        steps = [step for step in steps if always or not (CHECKOUT / step.makes).exists()]
        self._show(what, steps)
        failed: list[str] = []

        def on_end(step: Step, outcome: Outcome) -> None:
            if outcome.status:
                failed.append(f"{step.name}: {outcome.last_line()} (all of it: {outcome.log})")
            else:
                print(f"   {step.name}: {outcome.seconds:.0f} s", flush=True)

        self._run(steps, on_end)
        if failed:
            raise StepFailed("; ".join(failed))

    def _run_cells(self, missing: list[Cell]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        steps = {
            plan.cell_step(self.output, cell, self.arguments.iterations): cell for cell in missing
        }
        self._show("cells", list(steps)[:1], total=len(steps))
        columns = ("cells", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not steps) as progress:
            task = progress.add_task("", total=len(steps))

            def on_end(step: Step, outcome: Outcome) -> None:
                row = self._record(step, steps[step], outcome)
                progress.advance(task)
                ap = "/".join(f"{float(row[f'{t}/AP'] or 0):.1f}" for t in ("bbox", "segm"))
                said = f"box/mask AP {ap}" if row["status"] == DONE else row["status"]
                line = f"   {step.name}: {said}, {row['seconds']} s"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

            self._run(list(steps), on_end)

    def _record(self, step: Step, cell: Cell, outcome: Outcome) -> dict[str, str]:
        """The cell's row, written to the CSV; what is no longer needed of its run goes."""
        from projects.transfer_study import records

        folder = CHECKOUT / self.output / "cells" / cell.name
        converted = CHECKOUT / plan.weights(self.output, cell.arm, ".pkl")
        row = records.row_of(cell, step.command(self.variables), outcome)
        if not outcome.status:
            row |= records.results_of(folder, converted if ARMS[cell.arm].has_weights else None)
        self.rows[cell.name] = row
        places = {name: place for place, name in reversed(list(enumerate(self.order)))}
        ordered = sorted(self.rows.values(), key=lambda row: places.get(row["cell"], len(places)))
        write_rows(self.csv, records.COLUMNS, ordered)
        if outcome.status:
            self.failed.append(cell.name)
        elif not self.arguments.keep_checkpoints:
            for file in (*folder.glob("model_*.pth*"), folder / "last_checkpoint"):
                file.unlink(missing_ok=True)
        return row

    def _run(self, steps: list[Step], on_end) -> None:
        run_steps(
            steps,
            folder=CHECKOUT,
            jobs=self.arguments.jobs,
            logs=CHECKOUT / self.output / "logs",
            variables=self.variables,
            on_end=on_end,
        )

    def _show(self, what: str, steps: list[Step], total: int | None = None) -> None:
        """The commands about to run; of many alike, the first."""
        if steps:
            count = total or len(steps)
            print(f"\n== {what}" + (f": {count}, such as" if count > len(steps) else ""))
            for step in steps:
                print(f"$ {step.command(self.variables)}", flush=True)

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


class StepFailed(Exception):
    """A command that all cells wait for ended badly; says which and why."""


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


def show_plan(study: Study) -> None:
    """Every cell by name, and what the whole takes."""
    for cell in study.cells:
        print(cell.name)
    share = study.arguments.iterations / plan.ITERATIONS
    seconds = sum(SECONDS[cell.protocol] for cell in study.cells) * share
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
    study = Study(arguments)
    if arguments.plan:
        show_plan(study)
        return 0
    folder = CHECKOUT / study.output
    try:
        with alone_in(folder):
            study.run()
    except StepFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    status = study.compare() if any(row["status"] == DONE for row in study.rows.values()) else 0
    done = len(study.cells) - len(study.missing)
    print(f"\n{done} of {len(study.cells)} cells are done\nresults: {study.output / 'cells.csv'}")
    if study.failed:
        logs = study.output / "logs"
        print(f"error: failed: {', '.join(study.failed)}; see {logs}", file=sys.stderr)
    return 1 if study.failed else status


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
