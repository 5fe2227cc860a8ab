"""Detectron2's lazy calls, looked at without making them."""

from __future__ import annotations

from typing import Any

from detectron2.utils.registry import locate
from omegaconf import DictConfig


def target_of(call: DictConfig) -> Any:
    """What a lazy call calls; configs read from YAML have its name instead."""
    target = call.get("_target_")
    return locate(target) if isinstance(target, str) else target
