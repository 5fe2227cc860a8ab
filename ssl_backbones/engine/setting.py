"""What is known of a run before its model is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from ..modeling.norm import NormChoice
from .launching.world import World


@dataclass(frozen=True)
class Setting:
    """The same in every process of a run, but for `world`'s rank.

    Attributes:
        cfg: as it takes effect: weights resolved, seed drawn, norm chosen, learning rate scaled.
        norm: what stands for SyncBN, and why.
        provenance: of the weights; {} where there is none.
        checkpoint: what a resumed run goes on from.
        batch: batch and learning rate, in words.
        fingerprint: of everything that affects the result.
    """

    cfg: DictConfig
    world: World
    norm: NormChoice
    provenance: Mapping[str, Any]
    checkpoint: str | None
    batch: tuple[str, str]
    fingerprint: str

    @property
    def slots(self) -> int:
        """Micro-batches of an iteration, all processes together."""
        return self.world.size * self.cfg.train.accumulate
