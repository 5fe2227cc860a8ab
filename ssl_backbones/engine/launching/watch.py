"""A launcher while its ranks run: it passes signals on, and ends all of them with the first that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist

from .beats import Beats
from .failures import PREEMPTED, Ending, ending_by_exit, first, report, reported, show
from .rendezvous import POLL
from .world import World

# Seconds in which the ranks that ended may tell how, after the first did; longer while none of them knows
# more than that another one is gone.
_SETTLE, _SETTLE_UNKNOWN = 2.0, 5.0

# What tells a run to write a checkpoint and stop.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextlib.contextmanager
def noted_signals() -> Iterator[list[int]]:
    """The signals to stop that arrive while the body runs, in a list that grows."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can be told of signals; a notebook may call from another one.
        yield arrived
        return
    before = {s: signal.signal(s, lambda number, _: arrived.append(number)) for s in _STOP_SIGNALS}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watch:
    """The processes of this machine, and through the store what becomes of the others."""

    def __init__(
        self,
        processes: list[BaseProcess],
        world: World,
        store: dist.Store,
        arrived: list[int],
    ) -> None:
        self.processes, self.world = processes, world
        self.arrived = arrived
        self._passed_on = 0
        self._noted: set[int] = set()
        self._beats = Beats(store, world)
        # None once the launcher that keeps it is gone; what is known then remains.
        self._store: dist.Store | None = store
        self._endings: list[Ending] = []

    def until_the_end(self) -> int:
        """Wait for every rank; returns the exit status."""
        while True:
            alive = self._alive()
            self._look()
            if self._endings:
                return self._fail()
            if not alive:
                self._ask(self._beats.leave)
                return max(process.exitcode for process in self.processes)

    def end_all(self) -> None:
        for process in self._alive():
            process.kill()
        for process in self.processes:
            process.join()

    def tell_of_interruption(self) -> None:
        self._tell(ending_by_exit(self._rank(0), -signal.SIGINT, ()))

    def _rank(self, local_rank: int) -> int:
        return self.world.machine_rank * self.world.processes + local_rank

    def _alive(self) -> list[BaseProcess]:
        return [process for process in self.processes if process.exitcode is None]

    def _look(self) -> None:
        """Pass on what has arrived, wait a moment, and learn who has ended."""
        for number in self.arrived[self._passed_on :]:
            self._passed_on += 1
            for process in self._alive():
                os.kill(process.pid, number)
        wait([process.sentinel for process in self._alive()], timeout=POLL)
        self._ask(self._beats.beat)
        self._hear()
        for local_rank, process in enumerate(self.processes):
            code, rank = process.exitcode, self._rank(local_rank)
            if code not in (None, 0, PREEMPTED) and rank not in self._noted:
                self._noted.add(rank)
                # It may have told of itself after the last look.
                self._hear()
                if rank not in (ending.rank for ending in self._endings):
                    self._tell(ending_by_exit(rank, code, self.arrived))

    def _hear(self) -> None:
        self._endings = self._ask(lambda: reported(self._store)) or self._endings

    def _tell(self, ending: Ending) -> None:
        self._endings = [*self._endings, ending]
        self._ask(lambda: report(self._store, ending))

    def _ask(self, question: Callable[[], Any]) -> Any:
        """The store's answer; None where it is gone, which is news the first time."""
        if self._store is None:
            return None
        try:
            return question()
        except dist.DistError:
            self._store = None
            if self.world.machine_rank > 0:
                self._endings = [*self._endings, self._beats.lost(0, "is gone")]
            return None

    def _fail(self) -> int:
        """Let those that ended tell how, then end the others and say it once."""
        began = time.monotonic()
        lasted = 0.0
        while lasted < _SETTLE_UNKNOWN:
            self._look()
            known = not first(self._endings).follows
            lasted = time.monotonic() - began
            if known and (lasted > _SETTLE or not self._alive()):
                break
        self.end_all()
        ending = first([*self._endings, *self._beats.lost_machines()])
        if ending.follows and PREEMPTED in (process.exitcode for process in self.processes):
            # That one had saved and left before the others heard of the signal.
            return PREEMPTED
        mine = range(self._rank(0), self._rank(self.world.processes))
        show(ending, self.world.size, with_traceback=ending.rank in mine)
        self._ask(lambda: self._beats.leave(seconds=10))
        return ending.status
