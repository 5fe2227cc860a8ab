"""Starting up: the answer to --help, and the wait for the first iteration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from ..row import Comparison, Disagreement, Row
from .quickstart import STOCK as STOCK_PARTS

CHECKOUT = Path(__file__).parents[3]
# As a module: beside it lies a profile.py, which is not the standard library's.
STOCK = ("-m", "projects.benchmarks.stock_training")
OURS = (str(CHECKOUT / "tools" / "train_net.py"),)
CONFIG = CHECKOUT / "projects" / "digits" / "configs" / "moco_digits.py"
OPTIONS = (
    "train.init_checkpoint=",
    "model.backbone.bottom_up.freeze_at=0",
    "train.eval_at_start=False",
    "train.log_period=1",
    "train.max_iter=3",
)


def _help(folder: Path, small: bool) -> Comparison:
    return Comparison(
        stock=partial(_output, *STOCK, "--help"),
        ours=partial(_output, *OURS, "--help"),
        check=_names_the_flags,
        opponent="a script of Detectron2's own parts",
        limit=_starting_python,
    )


def _output(*words: str | Path) -> str:
    words = [sys.executable, *map(str, words)]
    result = subprocess.run(words, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return result.stdout


def _names_the_flags(stock: str, ours: str) -> None:
    for flag in ("--config-file", "--resume", "--eval-only", "--num-gpus", "--num-machines"):
        if flag not in stock or flag not in ours:
            raise Disagreement(f"{flag} is not in both helps")


def _starting_python() -> tuple[str, float]:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return "starting Python", time.perf_counter() - start


def _first_iteration(folder: Path, small: bool) -> Comparison:
    root = folder / "datasets"
    _output(
        CHECKOUT / "projects" / "digits" / "make_dataset.py",
        *("--root", root / "digits", "--num-train", "12", "--num-test", "4"),
    )
    wait = partial(_wait_for_iteration, folder)
    return Comparison(
        stock=partial(wait, STOCK, STOCK_PARTS),
        ours=partial(wait, OURS, ()),
        check=_both_trained,
        opponent="a script of Detectron2's own parts",
        limit=_importing,
        measured=True,
    )


def _wait_for_iteration(
    folder: Path, command: tuple[str, ...], overrides: tuple[str, ...]
) -> tuple[str, float]:
    """The line that tells the first iteration's loss, and the seconds from the start to it."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = [sys.executable, *command, "--config-file", str(CONFIG), *OPTIONS, *overrides]
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(folder / "datasets"),
        "SSL_BACKBONES_CACHE": str(folder / "cache"),
    }
    start = time.perf_counter()
    with subprocess.Popen(
        [*words, f"train.output_dir={run}"],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "total_loss" in line:
                seconds = time.perf_counter() - start
                process.kill()
                return line, seconds
    raise RuntimeError(f"{command} ended before its first iteration:\n{''.join(printed[-20:])}")


def _both_trained(stock: str, ours: str) -> None:
    """Each draws its own first weights and images, so that the losses are near each other and not equal."""
    for line in (stock, ours):
        loss = float(line.split("total_loss:")[1].split()[0])
        if not 2 < loss < 8:
            raise Disagreement(f"a first loss of {loss}: {line}")


def _importing() -> tuple[str, float]:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import detectron2.engine"], check=True)
    return "importing torch and Detectron2", time.perf_counter() - start


ROWS = [
    Row(
        name="start-up-help",
        what="`train_net.py --help`, a whole process",
        same="the flags of Detectron2's training scripts are there",
        goal=0.1,
        must=0.3,
        prepare=_help,
        absolute=True,
    ),
    Row(
        name="start-up-first-iteration",
        what="from the command to the first iteration's loss, digits config, 12 scenes",
        same="both train: a first loss between 2 and 8",
        goal=0.7,
        must=None,
        prepare=_first_iteration,
    ),
]
