"""When a run is evaluated, which checkpoint is its best, and when it ends for want of a better one."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

from detectron2.engine import HookBase, TrainerBase
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ...errors import InputError
from ...evaluation.coco import Average, check_options, evaluate, evaluate_weights
from ..checkpoints.checkpointer import StrictCheckpointer

logger = logging.getLogger(__name__)


def evaluation_due(trainer: TrainerBase, period: int) -> bool:
    """Whether the iteration just done is followed by an evaluation: every `period`-th, and the last."""
    done = trainer.iter + 1
    return done >= trainer.max_iter or (period > 0 and done % period == 0)


class EvaluationsHook(HookBase):
    """Evaluates every `train.eval_period` iterations and at the end, and acts on `train.best_metric`.

    Every process gets the metrics into its event storage, those that are numbers: "bbox/AP", of averaged
    weights "ema/bbox/AP", of a subset of the images "subset/bbox/AP". The checkpoint with the best one is
    kept as `model_best`; after `train.patience` evaluations without a better one, training is asked to stop.
    The last evaluation takes all images, and `train.tta` if it is enabled; `train.eval_at_start` adds one
    before the first iteration, in `inference_start`, that is not among the metrics.

    What it does in an iteration follows from its `state_dict` before and from the weights, so that a run that
    was killed meanwhile does the same again.

    Args:
        cfg: reads `dataloader` and `train`.
        ema: averaged weights, evaluated beside the model's own.

    Raises:
        InputError: `train.best_metric` is of averaged weights, and there are none; `train.eval_subset` or
            `train.tta` does not go with this model or evaluator.
    """

    def __init__(
        self,
        cfg: DictConfig,
        model: nn.Module,
        checkpointer: StrictCheckpointer,
        ema: Average | None = None,
    ):
        self._cfg, self._model, self._checkpointer, self._average = cfg, model, checkpointer, ema
        self._metric = cfg.train.best_metric
        tta = cfg.train.tta if cfg.train.tta.enabled else None
        check_options(cfg.dataloader, model, subset=cfg.train.eval_subset, tta=tta)
        if self._metric and self._metric.startswith("ema/") and ema is None:
            raise InputError(
                f"train.best_metric={self._metric} needs averaged weights: add train.ema.enabled=True"
            )
        self._best, self._best_iteration, self._since = -math.inf, -1, 0
        self._told = False

    def before_train(self) -> None:
        train = self._cfg.train
        if train.eval_at_start and self.trainer.start_iter == 0:
            folder = os.path.join(train.output_dir, "inference_start")
            evaluate(self._cfg.dataloader, self._model, folder)

    def after_step(self) -> None:
        train = self._cfg.train
        if not evaluation_due(self.trainer, train.eval_period):
            return
        metrics = self._evaluate(subset=train.eval_subset)
        if self._metric:
            self._judge(metrics)
        if self.trainer.iter + 1 < self.trainer.max_iter and not self.trainer.stop:
            return
        if train.eval_subset:
            self._evaluate()
        if train.tta.enabled:
            self._evaluate(augmented=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_iteration": self._best_iteration, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._best, self._since = state["best"], state["since"]
        self._best_iteration = state["best_iteration"]

    def _evaluate(self, subset: int = 0, augmented: bool = False) -> dict[str, float]:
        metrics = evaluate_weights(
            self._cfg, self._model, self._average, subset=subset, augmented=augmented
        )
        prefix = "subset/" if subset else ""
        measured = {f"{prefix}{k}": v for k, v in metrics.items() if math.isfinite(v)}
        self.trainer.storage.put_scalars(smoothing_hint=False, **measured)
        return metrics

    def _judge(self, metrics: Mapping[str, float]) -> None:
        """Keep the checkpoint if it is the best so far; ask for the end if there was none for long."""
        value = self._value(metrics)
        if value > self._best:
            # Before the state changes: what is in the file is done again by a run that starts from it.
            self._save()
            self._best, self._best_iteration, self._since = value, self.trainer.iter, 0
            return
        self._since += 1
        if 0 < self._cfg.train.patience <= self._since:
            self.trainer.stop = (
                f"no better {self._metric} in {self._since} evaluations (train.patience): the best was "
                f"{self._best:.4f} at iteration {self._best_iteration}"
            )

    def _value(self, metrics: Mapping[str, float]) -> float:
        """The metric that decides; NaN, which is never better, where it was not measured.

        Raises:
            InputError: the evaluation has no such metric, and `train.patience` waits for it.
        """
        measured = [name for name, value in metrics.items() if math.isfinite(value)]
        if self._metric in metrics or not measured:
            return metrics.get(self._metric, math.nan)
        names = ", ".join(name for name in metrics if "-" not in name)
        message = (
            f"train.best_metric={self._metric} is no metric of this evaluation, which has {names}"
        )
        if self._cfg.train.patience:
            raise InputError(f"{message}; use one of them, or train.patience=0")
        if not self._told:
            self._told = True
            logger.warning(f"{message}: no model_best is kept")
        return math.nan

    def _save(self) -> None:
        if not comm.is_main_process():
            return
        try:
            self._checkpointer.save("model_best", tag=False)
        except InputError as error:
            # Training goes on: there is the periodic checkpoint, and perhaps a better one comes.
            logger.error(f"no model_best of iteration {self.trainer.iter}: {error}")
