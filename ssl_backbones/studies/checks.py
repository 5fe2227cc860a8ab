"""What can be known to be wrong with any run of an evaluation, before the first of them starts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..errors import InputError
from .evaluation import Evaluation, do_step
from .protocol_runs import Run

SET_BY = {
    "train.seed": "--seed",
    "train.init_checkpoint": "CHECKPOINT",
    "train.output_dir": "--output",
    "train.device": "--device",
}
"""Keys of a config that are no override here, and what sets them."""

_DATASET = "dataloader.train.dataset.names"


def check_overrides(evaluation: Evaluation, words: list[str]) -> None:
    """Refuse overrides that the runs would not follow.

    Args:
        words: as a user gave them.

    Raises:
        InputError: with what to use instead.
    """
    folds = next((p.name for p in evaluation.protocols if p.folds), None)
    set_by = SET_BY if folds is None else {**SET_BY, _DATASET: f"--folds, which {folds} has"}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is no override: write key=value")
        for ours, option in set_by.items():
            if f"{ours}.".startswith(f"{key.strip()}."):
                raise InputError(f"override {word!r}: {ours} is set by {option}")


def check_start(evaluation: Evaluation, device: str, processes: int) -> None:
    """Refuse what some run would be refused for, before hours of others; makes the files that runs need.

    Nothing is written into the folder of the evaluation.

    Args:
        device: "cuda" or "cpu".
        processes: of each run.

    Raises:
        InputError: the first thing found wrong.
    """
    evaluation.check_results()
    # Reads the checkpoint, unless it is a name.
    evaluation.conversion()
    if device == "cuda":
        _check_gpus(processes)
    for step in evaluation.preparations():
        print(f"\n== preparation\n$ {step.command({})}", flush=True)
        with tempfile.TemporaryDirectory() as logs:
            outcome = do_step(step, Path(logs))
            if outcome.status:
                said = outcome.last_line().removeprefix("error: ")
                raise InputError(f"{step.command({})}: {said}")
    for protocol in evaluation.protocols:
        for run in evaluation.missing(protocol):
            _check_run(evaluation, run, processes)


def _check_gpus(processes: int) -> None:
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise InputError("this machine has no usable GPU: add --device cpu to run on the CPU")
    if processes > found:
        raise InputError(f"--num-gpus {processes}: this machine has {found}; lower it")


def _check_run(evaluation: Evaluation, run: Run, processes: int) -> None:
    from ..data.annotations.splits import check_splits
    from ..engine.config import load_config
    from ..engine.preflight import check_channel_order, check_dataset, dataset_names
    from ..engine.schedule import check_batch

    try:
        cfg = load_config(str(run.protocol.config_path()), [*evaluation.overrides, *run.overrides])
        check_batch(cfg, processes)
        check_channel_order(cfg)
        for split in ("train", "test"):
            check_dataset(cfg, split)
        check_splits(dataset_names(cfg, "train"), dataset_names(cfg, "test"))
    except InputError as error:
        raise InputError(f"protocol {run.protocol.name}: {error}") from error
