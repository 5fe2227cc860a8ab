"""What AugNet's weights are worth on photographs of your own: nine detectors. Goes on where it stopped.

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

from ssl_backbones.errors import InputError, run_command
from ssl_backbones.studies.cells import Cell, CellStudy, chosen, usable_cores
from ssl_backbones.studies.initializations import FINETUNED, Expectation
from ssl_backbones.studies.processes import Step

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = "projects/photographs/configs/mask_rcnn_r50.py"
AUGNET = "ssl://augnet_imagenet"
ARMS = ("augnet", "scratch", "augnet-shuffled")
SEEDS = (0, 1, 2)
ITERATIONS = 500
SECONDS = 1.1
"""Of processor time an iteration on an AMD EPYC virtual machine."""

EXPECTED = (
    Expectation("augnet", "scratch", FINETUNED),
    Expectation("augnet", "augnet-shuffled", FINETUNED),
)
"""Written down on 30 November 2026, before the study; README.md gives the reasons."""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/photographs/study.py --data datasets/pennfudan --plan\n"
            "  python projects/photographs/study.py --data datasets/pennfudan\n"
            "  one cell again, to compare its row:\n"
            "    python projects/photographs/study.py --data datasets/pennfudan --output output/again "
            "--only scratch_finetuned_120_0\n\n"
            "Exit status: 0 all cells are done, 1 a command failed, 2 bad usage, 130 interrupted: the same "
            "command goes on."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        required=True,
        metavar="PATH",
        help="photographs with masks, in any form that tools/train_net.py --data takes",
    )
    add(
        "--output",
        type=Path,
        default=Path("output/photographs"),
        metavar="FOLDER",
        help="weights, runs, CSV, tables and figure (default: output/photographs in the checkout)",
    )
    add("--plan", action="store_true", help="list the cells, say how long they take, and end")
    add("--only", action="append", metavar="CELL", help="run this cell alone; may be given again")
    add("--seeds", nargs="+", type=int, default=SEEDS, metavar="N")
    add("--iterations", type=int, default=ITERATIONS, metavar="N", help="of each detector")
    add(
        "--jobs",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="at once (default: one a core)",
    )
    add("--keep-checkpoints", action="store_true", help="keep the detectors, 540 MB a cell")
    return parser.parse_args(argv)


class PhotographStudy(CellStudy):
    """The cells that were asked for, and the rows of those that have run."""

    def __init__(self, arguments: argparse.Namespace):
        self.data = _from_checkout(arguments.data)
        budget, self.annotations = _checked(arguments.data)
        # Seed by seed: whoever stops early has all arms, of fewer seeds.
        whole = [Cell(arm, FINETUNED, budget, seed) for seed in arguments.seeds for arm in ARMS]
        super().__init__(
            arguments.output,
            chosen(whole, arguments.only),
            root=CHECKOUT,
            variables={},
            jobs=arguments.jobs,
            order=[cell.name for cell in whole],
            expected=EXPECTED,
            keep_checkpoints=arguments.keep_checkpoints,
        )
        self.iterations = arguments.iterations

    def settings(self) -> dict[str, object]:
        return {"annotations": self.annotations, "iterations": self.iterations}

    def weights_of(self, arm: str) -> Path | None:
        return None if arm == "scratch" else self.output / "weights" / f"{arm}.pkl"

    def prepare_for(self, missing: Sequence[Cell]) -> None:
        arms = {cell.arm for cell in missing}
        shuffled = self.output / "weights" / "augnet-shuffled.pth"
        if "augnet-shuffled" in arms:
            words = ("projects/transfer_study/shuffle_layers.py", AUGNET, str(shuffled))
            self.make_missing("shuffled control", [Step("shuffle_augnet", words, shuffled)])
        for arm, source in {"augnet": AUGNET, "augnet-shuffled": str(shuffled)}.items():
            if arm in arms:
                converted = self.weights_of(arm)
                words = ("tools/convert_checkpoint.py", source, str(converted))
                self.make_missing("conversion", [Step(f"convert_{arm}", words, converted)])

    def cell_step(self, cell: Cell) -> Step:
        folder = self.output / "cells" / cell.name
        words = ("tools/train_net.py", "--config-file", CONFIG, "--data", self.data, "--resume")
        overrides = (
            f"train.init_checkpoint={self.weights_of(cell.arm) or ''}",
            f"train.output_dir={folder}",
            f"train.seed={cell.seed}",
            f"train.max_iter={self.iterations}",
            f"train.checkpointer.period={self.iterations}",
        )
        return Step(cell.name, words + overrides, folder / "inference" / "metrics.json")


def _from_checkout(data: str) -> str:
    """As a command in the checkout finds it: relative to that where it lies in it."""
    path = Path(os.path.abspath(data))
    return str(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path)


def _checked(data: str) -> tuple[int, str]:
    """How many images a detector learns from, and the hashes of what it learns and is tested on.

    Raises:
        InputError: what training would be refused for.
    """
    from ssl_backbones.data.annotations.checking import verdict_of
    from ssl_backbones.data.folders import find_splits
    from ssl_backbones.data.own_data import split_for

    found = find_splits(data, divides=True)
    train, test = (found.splits[split_for(found, role, data)] for role in ("train", "test"))
    learnt = verdict_of(train.annotations, train.images, str(train.shown), masks=True)
    tested = verdict_of(test.annotations, test.images, str(test.shown), evaluated=True, masks=True)
    return learnt.counts["images"], f"{learnt.sha256[:12]} {tested.sha256[:12]}"


def show_plan(study: PhotographStudy) -> None:
    """Every cell by name, and what the whole takes."""
    for name in study.cells:
        print(name)
    seconds = SECONDS * study.iterations * len(study.cells)
    print(
        f"\n{len(study.cells)} cells, about {seconds / 60 / study.jobs:.0f} minutes on {study.jobs} idle "
        f"cores\nnext: python projects/photographs/study.py --data {study.data}"
    )


def run(arguments: argparse.Namespace) -> int:
    for name, least in (("iterations", 1), ("jobs", 1)):
        if getattr(arguments, name) < least:
            raise InputError(f"--{name} {getattr(arguments, name)}: give at least {least}")
    if min(arguments.seeds) < 0:
        raise InputError(f"--seeds {min(arguments.seeds)}: give at least 0")
    study = PhotographStudy(arguments)
    if arguments.plan:
        show_plan(study)
        return 0
    return study.do()


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
