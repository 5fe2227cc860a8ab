"""How far a run is: a bar with the time that is left on a terminal, plain lines in the log."""

from __future__ import annotations

import logging
import statistics
import sys
from collections import deque
from datetime import timedelta

from detectron2.engine import HookBase
from detectron2.utils import comm
from rich import progress
from rich.console import Console

from .metrics_log import current, measured

logger = logging.getLogger("detectron2")

_SMOOTHED = 20  # iterations whose median is shown, as in Detectron2's own printer
_TIMED = 1000  # iterations whose median tells how long the rest will take


class Progress(HookBase):
    """Tells losses, learning rate, speed, wait for data, memory and time left, every `period` iterations.

    The lines go to Detectron2's log, of which log.txt is a part. On a terminal they go to the file alone, and
    a bar tells the same; other lines of the log pass above it.

    Args:
        images: of one iteration, of all processes together.
        console: where the bar is drawn, if that is a terminal; standard output if not given.
    """

    def __init__(self, period: int, *, images: int, console: Console | None = None):
        self._period, self._images = period, images
        self._console = console or Console()
        self._bar: progress.Progress | None = None
        self._losses: dict[str, deque[float]] = {}
        self._times: deque[float] = deque(maxlen=_TIMED)

    def before_train(self) -> None:
        if comm.is_main_process() and self._console.is_terminal:
            self._begin_bar()

    def after_step(self) -> None:
        if not comm.is_main_process():
            return
        now = current(self.trainer.storage)
        for name in (name for name in now if "loss" in name):
            self._losses.setdefault(name, deque(maxlen=_SMOOTHED)).append(now[name])
        if "time" in now:
            self._times.append(now["time"])
        left = self._time_left()
        done = self.trainer.iter + 1
        if self._bar:
            loss = self._losses.get("total_loss")
            shown = f"loss {statistics.median(loss):.4g}" if loss else ""
            state = {"completed": done, "left": left or "?", "loss": shown}
            self._bar.update(self._task, refresh=True, **state)
        if done % self._period == 0 or done == self.trainer.max_iter:
            logger.info(self._line(now, left), extra={"on_bar": self._bar is not None})

    def after_train(self) -> None:
        if self._bar:
            self._end_bar()

    def _time_left(self) -> str | None:
        if not self._times:
            return None
        iterations = self.trainer.max_iter - self.trainer.iter - 1
        return str(timedelta(seconds=int(statistics.median(self._times) * iterations)))

    def _line(self, now: dict[str, float], left: str | None) -> str:
        """One line in the manner of Detectron2's CommonMetricPrinter, for those who parse its logs."""
        numbers = {**now, **measured(self.trainer.storage, self._images)}
        losses = [f"{k}: {statistics.median(values):.4g}" for k, values in self._losses.items()]
        formats = {
            "grad_norm": ("grad_norm", "{:.4g}"),
            "time": ("time", "{:.4f}"),
            "data_time": ("data_time", "{:.4f}"),
            "data_wait": ("data_wait", "{:.0%}"),
            "images_per_second": ("images/s", "{:.4g}"),
            "lr": ("lr", "{:.5g}"),
            "memory": ("max_mem", "{:.0f}M"),
        }
        shown = [f"{k}: {f.format(numbers[n])}" for n, (k, f) in formats.items() if n in numbers]
        start = [f"eta: {left}"] if left else []
        return " " + "  ".join([*start, f"iter: {self.trainer.iter}", *losses, *shown])

    def _begin_bar(self) -> None:
        self._moved = [(handler, handler.stream) for handler in _terminal_handlers()]
        self._bar = progress.Progress(
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[left]} left"),
            progress.TextColumn("{task.fields[loss]}"),
            console=self._console,
            # A thread of its own might hold the terminal's lock when the loader forks its workers.
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=self.trainer.max_iter, completed=self.trainer.start_iter, left="?", loss=""
        )
        for handler, _ in self._moved:
            # rich has put a stream into the place of standard output that prints above the bar.
            handler.setStream(sys.stdout)
            handler.addFilter(_is_off_the_bar)

    def _end_bar(self) -> None:
        for handler, stream in self._moved:
            handler.setStream(stream)
            handler.removeFilter(_is_off_the_bar)
        self._bar.stop()
        self._bar = None


def _terminal_handlers() -> list[logging.StreamHandler]:
    """Those of all loggers that write to standard output or error."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {h for logger in loggers for h in getattr(logger, "handlers", ())}
    return [
        handler
        for handler in handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)
    ]


def _is_off_the_bar(record: logging.LogRecord) -> bool:
    return not getattr(record, "on_bar", False)
