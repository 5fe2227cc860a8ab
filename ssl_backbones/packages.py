"""pip, run under the user's own settings for indexes, mirrors, proxies and caches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PipResult:
    """What pip printed, and why it failed in one line ("" when it did not)."""

    output: str
    failure: str


def run_pip(
    *arguments: str, environment: Mapping[str, str] | None = None, show_progress: bool = False
) -> PipResult:
    """Run `pip ARGUMENTS` and wait for it.

    Args:
        environment: variables beside those that this process has.
        show_progress: draw pip's own bar where standard error is a terminal; what pip says is then on the
            screen, and the result holds its warnings and errors alone.
    """
    shown = show_progress and sys.stderr.isatty()
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        env={**os.environ, **(environment or {})},
        # pip draws its bar on its standard output.
        stdout=sys.stderr if shown else subprocess.PIPE,
        stderr=subprocess.PIPE if shown else subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    output = result.stderr if shown else result.stdout
    return PipResult(output, _last_error(output) if result.returncode else "")


def _last_error(output: str) -> str:
    """The last line in which pip names an error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return (errors or lines or ["pip said nothing"])[-1]
