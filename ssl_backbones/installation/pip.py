"""pip of the running interpreter, as a child process that answers with one line when it fails."""

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


def run_pip(*arguments: str, environment: Mapping[str, str] | None = None) -> PipResult:
    """Run `pip ARGUMENTS` under the user's own settings for indexes, proxies and caches."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    return PipResult(result.stdout, _last_error(result.stdout) if result.returncode else "")


def _last_error(output: str) -> str:
    """The last line in which pip names an error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return (errors or lines or ["pip said nothing"])[-1]
