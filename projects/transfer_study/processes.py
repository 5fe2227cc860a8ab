"""Commands of the study in processes of their own, a few at a time."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from projects.transfer_study.cells import Step

CHECKOUT = Path(__file__).resolve().parents[2]

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 60  # for a detector to end its iteration and save


@dataclass(frozen=True)
class Outcome:
    """How a step's command ended, its wall and processor time in seconds, and where its output is."""

    status: int
    seconds: float
    cpu_seconds: float
    log: Path

    def last_line(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def run_steps(
    steps: Iterable[Step],
    *,
    jobs: int,
    logs: Path,
    variables: Mapping[str, str],
    on_end: Callable[[Step, Outcome], None],
) -> None:
    """Run the commands, at most `jobs` at once, in the checkout and by the Python that runs this.

    A command that fails stops no other. An exception, such as Ctrl-C's, asks those that run to end, and
    waits for them.

    Args:
        logs: a folder for what they print.
        variables: of their environment.
        on_end: called after each.
    """
    waiting, running = deque(steps), {}
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                step = waiting.popleft()
                log = logs / f"{step.name}.txt"
                running[step] = (_start(step, log, variables), time.monotonic(), log)
            ended = {}
            for step, (process, start, log) in running.items():
                before = _cpu_seconds()
                if process.poll() is not None:
                    seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - before
                    ended[step] = Outcome(process.returncode, seconds, cpu_seconds, log)
            for step, outcome in ended.items():
                del running[step]
                on_end(step, outcome)
            if not ended:
                time.sleep(_POLL_SECONDS)
    finally:
        _end([process for process, *_ in running.values()])


def _cpu_seconds() -> float:
    """Of all commands that have ended and been asked whether they have: `poll` adds one at a time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _start(step: Step, log: Path, variables: Mapping[str, str]) -> subprocess.Popen:
    with open(log, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *step.words],
            cwd=CHECKOUT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the study, which asks its commands to end in a way that saves.
            start_new_session=True,
        )


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
