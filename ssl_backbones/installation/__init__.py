"""Detectron2 for any machine: source, ports, pure-Python wheel, pip, and a Mask R-CNN run as proof.

Needs nothing but Python and pip, since it runs before anything else is installed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError, InstallationError
from ..packages import run_pip
from .installed import InstalledDetectron2, find_detectron2
from .ports import port
from .sources import Source, fetch_pinned, read_location
from .wheel import write_wheel

__all__ = ["InstallationError", "build_wheel", "install"]

Say = Callable[[str], None]


def build_wheel(folder: Path, location: str | None = None, *, say: Say = print) -> Path:
    """Build a pure-Python wheel of Detectron2 into `folder`: the pinned v0.6, or the `location`'s.

    Raises:
        InputError: the folder cannot be written to, or there is no Detectron2 at the location.
        InstallationError: v0.6 could not be fetched, or is not the pinned one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {folder}: {error.strerror}; give another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write to the folder {folder}: give another")
    source = _read(location, say)
    files, changes = port(source.files, pinned=source.pinned)
    wheel = write_wheel(folder, source.version, files, license=source.license)
    say(f"ported {sum(changes.values())} lines in {len(changes)} of {len(files)} files")
    say(f"built {wheel.name}")
    return wheel


def install(location: str | None = None, *, say: Say = print) -> InstalledDetectron2:
    """Make sure of a Detectron2 that works, and say which.

    Without a location, one that works already stays as it is, whatever its origin. With one, what
    is there takes its place.

    Raises:
        InputError: torch is missing, or the Detectron2 that is there does not work and is not ours
            to replace; and as `build_wheel`.
        InstallationError: pip failed, or what it installed does not work; and as `build_wheel`.
    """
    _require_torch()
    if location is None:
        found = find_detectron2()
        if found is not None and not found.failure:
            say(f"nothing to do: {found} works")
            return found
        if found is not None and not found.pure:
            raise InputError(
                f"{found} does not work: {found.failure}; mend it, or remove it (pip uninstall "
                "detectron2) and run this again"
            )
    with tempfile.TemporaryDirectory() as folder:
        _install_wheel(build_wheel(Path(folder), location, say=say), say)
    found = find_detectron2()
    if found is None or found.failure:
        reason = f"{found}: {found.failure}" if found else "Python does not find it"
        raise InstallationError(f"Detectron2 was installed but does not work: {reason}")
    say(f"{found} works: a Mask R-CNN R50-FPN ran on a 64x64 image")
    return found


def _read(location: str | None, say: Say) -> Source:
    if location is not None:
        say(f"reading Detectron2 from {location}")
        return read_location(location)
    say("fetching Detectron2 v0.6 with pip")
    return fetch_pinned()


def _install_wheel(wheel: Path, say: Say) -> None:
    """Install the wheel, replacing what is there, then what it requires and is missing."""
    requirement = "detectron2==" + wheel.name.split("-")[1]
    say(f"installing {requirement} and what it requires")
    local = ["--no-deps", "--no-index", "--force-reinstall", "--find-links", str(wheel.parent)]
    for options in (local, []):
        result = run_pip("install", *options, requirement)
        if result.failure:
            raise InstallationError(f"pip cannot install {requirement}: {result.failure}")


def _require_torch() -> None:
    missing = [name for name in ("torch", "torchvision") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"Detectron2 needs {' and '.join(missing)}, which this Python does not have; run "
            f"`{sys.executable} -m pip install {' '.join(missing)}` first"
        )
