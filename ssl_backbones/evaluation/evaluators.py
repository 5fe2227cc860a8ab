"""The evaluators of a config, made as Detectron2 makes them."""

from __future__ import annotations

import inspect
import os
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig, ListConfig

from ..compat import has_compiled_coco_evaluation
from ..lazy import target_of


def build_evaluator(dataloader_cfg: DictConfig, output_dir: str) -> Any:
    """What `dataloader.evaluator` describes: an evaluator, or a list of them if the config has one."""
    cfg = dataloader_cfg.evaluator
    os.makedirs(output_dir, exist_ok=True)
    if isinstance(cfg, ListConfig):
        return [instantiate(_prepared(one, cfg, output_dir)) for one in cfg]
    return instantiate(_prepared(cfg, dataloader_cfg, output_dir))


def _prepared(
    evaluator: DictConfig, parent: DictConfig | ListConfig, output_dir: str
) -> DictConfig:
    """A config's evaluator, with what it takes of: an output folder, an implementation that exists."""
    evaluator = evaluator.copy()
    evaluator._set_parent(parent)  # keeps its interpolations alive
    parameters = inspect.signature(target_of(evaluator)).parameters
    if "output_dir" in parameters and evaluator.get("output_dir") is None:
        evaluator.output_dir = output_dir
    if "use_fast_impl" in parameters and not has_compiled_coco_evaluation():
        evaluator.use_fast_impl = False
    return evaluator
