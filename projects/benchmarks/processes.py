"""Whole processes, measured from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
