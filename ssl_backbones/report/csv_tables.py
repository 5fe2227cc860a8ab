"""A report, and a run's entries, as CSV."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .content import Report, RunContent, Verdict
from .plain_text import encodable
from .verdicts import in_words

RESULTS = "results.csv"
"""In the run folder: what `write_results` writes."""


def runs_csv(report: Report) -> str:
    """A row a run: what it is, every metric, and of each that was resampled intervals and the difference.

    A metric's name comes before what is said of it, as in "bbox/AP low" and "bbox/AP difference high"; all
    are in percent points. Cells of what is not there are empty.
    """
    rows = [_row(run) for run in report.runs]
    return _text(dict.fromkeys(name for row in rows for name in row), rows)


def entries_csv(run: RunContent) -> str:
    """A row an entry of the run's metrics.json, a column a scalar; empty where an entry has it not."""
    names = sorted(run.curves)
    rows: dict[int, dict[str, Any]] = {}
    for name in names:
        for iteration, value in run.curves[name]:
            rows.setdefault(iteration, {"iteration": iteration})[name] = value
    return _text(["iteration", *names], [rows[iteration] for iteration in sorted(rows)])


def write_results(run: RunContent) -> Path:
    """Write `entries_csv` as results.csv into the run folder.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(run.folder) / RESULTS
    text = entries_csv(run)
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def _row(run: RunContent) -> dict[str, Any]:
    record, weights = run.record, run.record.get("weights", {})
    row = {
        "run": run.name,
        "folder": run.folder,
        "dataset": run.dataset,
        "evaluation": run.evaluation,
        "images": run.facts.get("images"),
        "recipe": run.published_recipe,
        "fingerprint": record.get("fingerprint"),
        "seed": record.get("seed"),
        "weights": weights.get("source"),
        "weights_sha256": weights.get("source_sha256"),
        "command": shlex.join(map(str, record.get("command_line", ()))),
        "problems": " ".join(run.problems),
    }
    for name, value in run.metrics.items():
        row[name] = value
        if name in run.verdicts:
            row |= {f"{name} {what}": found for what, found in _columns(run.verdicts[name]).items()}
    return row


def _columns(verdict: Verdict) -> dict[str, Any]:
    interval, difference = verdict.interval, verdict.difference
    return {
        "low": interval and interval.low,
        "high": interval and interval.high,
        "difference": difference and difference.value,
        "difference low": difference and difference.low,
        "difference high": difference and difference.high,
        "share higher": verdict.share_higher,
        "is": in_words(verdict),
        "published": verdict.published,
        "published note": verdict.published_note,
    }


def _text(columns: Iterable[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return encodable(text.getvalue())
