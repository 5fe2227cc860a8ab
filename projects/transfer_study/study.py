"""The transfer study, all of it: pretrain, convert, fine-tune every cell, compare. Goes on where it stopped.

Every cell is a command that can be typed by itself; it stands in the CSV beside its result.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.transfer_study import cells as plan
from projects.transfer_study.cells import ARMS, CHECKOUT
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.studies.cells import Cell, CellStudy, chosen, usable_cores
from ssl_backbones.studies.processes import Step

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
    add(
        "--jobs",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="at once (default: one a core)",
    )
    add("--keep-checkpoints", action="store_true", help="keep the detectors, 150 MB a cell")
    return parser.parse_args(argv)


class TransferStudy(CellStudy):
    """The cells that were asked for, and the rows of those that have run."""

    def __init__(self, arguments: argparse.Namespace):
        variables = {}
        if "DETECTRON2_DATASETS" in os.environ:
            variables["DETECTRON2_DATASETS"] = os.environ["DETECTRON2_DATASETS"]
        whole = list(plan.cells(arguments.arms, arguments.budgets, arguments.seeds))
        super().__init__(
            arguments.output,
            chosen(whole, arguments.only),
            root=CHECKOUT,
            variables=variables,
            jobs=arguments.jobs,
            order=[cell.name for cell in (*plan.cells(), *whole)],
            expected=plan.EXPECTED,
            keep_checkpoints=arguments.keep_checkpoints,
        )
        self.arguments = arguments

    def settings(self) -> dict[str, object]:
        names = ("iterations", "pretrain_iterations", "batch_size", "num_test")
        return {name: getattr(self.arguments, name) for name in names}

    def weights_of(self, arm: str) -> Path | None:
        return plan.weights(self.output, arm, ".pkl") if ARMS[arm].has_weights else None

    def cell_step(self, cell: Cell) -> Step:
        return plan.cell_step(self.output, cell, self.arguments.iterations)

    def prepare_for(self, missing: Sequence[Cell]) -> None:
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
        self.make_missing("pretraining", make)
        shuffled = [arm for arm in needed if arm.shuffled_from]
        make = [plan.pretraining_step(self.output, arm, ()) for arm in shuffled]
        self.make_missing("shuffled control", make)
        self.make_missing("conversion", [plan.conversion_step(self.output, arm) for arm in needed])


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
    return study.do()


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
