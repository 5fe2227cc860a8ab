"""Signs that a run is not doing what it should, each told once with its mend."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from .metrics_log import current

logger = logging.getLogger("detectron2")

DATA_WAIT = 0.30  # share of the time, over as many iterations as follow
DATA_WAIT_ITERATIONS = 100
NO_FOREGROUND_ITERATIONS = 200
SHORTEST_WARM_UP = 50  # iterations; the losses of fewer say nothing
_FOREGROUND = "roi_head/num_fg_samples"  # what Detectron2's RoI heads put into the storage


class Health(HookBase):
    """Warns of a loader that is too slow, proposals that meet no object, a loss or weights that stand still.

    It looks on and changes nothing. Every process has it, the main one warns.

    Args:
        model: not wrapped for several processes.
        warmup_iters: length of the warm-up, by whose end the loss must have fallen; None if it has none.
        moved_after: iterations after which every trainable tensor must differ from its start.
    """

    def __init__(self, model: nn.Module, warmup_iters: int | None = None, moved_after: int = 100):
        self._model, self._moved_after = model, moved_after
        self._warmup_iters = warmup_iters or 0
        self._waits: deque[tuple[float, float]] | None = deque(maxlen=DATA_WAIT_ITERATIONS)
        self._without_foreground = 0
        self._early, self._late = [0.0, 0], [0.0, 0]
        self._start: dict[str, bytes] = {}

    def before_train(self) -> None:
        if comm.is_main_process():
            self._start = dict(self._hashes())

    def after_step(self) -> None:
        if not comm.is_main_process():
            return
        now = current(self.trainer.storage)
        self._check_data_wait(now)
        self._check_foreground(now)
        self._check_loss(now)
        if self.trainer.iter + 1 - self.trainer.start_iter == self._moved_after:
            self._check_movement()

    def _check_data_wait(self, now: Mapping[str, float]) -> None:
        if self._waits is None or "time" not in now or "data_time" not in now:
            return
        self._waits.append((now["data_time"], now["time"]))
        waited, took = map(sum, zip(*self._waits, strict=True))
        if len(self._waits) == DATA_WAIT_ITERATIONS and waited > DATA_WAIT * took:
            logger.warning(
                f"{waited / took:.0%} of the last {DATA_WAIT_ITERATIONS} iterations' time was spent waiting "
                "for images: raise dataloader.train.num_workers, or put the images on a faster disk"
            )
            self._waits = None

    def _check_foreground(self, now: Mapping[str, float]) -> None:
        counts = [value for name, value in now.items() if name.endswith(_FOREGROUND)]
        if not counts:
            return
        self._without_foreground = 0 if any(counts) else self._without_foreground + 1
        if self._without_foreground == NO_FOREGROUND_ITERATIONS:
            logger.warning(
                f"No proposal met an object in {NO_FOREGROUND_ITERATIONS} iterations: the heads see nothing "
                "but background. Look at what the training mapper yields (are there annotations left, in "
                "pixels of the resized image?) and, if that is right, lower optimizer.lr"
            )

    def _check_loss(self, now: Mapping[str, float]) -> None:
        """Compare the mean loss of the first tenth of the warm-up with that of its last tenth."""
        iteration, length = self.trainer.iter, self._warmup_iters
        if length < SHORTEST_WARM_UP or iteration >= length or "total_loss" not in now:
            return
        tenth = length // 10
        for part, inside in (
            (self._early, iteration < tenth),
            (self._late, iteration >= length - tenth),
        ):
            if inside:
                part[0] += now["total_loss"]
                part[1] += 1
        if iteration == length - 1 and self._early[1]:
            before, after = (total / count for total, count in (self._early, self._late))
            if after >= before:
                logger.warning(
                    f"The loss did not fall through the warm-up: {before:.4g} in its first {tenth} "
                    f"iterations, {after:.4g} in its last. Lower optimizer.lr and "
                    "make sure that weights, channel order and annotations are what the log's head says"
                )

    def _check_movement(self) -> None:
        same = [name for name, found in self._hashes() if found == self._start.get(name)]
        if same:
            shown = ", ".join(same[:5]) + (f" and {len(same) - 5} more" if len(same) > 5 else "")
            logger.warning(
                f"{len(same)} trainable tensors did not move by one bit in {self._moved_after} iterations: "
                f"{shown}. They are not in the optimizer, or no loss depends on them: add or freeze them"
            )
        self._start = {}

    def _hashes(self):
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                content = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
                yield name, hashlib.blake2b(content, digest_size=16).digest()

    def state_dict(self) -> dict[str, Any]:
        return {
            "without_foreground": self._without_foreground,
            "early_loss": list(self._early),
            "late_loss": list(self._late),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._without_foreground = state["without_foreground"]
        self._early, self._late = list(state["early_loss"]), list(state["late_loss"])
