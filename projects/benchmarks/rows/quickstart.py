"""A whole training: that no part which is fast by itself costs another one more."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

from ..processes import run
from ..row import Comparison, Disagreement, Row

CHECKOUT = Path(__file__).parents[3]
CONFIG = CHECKOUT / "projects" / "digits" / "configs" / "moco_digits.py"
STOCK = (
    *(
        f"dataloader.{split}.{part}"
        for split in ("train", "test")
        for part in (
            "dataset._target_=detectron2.data.get_detection_dataset_dicts",
            "mapper._target_=detectron2.data.DatasetMapper",
        )
    ),
    "dataloader.evaluator._target_=detectron2.evaluation.COCOEvaluator",
    "model.roi_heads.box_pooler._target_=detectron2.modeling.poolers.ROIPooler",
    "model.roi_heads.mask_pooler._target_=detectron2.modeling.poolers.ROIPooler",
)
"""Overrides that put Detectron2's part back wherever the config takes one of ours."""

LEAST_AP50 = 25
MOST_APART = 15
"""Points of AP50, in percent. Ten classes and 700 iterations: two seeds are up to 10 apart."""


def _prepare(folder: Path, small: bool) -> Comparison:
    datasets = {"DETECTRON2_DATASETS": str(folder / "datasets")}
    few = ["--num-train", "12", "--num-test", "4"] if small else []
    _python("projects/digits/make_dataset.py", "--root", folder / "datasets" / "digits", *few)
    raw, converted = folder / "moco.pth.tar", folder / "moco.pkl"
    _python(
        "projects/digits/pretrain.py",
        *("--output", raw),
        *(["--iterations", "2"] if small else []),
    )
    _python("tools/convert_checkpoint.py", raw, converted)
    options = [f"train.init_checkpoint={converted}", *(["train.max_iter=2"] if small else [])]
    side = partial(_train, folder / "run", datasets, options)
    return Comparison(
        stock=partial(side, STOCK),
        ours=partial(side, ()),
        check=partial(_both_learn, least=0 if small else LEAST_AP50),
        opponent="the same trainer with Detectron2's own dataset, mapper, evaluator and ROIPooler",
        measured=True,
        notes=lambda: ["Measured once: a run takes minutes, and its parts have rows of their own."],
    )


def _python(*words: str | Path, env: dict[str, str] | None = None) -> float:
    """Run a script of the checkout; the seconds of the whole process."""
    script, *rest = map(str, words)
    return run([sys.executable, str(CHECKOUT / script), *rest], env).seconds


def _train(
    folder: Path, datasets: dict[str, str], options: list[str], overrides: tuple[str, ...]
) -> tuple[dict[str, float], float]:
    """AP50 in percent by task after a run, and its seconds from start to exit."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds = _python(
        "tools/train_net.py",
        *("--config-file", CONFIG, *options, *overrides, f"train.output_dir={folder}"),
        env=datasets,
    )
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    return {task: metrics.get(task, {}).get("AP50") or 0.0 for task in ("bbox", "segm")}, seconds


def _both_learn(stock: dict[str, float], ours: dict[str, float], least: float) -> None:
    """The gradients differ in their last digits, and with them, in the end, the two detectors."""
    for task, value in stock.items():
        if min(value, ours[task]) < least or abs(value - ours[task]) > MOST_APART:
            raise Disagreement(f"{task} AP50 {ours[task]:.1f} instead of {value:.1f}")


ROWS = [
    Row(
        name="quickstart",
        what="the training of `make quickstart`, from start to exit: 700 iterations and two evaluations",
        same=f"box and mask AP50 of at least {LEAST_AP50} and at most {MOST_APART} points apart",
        # No row may cost another; single runs of the same thing are a twentieth apart.
        goal=1.0,
        must=1.05,
        prepare=_prepare,
        long=True,
    )
]
