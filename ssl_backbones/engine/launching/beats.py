"""The launchers of several machines hear from each other, so that a machine that vanishes is missed."""

from __future__ import annotations

import json
import time

import torch.distributed as dist

from .failures import Ending, report
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
