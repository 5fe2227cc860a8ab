"""A side of a row in a process of its own, for what a process can only be given at its start."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

ALLOCATOR = {
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:"
        "glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"
    )
}
"""What makes glibc keep the memory of tensors, in huge pages, in place of asking the kernel for each anew.

A step on the CPU otherwise takes some 200,000 page faults. Any other C library ignores it.
"""


def side(
    make: Callable[[], Callable[..., Any]], environment: Mapping[str, str]
) -> Callable[..., Any]:
    """What `make` returns, in this process if it has this `environment`, else in a new one.

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
