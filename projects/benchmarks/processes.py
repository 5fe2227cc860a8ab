"""Processes: whole ones measured from outside, and a side of a row in one of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

# Linux counts the peak of the process that starts another one into the new one's. So one that has nothing
# but an interpreter stands between, and measures.
_BETWEEN = """
import json, os, sys, time
started = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - started
scale = 2**20 if sys.platform == "darwin" else 2**10
print("\\n" + json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss / scale]))
"""

ALLOCATOR = {
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:"
        "glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"
    )
}
"""What makes glibc keep the memory of tensors, in huge pages, in place of asking the kernel for each anew.

A step on the CPU otherwise takes some 200,000 page faults. Any other C library ignores it.
"""


class Usage(NamedTuple):
    """Wall time in seconds, largest resident memory in MiB, and what it wrote to its standard output."""

    seconds: float
    peak_mib: float
    output: str


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Usage:
    """Run a command from start to exit; `env` is added to this process's environment.

    Raises:
        subprocess.CalledProcessError: it ended with another status than 0; with its output and errors.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _BETWEEN, *command],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    output, _, measured = done.stdout.rstrip("\n").rpartition("\n")
    status, seconds, peak = json.loads(measured)
    if status:
        raise subprocess.CalledProcessError(status, command, output, done.stderr)
    return Usage(seconds, peak, output)


def side(
    make: Callable[[], Callable[..., Any]], environment: Mapping[str, str]
) -> Callable[..., Any]:
    """What `make` returns, in this process if it has this `environment`, else in a new one.

    For what a process can only be given at its start.
    So profile.py sees into a side if it is itself started with the side's environment. Of `ALLOCATOR`'s
    variables those count as well that `environment` lacks: such a side must not have them.

    Args:
        make: can be pickled; called once, in the side's own process.
    """
    wanted = {name: environment.get(name) for name in {*ALLOCATOR, *environment}}
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return make()
    return Worker(make, wanted)


class Worker:
    """Calls in a new process, which ends with this one; arguments and results are pickled.

    Args:
        environment: variables that differ from this process's; None for one that is not set.
    """

    def __init__(
        self, make: Callable[[], Callable[..., Any]], environment: Mapping[str, str | None]
    ):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, make), daemon=True)
        before = {name: os.environ.get(name) for name in environment}
        _set(environment)
        try:
            process.start()
        finally:
            _set(before)
        theirs.close()
        self._receive()

    def __call__(self, *arguments: Any) -> Any:
        self._pipe.send(arguments)
        return self._receive()

    def _receive(self) -> Any:
        result, error = self._pipe.recv()
        if error:
            raise RuntimeError(f"in the side's own process:\n{error}")
        return result


def _set(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _serve(pipe: Connection, make: Callable[[], Callable[..., Any]]) -> None:
    def answer(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            result, error = call(*arguments), None
        except Exception:
            result, error = None, traceback.format_exc()
        return result, error

    work, error = answer(make)
    pipe.send((None, error))
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(work, *arguments))
