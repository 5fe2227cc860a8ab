"""The training commands of a project's README, run as they stand there, in a size that fits a CPU."""

from __future__ import annotations

import shlex
from pathlib import Path

from page_commands import commands

CHECKOUT = Path(__file__).parent.parent

TINY_FPN = (
    "model.proposal_generator.batch_size_per_image=16",
    "model.proposal_generator.pre_nms_topk=[100,50]",
    "model.proposal_generator.post_nms_topk=[20,10]",
    "model.roi_heads.batch_size_per_image=8",
    "model.roi_heads.box_predictor.test_topk_per_image=5",
    # A detector that has hardly trained is sure of nothing; there must be something to evaluate.
    "model.roi_heads.box_predictor.test_score_thresh=0.0",
)
"""What makes the R-CNN recipes of any project small; C4's as well."""

TINY_RUN = (
    "train.device=cpu",
    "train.seed=1",
    "train.max_iter=2",
    "train.log_period=1",
    "train.draw_batches=0",
    # No second copy of the weights.
    "train.best_metric=null",
    "train.precise_bn.num_iter=1",
    "dataloader.train.total_batch_size=2",
    "train.scale_lr=none",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.train.mapper.augmentations.0.short_edge_length=64",
    "dataloader.train.mapper.augmentations.0.sample_style=choice",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
)
"""Two iterations of two images of 64 pixels, and an evaluation."""


def project_config(path: str):
    """A config by its path in the checkout, as `LazyConfig.load` gives it."""
    from detectron2.config import LazyConfig

    return LazyConfig.load(str(CHECKOUT / path))


def training_commands(readme: str) -> list[str]:
    """The lines of a README (its path in the checkout) that call tools/train_net.py."""
    lines = commands((CHECKOUT / readme).read_text(encoding="utf-8"))
    return [line for line in lines if line.startswith("python tools/train_net.py")]


def run_training_command(
    runs,
    line: str,
    folder: Path,
    *overrides: str,
    gpus: str = "--num-gpus 8",
    without: str | tuple[str, ...] = (),
    **more,
) -> None:
    """Run a command line to its end, on the CPU and in `folder`; it must end well.

    The process is one of `runs` (see running.Runs), which has everything imported already. What the line says
    holds, but for `gpus` and where `overrides` say otherwise. What makes it small is left out where it begins
    as `without`; `more` are flags of tools/train_net.py.
    """
    from running import output

    from tools import train_net

    assert gpus in line, f"{line!r} is not for 8 GPUs"
    words = shlex.split(line.replace(gpus, ""))[2:]
    flags = vars(train_net.parser().parse_intermixed_args(words))
    flags["config_file"] = str(CHECKOUT / flags["config_file"])
    given = [word for word in flags.pop("opts") if not word.startswith("train.output_dir=")]
    tiny = [word for word in (*TINY_RUN, *TINY_FPN) if not word.startswith(without)]
    status = runs.run(folder, *given, *tiny, *overrides, **flags | more)
    assert status == [0], f"{line}\n{output(folder)[-3000:]}"
