"""The scalars of a run, as a file of JSON lines and as TensorBoard's events."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import sys
from collections.abc import Callable, Mapping

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ...errors import InputError
from ...files import write_atomically

logger = logging.getLogger("detectron2")

TIMED = ("time", "data_time", "data_wait", "images_per_second", "memory")
"""Entries that no two runs have in common; all others are the same in a run that was resumed."""


def measured(storage: EventStorage, images: int) -> dict[str, float]:
    """What follows from the time that this iteration took, and from the memory in use so far.

    Args:
        images: of one iteration, of all processes together; 0 if that is not known.

    Returns:
        "memory" in MiB (the most that PyTorch held on the GPU, or the process's resident set on the CPU) and,
        where the iteration was timed, "images_per_second" and "data_wait" (the share of the time, 0 to 1).
    """
    now = current(storage)
    result = {"memory": peak_memory()}
    if now.get("time"):
        if images:
            result["images_per_second"] = images / now["time"]
        if "data_time" in now:
            result["data_wait"] = now["data_time"] / now["time"]
    return result


def current(storage: EventStorage) -> dict[str, float]:
    """The scalars that were put in this iteration, unsmoothed."""
    return {name: value for name, (value, at) in storage.latest().items() if at == storage.iter}


def peak_memory() -> float:
    """MiB."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    # Bytes on macOS, KiB elsewhere.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def cut_back(path: str, iteration: int) -> None:
    """Keep of a metrics file what was written before `iteration`; a line cut short by a crash goes too.

    Raises:
        InputError: the file cannot be written.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read()
    kept = b"".join(
        line
        for line in content.splitlines(keepends=True)
        if line.endswith(b"\n") and _iteration(line) < iteration
    )
    if kept != content:
        write_atomically(path, lambda file: file.write(kept))


def _iteration(line: bytes) -> float:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return float(json.loads(line)["iteration"])
    return math.inf


class MetricsLog(HookBase):
    """Writes the scalars of an iteration, as they are, to `folder`/metrics.json and to TensorBoard.

    One line every `period` iterations, at each evaluation and at the end; it comes after all hooks that put
    scalars. `recipe` stands in each line, so that it can be seen from where on a resumed run had another
    config. Before training the file is cut back to what came before the first iteration, so that it ends
    the same whether the run was interrupted or not, but for `TIMED`. What cannot be written is told once,
    kept, and tried again with the next line.

    Args:
        images: of one iteration, of all processes together.
        eval_period: iterations between two evaluations; 0 for none but the last.
        recipe: the fingerprint; its first 12 digits are written.
    """

    def __init__(
        self, folder: str, period: int, *, images: int, eval_period: int = 0, recipe: str = ""
    ):
        self._folder, self._path = folder, os.path.join(folder, "metrics.json")
        self._period, self._eval_period = period, eval_period
        self._images, self._recipe = images, recipe[:12]
        self._events = _Events(folder)
        self._unwritten: list[bytes] = []
        self._written_iteration = -1
        self._failing: set[str] = set()

    def before_train(self) -> None:
        if not comm.is_main_process() or not os.path.exists(self._path):
            return
        if self.trainer.start_iter == 0 and os.path.getsize(self._path):
            # Of another run in the same folder.
            self._attempt("metrics.json", lambda: os.replace(self._path, f"{self._path}.before"))
            return
        self._cut_back(self.trainer.start_iter)

    def after_step(self) -> None:
        if not comm.is_main_process():
            return
        if self.trainer.iter < self.trainer.start_iter:
            # The rest of the checkpoint's iteration is done again after resuming.
            self._cut_back(self.trainer.iter)
        done = self.trainer.iter + 1
        due = done % self._period == 0 or (self._eval_period and done % self._eval_period == 0)
        if due or done >= self.trainer.max_iter or getattr(self.trainer, "stop", None):
            self._write()

    def after_train(self) -> None:
        if not comm.is_main_process():
            return
        finished = self.trainer.iter >= self.trainer.max_iter
        if finished and self.trainer.storage.iter > self._written_iteration:
            # Detectron2's own evaluation hook evaluates the last time when the training has ended.
            self._write()
        self._events.close()

    def _write(self) -> None:
        storage = self.trainer.storage
        values = current(storage)
        if not values:
            return
        values |= measured(storage, self._images)
        # JSON has no NaN: the AP of objects that the test set does not hold.
        entry = {name: value if math.isfinite(value) else None for name, value in values.items()}
        entry |= {"iteration": storage.iter, "recipe": self._recipe}
        self._unwritten.append((json.dumps(entry, sort_keys=True) + "\n").encode())
        self._written_iteration = storage.iter
        if self._attempt("metrics.json", self._append):
            self._attempt("TensorBoard's events", lambda: self._events.write(values, storage.iter))

    def _append(self) -> None:
        _append_whole(self._path, b"".join(self._unwritten))
        self._unwritten.clear()

    def _cut_back(self, iteration: int) -> None:
        if os.path.exists(self._path):
            self._attempt("metrics.json", lambda: cut_back(self._path, iteration))

    def _attempt(self, what: str, action: Callable[[], None]) -> bool:
        """Whether it went well; the first failure is told, and the first success after it."""
        try:
            action()
        except (OSError, InputError) as error:
            if what not in self._failing:
                self._failing.add(what)
                logger.warning(
                    f"{what} cannot be written: {error}. Training goes on and tries again at each line; free "
                    f"some space, or make {self._folder} a folder that can be written to"
                )
            return False
        if what in self._failing:
            self._failing.remove(what)
            logger.info(f"{what} can be written again.")
        return True


class _Events:
    """TensorBoard's event file, begun at the first value and begun anew after a failure."""

    def __init__(self, folder: str):
        self._folder = folder
        self._writer = None

    def write(self, values: Mapping[str, float], iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        try:
            if self._writer is None:
                if not os.path.isdir(self._folder):
                    # SummaryWriter would make it again.
                    raise FileNotFoundError(f"{self._folder} is gone")
                # Events of a run that was ended later than its checkpoint are hidden from here on.
                self._writer = SummaryWriter(self._folder, purge_step=iteration)
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)
            self._writer.flush()
        except OSError:
            self._forget()
            raise

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _forget(self) -> None:
        self.close()
        self._writer = None


def _append_whole(path: str, lines: bytes) -> None:
    """Append all of `lines` or nothing of them."""
    with open(path, "ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(lines) != len(lines):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise
