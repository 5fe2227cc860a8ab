"""The table at the head of every log: what a run starts from, what it trains, on what and how long."""

from __future__ import annotations

import logging
import os

from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from tabulate import tabulate
from torch import nn

from ..data.preparing import dataset_names, learns_masks
from ..drawing.mapped_images import class_names
from ..lazy import stock_name
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
        *([("data", cfg.train.data)] if cfg.train.data else []),
        ("images", _images(cfg)),
        ("classes", _classes(cfg)),
        *[("objects", words) for words in [_objects(cfg)] if words],
        ("evaluated by", _evaluator(cfg)),
        ("run folder", os.path.abspath(cfg.train.output_dir)),
    ]  # fmt: skip


def _images(cfg: DictConfig) -> str:
    trained, tested = (
        OmegaConf.select(cfg, f"dataloader.{split}.dataset.names") for split in ("train", "test")
    )
    both = {*dataset_names(cfg, "train")} & {*dataset_names(cfg, "test")}
    remark = f"; AP says how well {', '.join(sorted(both))} was learnt" if both else ""
    return f"{trained}, tested on {tested}{remark}"


def _classes(cfg: DictConfig) -> str:
    classes = class_names(cfg)
    if not classes:
        return "not known: the data does not say"
    return f"{len(classes)}: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}"


def _objects(cfg: DictConfig) -> str:
    """Of the training data, where it is in COCO's format: how many, and what masks they have."""
    known = [MetadataCatalog.get(name).get("counts") for name in dataset_names(cfg, "train")]
    if not known or None in known:
        return ""
    total = {key: sum(counts[key] for counts in known) for key in ("objects", "images", "crowds")}
    masks = sum(counts["with_masks"] for counts in known)
    runs = sum(counts["run_lengths"] for counts in known)
    form = OmegaConf.select(cfg, "dataloader.train.mapper.instance_mask_format") or "polygon"
    of_masks = "masks in run lengths" if runs == masks else "masks" if runs else "polygons"
    words = f"{total['objects']:,} in {total['images']:,} images, and {total['crowds']:,} crowds"
    learnt = f"learnt as {form}s" if learns_masks(cfg) else "not learnt"
    return f"{words}; {masks:,} with {of_masks}, {learnt}" if masks else f"{words}; no masks"


def _evaluator(cfg: DictConfig) -> str:
    evaluator = cfg.dataloader.evaluator
    if not isinstance(evaluator, DictConfig):
        return f"{len(evaluator)} evaluators"
    tasks = evaluator.get("tasks")
    name = stock_name(evaluator.get("_target_")).rpartition(".")[2]
    return f"{name}, {', '.join(tasks)}" if tasks else name


class _Known(dict):
    """Formats what a foreign provenance lacks as a question mark."""

    def __missing__(self, key: str) -> str:
        return "?"
