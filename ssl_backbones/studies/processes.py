"""Commands in processes of their own, a few at a time, of something that is larger than one run."""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 60  # for a detector to end its iteration and save

_held: list[int] = []
"""Files that `alone_in` has locked. The commands have them open as well, and so keep them locked."""


@dataclass(frozen=True)
class Step:
    """A command of Python's, by its words after `python`; what it writes stands in `makes`.

    Paths are relative to the folder where it runs.
    """

    name: str
    words: tuple[str, ...]
    makes: Path

    def command(self, variables: Mapping[str, str]) -> str:
        """As one types it."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        return " ".join([*settings, "python", shlex.join(self.words)])


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
    folder: Path,
    jobs: int,
    logs: Path,
    variables: Mapping[str, str],
    on_end: Callable[[Step, Outcome], None],
    places: Sequence[Mapping[str, str]] = ({},),
) -> None:
    """Run the commands, at most `jobs` at once, in `folder` and by the Python that runs this.

    A command that fails stops no other. An exception, such as Ctrl-C's, asks those that run to end, and
    waits for them.

    Args:
        logs: a folder for what they print.
        variables: of their environment.
        on_end: called after each.
        places: variables of the first, second, ... of those that run at once, such as a GPU of its own; in
            turn where more run.

    Raises:
        InputError: the logs cannot be written.
    """
    waiting, running = deque(steps), {}
    free = deque(range(jobs))
    with _writing_to(logs):
        logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                step = waiting.popleft()
                log = logs / f"{step.name}.txt"
                place = free.popleft()
                own = {**variables, **places[place % len(places)]}
                running[step] = (_start(step, folder, log, own), time.monotonic(), log, place)
            ended = {}
            for step, (process, start, log, _) in running.items():
                before = _cpu_seconds()
                if process.poll() is not None:
                    seconds, cpu_seconds = time.monotonic() - start, _cpu_seconds() - before
                    ended[step] = Outcome(process.returncode, seconds, cpu_seconds, log)
            for step, outcome in ended.items():
                free.append(running.pop(step)[-1])
                on_end(step, outcome)
            if not ended:
                time.sleep(_POLL_SECONDS)
    finally:
        _end([process for process, *_ in running.values()])


def do_step(step: Step, logs: Path) -> Outcome:
    """Run one command in the current folder, its output in `logs`."""
    outcomes: list[Outcome] = []
    run_steps(
        [step],
        folder=Path.cwd(),
        jobs=1,
        logs=logs,
        variables={},
        on_end=lambda _, outcome: outcomes.append(outcome),
    )
    return outcomes[0]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder, and keep a second one of the same kind out of it; a SIGTERM acts as Ctrl-C.

    What asks for an end so ends the commands of `run_steps`, which then save. Those of one that was killed
    are asked to end by the system, where it is Linux; for those the next one waits a while.

    Raises:
        InputError: another one is at work there, or the folder cannot be written to.
    """
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as opened:
            with _writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                lock = opened.enter_context(open(folder / ".lock", "w"))
            _take(lock.fileno(), folder)
            _held.append(lock.fileno())
            try:
                yield
            finally:
                _held.remove(lock.fileno())
    finally:
        # None is a handler that was not set by Python, and cannot be set by it.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def _take(lock: int, folder: Path) -> None:
    """Lock a file, which stays locked as long as any process has it open."""
    end = time.monotonic() + _GRACE_SECONDS
    has_said = False
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise InputError(
                    f"another one is running in {folder}: wait for it, or give another --output"
                ) from None
        except OSError as error:  # as of network disks that lock nothing
            raise InputError(
                f"cannot lock {folder}: {error.strerror}; give another --output"
            ) from error
        if not has_said:
            print(f"waiting for what runs in {folder}", file=sys.stderr, flush=True)
            has_said = True
        time.sleep(_POLL_SECONDS)


def _cpu_seconds() -> float:
    """Of all commands that have ended and been asked whether they have: `poll` adds one at a time."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _start(step: Step, folder: Path, log: Path, variables: Mapping[str, str]) -> subprocess.Popen:
    parent = os.getpid()
    with ExitStack() as opened:
        with _writing_to(log.parent):
            file = opened.enter_context(open(log, "wb"))
        return subprocess.Popen(
            [sys.executable, *step.words],
            cwd=folder,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(_held),
            # Ctrl-C is for whoever runs them, who asks the commands to end in a way that saves.
            start_new_session=True,
            preexec_fn=(lambda: _end_with(parent)) if sys.platform == "linux" else None,
        )


def _end_with(parent: int) -> None:
    """Have Linux send this process a SIGTERM when its parent has gone, whatever ended it."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # it went in between
        os.kill(os.getpid(), signal.SIGTERM)


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
