"""What a result was measured on: the machine, the versions, the commit, the load."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ssl_backbones.studies.cells import processor, usable_cores

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    *("torch", "torchvision", "detectron2", "numpy", "pillow", "pycocotools", "faster-coco-eval"),
    *("hotcoco", "numba", "simplejpeg", "msgspec"),
)


def machine() -> dict[str, str | int | None]:
    """Processor, cores this process may use, memory in GiB, system and GPU (None if there is none)."""
    return {
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": _gpu(),
    }


def file_stem(kind: dict[str, str | int | None]) -> str:
    """The machine's name as that of its results' files: intel-xeon-processor-2-cores."""
    parts = [kind["processor"], kind["cores"], "cores", *([kind["gpu"]] if kind["gpu"] else [])]
    words = " ".join(map(str, parts)).lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", words)).strip("-")


def circumstances() -> dict:
    """What may differ from row to row on one machine: date, commit, versions, load."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        # Of the last minute, before the row: 0 is an idle machine, 1 is one busy core.
        "load_before": round(os.getloadavg()[0], 1),
    }


def _gpu() -> str | None:
    """Asked of the driver's own tool: torch would take two seconds and its memory."""
    try:
        names = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (names.stdout.strip().splitlines() or [None])[0] if names.returncode == 0 else None


def _commit() -> str:
    """As `git describe` gives it, with "-dirty" where files differ from it."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
        told = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return told.stdout.strip() or "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
