"""Results of one machine: what they were measured on, and how they are kept and shown.

They are kept as JSON, where a new run replaces its own rows only, and shown as a table.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ssl_backbones.tables import format_row

from .row import Row

COMMAND = "make benchmark"
CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    *("torch", "torchvision", "detectron2", "numpy", "pillow", "pycocotools", "faster-coco-eval"),
    *("numba", "simplejpeg", "msgspec"),
)


def machine() -> dict[str, str | int | None]:
    """Processor, cores this process may use, memory in GiB, system and GPU (None if there is none)."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


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


def record(row: Row, result: dict[str, Any], circumstances: dict[str, Any]) -> dict[str, Any]:
    """All of a row that stands in the JSON."""
    asked = {name: getattr(row, name) for name in ("what", "same", "goal", "must", "absolute")}
    return {**asked, "unit": row.unit, **result, **circumstances}


def merge(
    path: Path, machine: dict[str, Any], rows: dict[str, dict[str, Any]], order: list[str]
) -> dict[str, Any]:
    """The content of the JSON file `path` with `rows` in it; rows that are no longer among `order` go."""
    before = json.loads(path.read_text())["rows"] if path.exists() else {}
    together = {**before, **rows}
    return {
        "machine": machine,
        "rows": {name: together[name] for name in order if name in together},
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """The JSON file `path`, and the table beside it as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text("\n".join(report(content)) + "\n")


def report(content: dict[str, Any]) -> Iterator[str]:
    """The table and what stands below it, line by line."""
    kind = content["machine"]
    gpu = f", {kind['gpu']}" if kind["gpu"] else ""
    yield (
        f"{kind['processor']}, {kind['cores']} cores, {kind['memory_gib']} GiB{gpu}, {kind['system']}. "
        f"Made by `{COMMAND}`."
    )
    yield ""
    yield (
        "Both sides took turns in one process; medians, in brackets the fastest and the slowest. The ratio "
        "is ours to the other's: smaller is better. Absolute values hold for this machine and its load."
    )
    yield ""
    yield "| row | other | ours | ratio | goal (must) | verdict |"
    yield "|---|---|---|---|---|---|"
    for name, row in content["rows"].items():
        yield format_row(cells(name, row))
    for name, row in content["rows"].items():
        yield ""
        yield f"## {name}"
        yield ""
        yield from _details(row)


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """A row's cells, as text."""
    goal = _bounds(row)
    if "ratio" not in row:
        return [name, "", "", "", goal, f"{row['verdict']}: {row['reason'].splitlines()[0]}"]
    unit = row["unit"]
    return [
        name,
        spread(row["stock"], unit),
        spread(row["ours"], unit),
        f"{row['ratio']:.3f} (1/{1 / row['ratio']:.1f})"
        if row["ratio"] < 1
        else f"{row['ratio']:.3f}",
        goal,
        row["verdict"],
    ]


def spread(values: list[float], unit: str) -> str:
    """Median, smallest and largest in three figures, with the unit: `1.57 (1.54..1.73) s`."""
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{_figures(middle)} {unit}"
    return f"{_figures(middle)} ({_figures(min(values))}..{_figures(max(values))}) {unit}"


def _figures(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _bounds(row: dict[str, Any]) -> str:
    if row["goal"] is None and row["must"] is None:
        return ""
    unit = f" {row['unit']}" if row["absolute"] else ""
    goal = "" if row["goal"] is None else f"≤ {row['goal']:.3g}{unit}"
    return goal if row["must"] is None else f"{goal} ({row['must']:.3g}{unit})".strip()


def _details(row: dict[str, Any]) -> Iterator[str]:
    yield f"- Measured: {row['what']}."
    yield f"- The same result: {row['same']}."
    if "ratio" in row:
        yield f"- Against: {row['opponent']}."
        pairs = sorted(o / s for o, s in zip(row["ours"], row["stock"], strict=True))
        yield f"- Ratios of the {len(pairs)} repeats: {pairs[0]:.3f} to {pairs[-1]:.3f}."
        if row["limit"]:
            words, value = row["limit"]
            share = value / statistics.median(row["ours"])
            yield f"- Limit: {words}: {_figures(value)} {row['unit']}, {share:.0%} of ours."
        for note in row["notes"]:
            yield f"- {note}"
    else:
        yield f"- {row['verdict'].capitalize()}: {row['reason']}"
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    yield f"- {row['date']}, commit {row['commit']}, load before {row['load_before']}; {versions}."
