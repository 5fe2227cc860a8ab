"""The table at the head of every log: what a run starts from, what it trains, on what and how long."""

from __future__ import annotations

import logging
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate
from torch import nn

from ..modeling.freezing import count_parameters, norms, parts
from .settling import Setting

logger = logging.getLogger("detectron2")


def run_card(setting: Setting, model: nn.Module, weights: str) -> list[tuple[str, str]]:
    """The rows of the table at the head of a run: what it starts from, what it trains, on what, where to.

    Args:
        weights: what was loaded, in words.
    """
    cfg, norm, provenance = setting.cfg, setting.norm, setting.provenance
    rows = [("weights", weights)]
    if provenance:
        origin = "{source} (sha256 {source_sha256:.12}), {method}, converted {date} by {tool}"
        rows.append(("provenance", origin.format_map(_Known(provenance))))
    rows += [
        ("input", f"{cfg.model.get('input_format')}, mean {cfg.model.get('pixel_mean')}, std "
                  f"{cfg.model.get('pixel_std')}"),
        ("norm", f"{norms(model)}; {norm.name} for SyncBN ({norm.reason})"),
    ]  # fmt: skip
    for name, part in parts(model):
        frozen, trainable = count_parameters(part)
        state = (
            "frozen" if not trainable else "trains" if not frozen else f"{frozen:,} of them frozen"
        )
        rows.append((name, f"{frozen + trainable:,} parameters, {state}"))
    return rows + _schedule_rows(setting)


def show(title: str, rows: list[tuple[str, str]]) -> None:
    """Log a table; only the main process's logger prints."""
    logger.info("%s:\n%s", title, tabulate(rows, tablefmt="plain", maxcolwidths=[None, 100]))


def _schedule_rows(setting: Setting) -> list[tuple[str, str]]:
    cfg, processes = setting.cfg, setting.world.size
    batch, learning_rate = setting.batch
    micro = f" x {cfg.train.accumulate} micro-batches" if cfg.train.accumulate > 1 else ""
    scheduler = OmegaConf.select(cfg, "lr_multiplier.scheduler") or {}
    scale = cfg.train.max_iter / scheduler["num_updates"] if scheduler.get("num_updates") else None
    steps = (
        [round(step * scale) for step in scheduler.get("milestones", [])]
        if scale
        else "as configured"
    )
    return [
        ("batch", f"{batch}, by {processes} process{'es' if processes > 1 else ''}{micro}"),
        ("learning rate", learning_rate),
        ("schedule", f"{cfg.train.max_iter:,} iterations, steps at {steps}, warm-up of "
                     f"{cfg.train.get('warmup_iters')}"),
        ("images", _images(cfg)),
        ("run folder", os.path.abspath(cfg.train.output_dir)),
    ]  # fmt: skip


def _images(cfg: DictConfig) -> str:
    trained, tested = (
        OmegaConf.select(cfg, f"dataloader.{split}.dataset.names") for split in ("train", "test")
    )
    both = _names(trained) & _names(tested)
    remark = f"; AP says how well {', '.join(sorted(both))} was learnt" if both else ""
    return f"{trained}, tested on {tested}{remark}"


def _names(given: Any) -> set[str]:
    return {given} if isinstance(given, str) else set(given or ())


class _Known(dict):
    """Formats what a foreign provenance lacks as a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"
