"""What the study runs: its arms, its cells, and what was expected of them before any had run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_backbones.studies.cells import Cell
from ssl_backbones.studies.initializations import FINETUNED, FROZEN, Expectation
from ssl_backbones.studies.processes import Step

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = "projects/transfer_study/configs/resnet18_digits.py"
BUDGETS = (50, 400)
SEEDS = (0, 1, 2)
ITERATIONS = 500
PRETRAIN_ITERATIONS = 400
NUM_TEST = 200


@dataclass(frozen=True)
class Arm:
    """Where a backbone's weights come from.

    Attributes:
        pretraining: words for pretrain.py; empty of an arm that is not pretrained.
        shuffled_from: the arm whose layers it has in the wrong order.
    """

    name: str
    pretraining: tuple[str, ...] = ()
    shuffled_from: str = ""

    @property
    def has_weights(self) -> bool:
        return bool(self.pretraining or self.shuffled_from)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("scratch"),
        Arm("moco", ("moco",)),
        Arm("swav", ("swav",)),
        Arm("supervised", ("supervised",)),
        Arm("moco-shuffled", shuffled_from="moco"),
        Arm("moco-bgr", ("moco", "--channel-order", "BGR")),
    )
}

EXPECTED = (
    Expectation("moco", "scratch", FINETUNED),
    Expectation("swav", "scratch", FINETUNED),
    Expectation("supervised", "scratch", FINETUNED),
    Expectation("supervised", "moco", FINETUNED),
    Expectation("supervised", "swav", FINETUNED),
    Expectation("moco", "moco-shuffled", FINETUNED),
    Expectation("moco", "moco-bgr", FINETUNED),
    Expectation("supervised", "moco", FROZEN),
    Expectation("supervised", "swav", FROZEN),
    Expectation("moco", "moco-shuffled", FROZEN),
    Expectation("swav", "moco-shuffled", FROZEN),
    Expectation("moco", "moco-bgr", FROZEN),
)
"""Written down on 25 November 2026, before the study; README.md gives the reasons."""


def freeze_at(cell: Cell) -> int:
    """5 freezes stem and res2 to res5, their batch norms included; 1, the recipe's, the stem."""
    if cell.protocol == FROZEN:
        return 5
    return 1 if ARMS[cell.arm].has_weights else 0


def cells(
    arms: Sequence[str] = tuple(ARMS),
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = SEEDS,
) -> Iterator[Cell]:
    """All of them, those first that are told apart first: seed by seed.

    Random weights are not frozen.
    """
    for seed in seeds:
        for protocol in (FINETUNED, FROZEN):
            for budget in budgets:
                for arm in arms:
                    if protocol == FINETUNED or ARMS[arm].has_weights:
                        yield Cell(arm, protocol, budget, seed)


def dataset_step(datasets: Path, budget: int, num_test: int) -> Step:
    """Smaller budgets are the first scenes of the larger ones; the test scenes are always the same."""
    root = datasets / "transfer_study" / str(budget)
    words = ("--root", str(root), "--num-train", str(budget), "--num-test", str(num_test))
    return Step(f"scenes_{budget}", ("projects/digits/make_dataset.py", *words), root)


def weights(output: Path, arm: str, suffix: str) -> Path:
    return output / "weights" / f"{arm}{suffix}"


def pretraining_step(output: Path, arm: Arm, options: Sequence[str]) -> Step:
    """Of an arm with weights of its own: pretrain them, or put another arm's in the wrong order."""
    path = weights(output, arm.name, ".pth")
    if arm.shuffled_from:
        source = str(weights(output, arm.shuffled_from, ".pth"))
        words = ("projects/transfer_study/shuffle_layers.py", source, str(path))
    else:
        method, *flags = arm.pretraining
        words = ("projects/transfer_study/pretrain.py", method, str(path), *flags, *options)
    return Step(f"pretrain_{arm.name}", words, path)


def conversion_step(output: Path, arm: Arm) -> Step:
    source, path = (weights(output, arm.name, suffix) for suffix in (".pth", ".pkl"))
    words = ("tools/convert_checkpoint.py", str(source), str(path), "--force")
    return Step(f"convert_{arm.name}", words, path)


def cell_step(output: Path, cell: Cell, iterations: int) -> Step:
    folder = output / "cells" / cell.name
    checkpoint = weights(output, cell.arm, ".pkl") if ARMS[cell.arm].has_weights else ""
    overrides = (
        f"train.init_checkpoint={checkpoint}",
        f"train.output_dir={folder}",
        f"train.seed={cell.seed}",
        f"train.max_iter={iterations}",
        f"train.checkpointer.period={iterations}",
        f"dataloader.train.dataset.names=transfer_study_{cell.budget}_train",
        f"dataloader.test.dataset.names=transfer_study_{cell.budget}_test",
        f"model.backbone.bottom_up.freeze_at={freeze_at(cell)}",
    )
    words = ("tools/train_net.py", "--config-file", CONFIG, "--resume", *overrides)
    return Step(cell.name, words, folder / "inference" / "metrics.json")
