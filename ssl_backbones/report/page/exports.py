"""A report as Markdown tables, for a README, and as CSV, for a spreadsheet."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...evaluation.metrics import metric_name
from ...files import write_atomically
from ...tables import Table
from ..analysis.findings import ERROR_TYPES, STATISTICS
from ..comparing.verdicts import format_verdict
from ..content import TASKS, Report, RunContent, Verdict
from ..wording import encodable, percent, signed, signed_span, span

RESULTS = "results.csv"
"""In the run folder: what `write_results` writes."""


def format_csv(report: Report) -> str:
    """A row a run: what it is, every metric, and of each that was resampled intervals and the difference.

    A metric's name comes before what is said of it, as in "bbox/AP low" and "bbox/AP difference high"; all
    are in percent points. Cells of what is not there are empty.
    """
    return encodable(Table.of_records("", map(_row, report.runs)).format_csv())


def format_entries(run: RunContent) -> str:
    """A row an entry of the run's metrics.json, a column a scalar; empty where an entry has it not."""
    names = sorted(run.curves)
    rows: dict[int, dict[str, Any]] = {}
    for name in names:
        for iteration, value in run.curves[name]:
            rows.setdefault(iteration, {"iteration": iteration})[name] = value
    entries = (rows[iteration] for iteration in sorted(rows))
    return encodable(Table.of_records("", entries, ["iteration", *names]).format_csv())


def write_results(run: RunContent) -> Path:
    """Write `format_entries` as results.csv into the run folder.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(run.folder) / RESULTS
    text = format_entries(run)
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
        "is": format_verdict(verdict),
        "published": verdict.published,
        "published note": verdict.published_note,
    }


_CHARACTERS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\|`*[]~$"}
# An underscore inside of a word is itself, as in moco_1x.
_SPECIAL = re.compile(r"[&<>\\|`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")


def format_markdown(report: Report) -> str:
    """Verdict, metrics, errors, deviations from the published recipes and problems, as GitHub shows them.

    Text of the runs (names, paths, fields) is escaped: it is shown as it is and nothing else.
    """
    tables = [_verdicts(report), _average_precisions(report.runs), _other_metrics(report.runs)]
    tables += [_errors(report.runs), *_recipe_differences(report.runs)]
    tables += [*map(_deviations, report.runs), _problems(report)]
    parts = [
        f"### {table.title}\n\n{table.format_markdown(aligned=True)}"
        for table in tables
        if table.rows
    ]
    if report.command_line:
        parts.append(f"Made by {escaped(shlex.join(report.command_line))}")
    return encodable("\n\n".join(parts) + "\n")


def escaped(text: Any) -> str:
    """Text on one line, of which nothing is Markdown or HTML."""
    words = " ".join(str(text).split())
    return _SPECIAL.sub(lambda found: _CHARACTERS.get(found[0], f"\\{found[0]}"), words)


def _verdicts(report: Report) -> Table:
    reference = report.runs[0].name
    compared = len(report.runs) > 1
    rows = []
    for run in report.runs:
        for task in TASKS:
            verdict = run.verdicts.get(f"{task}/AP")
            if verdict is None:
                continue
            row = [
                run.name,
                metric_name(f"{task}/AP"),
                percent(verdict.value),
                span(verdict.interval),
            ]
            if compared:
                row += [_difference(verdict), format_verdict(verdict)]
            rows.append(_cells([*row, _published(verdict)]))
    columns = ["run", "metric", "AP", "95 % interval"]
    columns += [f"difference to {reference}", "is"] if compared else []
    title = f"Verdict, with intervals over images ({report.resamples:,} resamples)"
    return Table(title, _cells([*columns, "published"]), rows)


def _average_precisions(runs: Sequence[RunContent]) -> Table:
    names = [f"{task}/{size}" for task in TASKS for size in STATISTICS]
    names = [name for name in names if any(name in run.metrics for run in runs)]
    return _metrics("Average precision", names, runs)


def _other_metrics(runs: Sequence[RunContent]) -> Table:
    names = dict.fromkeys(name for run in runs for name in run.other_metrics)
    return _metrics("Other metrics", list(names), runs)


def _metrics(title: str, names: Sequence[str], runs: Sequence[RunContent]) -> Table:
    """Empty for a run without such a metric, and a dash for one that is undefined."""
    rows = []
    for run in (run for run in runs if run.metrics and names):
        values = (percent(run.metrics[name]) if name in run.metrics else "" for name in names)
        rows.append(_cells([run.name, *values]))
    return Table(title, _cells(["run", *map(metric_name, names)]), rows)


def _errors(runs: Sequence[RunContent]) -> Table:
    rows = []
    for run in runs:
        for task, analysis in run.analyses.items():
            found = (analysis.errors.get(kind) for kind in ERROR_TYPES)
            rows.append(
                _cells(
                    [
                        run.name,
                        TASKS[task],
                        *("" if e is None else f"{percent(e.gain)} ({e.count:,})" for e in found),
                    ]
                )
            )
    title = "Errors: points of AP50 that mending them gains (how many there are)"
    return Table(title, _cells(["run", "task", *ERROR_TYPES.values()]), rows)


def _recipe_differences(runs: Sequence[RunContent]) -> list[Table]:
    """A table for each recipe that a run is of."""
    by_recipe = {run.published_recipe: run.recipe_differences for run in runs}
    return [
        Table(
            f"In what {escaped(recipe)} is not what was published",
            ("field", "published", "here", "why"),
            [_cells([one.name, one.published, one.here, one.reason]) for one in differences],
        )
        for recipe, differences in by_recipe.items()
    ]


def _deviations(run: RunContent) -> Table:
    rows = [_cells([one.key, one.recipe, one.run]) for one in run.deviations]
    recipe = escaped(run.published_recipe)
    title = f"Deviations of {escaped(run.name)} from the packaged config {recipe}"
    return Table(title, ("field", "packaged", "run"), rows)


def _problems(report: Report) -> Table:
    rows = [_cells(["", problem]) for problem in report.problems]
    rows += [_cells([run.name, problem]) for run in report.runs for problem in run.problems]
    return Table("Problems", ("run", "problem"), rows)


def _cells(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(escaped, values))


def _difference(verdict: Verdict) -> str:
    found = verdict.difference
    return "" if found is None else f"{signed(found.value)} ({signed_span(found)})"


def _published(verdict: Verdict) -> str:
    if verdict.published is None:
        return ""
    words = [percent(verdict.published), verdict.published_source, verdict.published_note]
    return "; ".join(filter(None, words))
