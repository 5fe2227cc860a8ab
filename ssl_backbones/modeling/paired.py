"""Models whose parts start alike whatever stands beside them, so that runs differ in the backbone alone."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from ..seeding import SeededByDraw, place_of


def build_paired(model: DictConfig, seed: int) -> nn.Module:
    """What `instantiate` makes of a model's config, each part's initial weights from a stream of its own.

    Of equal seeds RPN and heads are equal bit for bit, also behind another backbone, and so is all of an FPN
    but the convolutions that take the backbone's own widths. Without this a part's weights depend on how
    many numbers those before it have drawn.
    """
    return _build(model, "model", seed)


def _build(part: object, name: str, seed: int) -> object:
    """Parts that have parts with a name of their own (the model and its backbone) are built from below."""
    if not isinstance(part, Mapping) or "_target_" not in part:
        return part
    below = _PARTS.get(name, ())
    built = {key: _build(part[key], key, seed) if key in below else part[key] for key in part}
    with SeededByDraw(seed, place_of(name)):
        return instantiate(built)


_PARTS = {
    "model": ("backbone", "proposal_generator", "roi_heads", "sem_seg_head", "head"),
    "backbone": ("bottom_up",),
}
"""Of Detectron2's detectors."""
