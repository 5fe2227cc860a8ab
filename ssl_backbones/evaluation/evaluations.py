"""The evaluations of one model: its own weights, their average beside them, with and without augmentation."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from .coco import evaluate
from .metrics import flatten


class Average(Protocol):
    """Averaged weights that a model can have for the time of a `with` block."""

    def applied(self) -> AbstractContextManager[None]: ...


def evaluate_weights(
    cfg: DictConfig,
    model: nn.Module,
    average: Average | None = None,
    *,
    subset: int = 0,
    augmented: bool = False,
) -> dict[str, float]:
    """Evaluate `model`, and once more with its averaged weights if there are any.

    The results lie in the run folder in `inference`, and in `inference_ema`, `inference_tta`,
    `inference_subset` and so on for what else was asked for. Every process must call it.

    Args:
        subset: number of images, evenly spread over the test set; 0 for all.
        augmented: use `train.tta`.

    Returns:
        Metrics in percent by name, on every process: "bbox/AP", of averaged weights "ema/bbox/AP", with
        augmentation "tta/bbox/AP" and "ema/tta/bbox/AP".
    """
    tta = cfg.train.tta if augmented else None
    found: dict[str, float] = {}
    for weights in ("", "ema") if average else ("",):
        folder = "_".join(
            filter(
                None, ("inference", "subset" if subset else "", weights, "tta" if augmented else "")
            )
        )
        with average.applied() if weights else nullcontext():
            results = evaluate(
                cfg.dataloader,
                model,
                os.path.join(cfg.train.output_dir, folder),
                subset=subset,
                tta=tta,
            )
        prefix = "".join(f"{part}/" for part in (weights, "tta" if augmented else "") if part)
        found |= {f"{prefix}{name}": value for name, value in flatten(results).items()}
    return comm.all_gather(found)[0]


def evaluate_all(
    cfg: DictConfig, model: nn.Module, average: Average | None = None
) -> dict[str, float]:
    """What is told of a finished model: all images, and with augmentation too if `train.tta` asks for it."""
    found = evaluate_weights(cfg, model, average)
    if cfg.train.tta.enabled:
        found |= evaluate_weights(cfg, model, average, augmented=True)
    return found
