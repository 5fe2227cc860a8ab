"""A report as Markdown tables, for a README."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from ..evaluation.analysis.findings import ERROR_TYPES, Interval
from .content import TASKS, Report, RunContent, Verdict
from .initialization_tables import Table, metric_name
from .verdicts import in_words

_SIZES = ("AP", "AP50", "AP75", "APs", "APm", "APl")

_CHARACTERS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\|`*[]~$"}
# An underscore inside of a word is itself, as in moco_1x.
_SPECIAL = re.compile(r"[&<>\\|`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")


def render(report: Report) -> str:
    """The verdict, AP, errors, deviations from the published recipes and problems, as GitHub shows them.

    Text of the runs (names, paths, fields) is escaped: it is shown as it is and nothing else.
    """
    tables = [_verdicts(report), _average_precisions(report.runs), _errors(report.runs)]
    tables += [*map(_deviations, report.runs), _problems(report)]
    parts = [f"### {table.title}\n\n{table.text('github')}" for table in tables if table.rows]
    if report.command_line:
        parts.append(f"Made by {escaped(shlex.join(report.command_line))}")
    return "\n\n".join(parts) + "\n"


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
                number(verdict.value),
                span(verdict.interval),
            ]
            if compared:
                row += [_difference(verdict), in_words(verdict)]
            rows.append(_cells([*row, _published(verdict)]))
    columns = ["run", "metric", "AP", "95 % interval"]
    columns += [f"difference to {reference}", "is"] if compared else []
    title = f"Verdict, with intervals over images ({report.resamples:,} resamples)"
    return Table(title, _cells([*columns, "published"]), rows)


def _average_precisions(runs: Sequence[RunContent]) -> Table:
    names = [f"{task}/{size}" for task in TASKS for size in _SIZES]
    names = [name for name in names if any(name in run.metrics for run in runs)]
    rows = [
        _cells([run.name, *(number(run.metrics.get(name)) for name in names)])
        for run in runs
        if run.metrics
    ]
    return Table("Average precision", _cells(["run", *map(metric_name, names)]), rows)


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
                        *("" if e is None else f"{e.gain:.1f} ({e.count:,})" for e in found),
                    ]
                )
            )
    title = "Errors: points of AP50 that mending them gains (how many there are)"
    return Table(title, _cells(["run", "task", *ERROR_TYPES.values()]), rows)


def _deviations(run: RunContent) -> Table:
    rows = [_cells([one.key, one.recipe, one.run]) for one in run.deviations]
    title = f"Deviations of {escaped(run.name)} from {escaped(run.published_recipe)}"
    return Table(title, ("field", "recipe", "run"), rows)


def _problems(report: Report) -> Table:
    rows = [_cells(["", problem]) for problem in report.problems]
    rows += [_cells([run.name, problem]) for run in report.runs for problem in run.problems]
    return Table("Problems", ("run", "problem"), rows)


def _cells(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(escaped, values))


def number(value: float | None) -> str:
    """Percent with one decimal; "" for what is not there."""
    return "" if value is None else f"{value:.1f}"


def span(interval: Interval | None) -> str:
    """ "50.1 to 57.3"; "" for what is not there."""
    return "" if interval is None else f"{interval.low:.1f} to {interval.high:.1f}"


def _difference(verdict: Verdict) -> str:
    found = verdict.difference
    if found is None:
        return ""
    return f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def _published(verdict: Verdict) -> str:
    if verdict.published is None:
        return ""
    words = [f"{verdict.published:.1f}", verdict.published_source, verdict.published_note]
    return "; ".join(filter(None, words))
