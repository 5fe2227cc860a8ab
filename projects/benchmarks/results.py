"""Results of one machine: kept as JSON, where a new run replaces its own rows only, and shown as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_backbones.tables import Table

from .row import Row

COMMAND = "make benchmark"


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
    columns = ("row", "other", "ours", "ratio", "goal (must)", "verdict")
    rows = [cells(name, row) for name, row in content["rows"].items()]
    yield from Table("", columns, rows).format_markdown().splitlines()
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
