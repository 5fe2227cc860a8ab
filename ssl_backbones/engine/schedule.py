"""The learning-rate schedule of a config, its warm-up counted in iterations."""

from __future__ import annotations

from detectron2.config import instantiate
from fvcore.common.param_scheduler import LinearParamScheduler, ParamScheduler
from omegaconf import DictConfig


def lr_multiplier(cfg: DictConfig) -> ParamScheduler:
    """The config's schedule, its warm-up lasting `train.warmup_iters` iterations whatever `max_iter` is.

    Detectron2 counts the warm-up as a share of the run, so that another `train.max_iter` would stretch it.
    """
    iterations, max_iter = cfg.train.get("warmup_iters"), cfg.train.max_iter
    if iterations is None or "warmup_length" not in cfg.lr_multiplier:
        return instantiate(cfg.lr_multiplier)
    if iterations >= max_iter:
        # The run ends within its warm-up: the first part of the same ramp.
        start = cfg.lr_multiplier.warmup_factor
        return LinearParamScheduler(start, start + (1 - start) * max_iter / iterations)
    cfg.lr_multiplier.warmup_length = iterations / max_iter
    return instantiate(cfg.lr_multiplier)
