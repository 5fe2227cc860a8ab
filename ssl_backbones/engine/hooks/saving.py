"""When a checkpoint is written, how many are kept, and what happens when one cannot be written."""

from __future__ import annotations

import logging
import os
import time

from detectron2.engine import HookBase
from detectron2.utils import comm

from ...errors import InputError
from ...hashing import why_unusable
from ..checkpoints.checkpoint_folder import copy, keep_newest, remove_unfinished
from ..checkpoints.checkpointer import StrictCheckpointer
from .evaluations import evaluation_due

logger = logging.getLogger(__name__)

# Waited before each new attempt, in seconds: a network file system's hiccup, not a full disk, is over then.
RETRIES = (1, 5, 15)


class Checkpoints(HookBase):
    """Saves every `period` iterations, before every evaluation, when the run is asked to end, and at the end.

    It comes after the hooks that change the state (learning rate, averages) and before those that tell of it
    (evaluation, metrics): what follows is done again after resuming. A periodic checkpoint that cannot be
    written is an error in the log, and training goes on with the last good one; the last checkpoint of a
    run must be written.

    Args:
        period: iterations between two checkpoints.
        max_to_keep: how many periodic ones are kept (None: all); model_best and model_final are not counted.
        eval_period: iterations between two evaluations; 0 for none but the last.
    """

    saves = True

    def __init__(
        self,
        checkpointer: StrictCheckpointer,
        period: int,
        max_to_keep: int | None = 5,
        eval_period: int = 0,
    ):
        self._checkpointer, self._period, self._max_to_keep = checkpointer, period, max_to_keep
        self._eval_period = eval_period

    def before_train(self) -> None:
        if comm.is_main_process():
            remove_unfinished(self._checkpointer.save_dir)

    def after_step(self) -> None:
        trainer = self.trainer
        done = trainer.iter + 1
        is_last = done == trainer.max_iter
        is_due = done % self._period == 0 or evaluation_due(trainer, self._eval_period)
        if not (is_due or trainer.preempted):
            return
        name = "model_final" if is_last else f"model_{trainer.iter:07d}"
        saved = comm.is_main_process() and self._save(name, must=is_last or trainer.preempted)
        # No rank goes on, or ends, before the file is there.
        if comm.all_gather(saved)[0]:
            trainer.mark_saved()

    def _save(self, name: str, must: bool) -> bool:
        for wait in (*RETRIES, None):
            try:
                self._checkpointer.save(name)
                keep_newest(self._checkpointer.save_dir, self._max_to_keep, name)
                return True
            except (InputError, OSError) as error:
                if wait is not None:
                    logger.warning(f"{error}; trying again in {wait} s")
                    time.sleep(wait)
                elif must:
                    raise
                else:
                    logger.error(f"no checkpoint of iteration {self.trainer.iter}: {error}")
        return False

    def after_train(self) -> None:
        """Ended early by a hook: the checkpoint of that iteration is the final one.

        Raises:
            InputError: it could not be written at the time.
        """
        trainer, folder = self.trainer, self._checkpointer.save_dir
        if not trainer.stop or trainer.iter >= trainer.max_iter or not comm.is_main_process():
            return
        name = f"model_{trainer.iter - 1:07d}"
        reason = why_unusable(os.path.join(folder, f"{name}.pth"))
        if reason:
            raise InputError(f"no model_final of iteration {trainer.iter - 1}: {reason}")
        copy(folder, name, "model_final")
