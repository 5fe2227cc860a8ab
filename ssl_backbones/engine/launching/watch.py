"""A launcher and its ranks: signals are passed on, and all end with the first that fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist

from .failures import PREEMPTED, Ending, ending_by_exit, first, report, reported, show
from .rendezvous import POLL
from .world import World

# Seconds without a sign of life, after which a launcher is blamed for a loss that nobody explains, and after
# which it is lost itself.
_QUIET, _SILENT = 4.0, 60.0


class Beats:
    """A sign of life of every machine's launcher, about once a second, and of its orderly leave.

    One machine alone has nobody to give signs to.
    """

    def __init__(self, store: dist.Store, world: World) -> None:
        self._store, self._world = store, world
        self._next = 0.0
        # Of each other machine: the last sign, when it changed, and its host's name.
        others = [n for n in range(world.machines) if n != world.machine_rank]
        self._counts = dict.fromkeys(others, 0)
        self._changed = dict.fromkeys(others, time.monotonic())
        self._hosts = {n: json.loads(store.get(f"machine/{n}"))["host"] for n in others}
        self._left: set[int] = set()

    def beat(self) -> None:
        """Give a sign and look for the others'; a machine that is lost is reported to all.

        Raises:
            dist.DistError: the launcher of machine 0 is gone.
        """
        now = time.monotonic()
        if not self._counts or now < self._next:
            return
        self._next = now + 1
        self._store.add(f"beat/{self._world.machine_rank}", 1)
        for machine, before in self._counts.items():
            count = self._store.add(f"beat/{machine}", 0)
            if count != before:
                self._counts[machine], self._changed[machine] = count, now
            if self._store.check([f"left/{machine}"]):
                self._left.add(machine)
        for ending in self.lost_machines(_SILENT):
            report(self._store, ending)

    def lost_machines(self, seconds: float = _QUIET) -> list[Ending]:
        """The machines without a sign for so long, as endings of their first rank."""
        now = time.monotonic()
        return [
            self.lost(machine, f"has given no sign for {now - since:.0f} s")
            for machine, since in self._changed.items()
            if machine not in self._left and now - since > seconds
        ]

    def lost(self, machine: int, how: str) -> Ending:
        """The loss of a machine, told as the ending of its first rank."""
        return Ending(
            rank=machine * self._world.processes,
            host=self._hosts[machine],
            status=1,
            cause=f"the launcher of machine {machine} {how}",
        )

    def leave(self, seconds: float = float("inf")) -> None:
        """Say that this machine is through; the keeper of the store stays until all others are.

        Args:
            seconds: how long it stays at most.
        """
        if not self._counts:
            return
        self._store.set(f"left/{self._world.machine_rank}", "yes")
        deadline = time.monotonic() + seconds
        while self._world.machine_rank == 0 and time.monotonic() < deadline:
            self.beat()
            lost = {ending.rank // self._world.processes for ending in self.lost_machines(_SILENT)}
            if set(self._counts) <= self._left | lost:
                return
            time.sleep(POLL)


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
        self._tell(ending_by_exit(self.world.rank(0), -signal.SIGINT, ()))

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
            code, rank = process.exitcode, self.world.rank(local_rank)
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
        mine = range(self.world.rank(0), self.world.rank(self.world.processes))
        show(ending, self.world.size, with_traceback=ending.rank in mine)
        self._ask(lambda: self._beats.leave(seconds=10))
        return ending.status
