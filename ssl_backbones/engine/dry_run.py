"""What a run would take, from three iterations and one evaluation batch of it, in a folder that goes away."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from detectron2.config import instantiate
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..evaluation.coco import unwrapped
from .hooks.metrics_log import peak_memory
from .trainer import Trainer

ITERATIONS = 3  # the first of which, which warms everything up, is not counted


@dataclass(frozen=True)
class Costs:
    """Of the slowest and largest of all processes.

    Attributes:
        iteration: seconds.
        evaluation_batch: seconds.
        evaluation_batches: of the whole test set, in each process.
        test_images: of the whole test set, in all processes.
        memory: MiB at most.
        checkpoint: bytes of one file.
    """

    iteration: float
    evaluation_batch: float
    evaluation_batches: int
    test_images: int
    memory: float
    checkpoint: int


@contextmanager
def temporary_run_folder(args: Namespace, cfg: DictConfig) -> Iterator[None]:
    """Let the processes that parse `args` have a run folder that is removed after the `with` block.

    `args.planned_folder` keeps the one that was meant.
    """
    with tempfile.TemporaryDirectory(prefix="dry_run_") as folder:
        args.planned_folder = cfg.train.output_dir
        args.opts = [*args.opts, f"train.output_dir='{folder}'"]
        yield


def dry_run(cfg: DictConfig, trainer: Trainer, planned_folder: str) -> list[tuple[str, str]]:
    """Run three iterations and one evaluation batch; returns rows that say what the whole schedule takes.

    Every process must call it. The trainer should have the hooks that change its state and no others: no
    checkpoint is written and no evaluation finished. Its weights are of no use afterwards.

    Args:
        planned_folder: the run folder that the real run would have; looked at, not made.
    """
    costs = measure(cfg, trainer)
    return [*estimate(cfg, costs), ("disk", _disk(cfg, costs, planned_folder))]


def measure(cfg: DictConfig, trainer: Trainer) -> Costs:
    """The costs, by doing a little of everything."""
    stopwatch = _Stopwatch()
    trainer.register_hooks([stopwatch])
    trainer.train(0, ITERATIONS)
    model = unwrapped(trainer.model)
    loader = instantiate(cfg.dataloader.test)
    batch_seconds = _time_one_batch(model, loader)
    timed = stopwatch.seconds[1:]
    own = (sum(timed) / len(timed), batch_seconds, len(loader), peak_memory())
    # Each column's largest: the others wait for it.
    iteration, batch_seconds, batches, memory = map(max, zip(*comm.all_gather(own), strict=True))
    checkpoint = _bytes(model.state_dict()) + _bytes(trainer.optimizer.state_dict())
    if cfg.train.ema.enabled:
        checkpoint += _bytes(model.state_dict())
    return Costs(iteration, batch_seconds, batches, len(loader.dataset), memory, checkpoint)


def estimate(cfg: DictConfig, costs: Costs) -> list[tuple[str, str]]:
    """The arithmetic, in words: time of training and of evaluation, and memory."""
    options = cfg.train
    training = options.max_iter * costs.iteration
    count = math.ceil(options.max_iter / options.eval_period) if options.eval_period else 1
    whole = costs.evaluation_batches * costs.evaluation_batch
    if options.tta.enabled:
        whole *= len(options.tta.min_sizes) * (2 if options.tta.flip else 1)
    if options.ema.enabled:
        whole *= 2
    share = min(1.0, (options.eval_subset or costs.test_images) / max(costs.test_images, 1))
    evaluation = whole * (1 + (count - 1) * share)
    return [
        ("training", f"{options.max_iter:,} iterations of {costs.iteration:.3g} s: {_hours(training)}"),
        ("evaluation", f"{count}, the last one of {_hours(whole)}: {_hours(evaluation)}"),
        ("in all", f"{_hours(training + evaluation)}, without the making of metrics and checkpoints"),
        ("memory", f"{_memory(costs.memory)} at most so far; larger images may take more"),
    ]  # fmt: skip


class _Stopwatch(HookBase):
    """Seconds of each iteration, with what the other hooks do in it."""

    def __init__(self):
        self.seconds: list[float] = []

    def before_train(self) -> None:
        self._last = _now()

    def after_step(self) -> None:
        now = _now()
        self.seconds.append(now - self._last)
        self._last = now


def _time_one_batch(model: nn.Module, loader) -> float:
    """Seconds of one batch of the test set; it is run twice, and the first time is not counted."""
    batch = next(iter(loader))
    model.eval()
    with torch.no_grad():
        model(batch)
        start = _now()
        model(batch)
        seconds = _now() - start
    model.train()
    return seconds


def _now() -> float:
    """Seconds, when all that was asked of the GPU is done."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _bytes(state) -> int:
    """Of all tensors in nested dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(_bytes, state.values()))
    return sum(map(_bytes, state)) if isinstance(state, list | tuple) else 0


def _disk(cfg: DictConfig, costs: Costs, folder: str) -> str:
    """Room for the checkpoints that are kept, model_final and model_best among them."""
    kept = cfg.train.checkpointer.max_to_keep
    if kept is None:
        kept = math.ceil(cfg.train.max_iter / cfg.train.checkpointer.period)
    needed = (kept + 2) * costs.checkpoint
    existing = os.path.abspath(folder)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    verdict = "" if needed < free else ": TOO LITTLE, lower train.checkpointer.max_to_keep"
    return f"{needed / 2**30:.3g} GiB of checkpoints, {free / 2**30:.3g} GiB free in {existing}{verdict}"


def _memory(used: float) -> str:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory / 2**20
        return f"{used:,.0f} of {total:,.0f} MiB of each GPU"
    return f"{used:,.0f} MiB of each process"


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
