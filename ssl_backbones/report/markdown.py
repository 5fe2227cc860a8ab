"""A report as Markdown tables, for a README."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from ..evaluation.metrics import metric_name
from ..tables import Table
from .analysis.findings import ERROR_TYPES, STATISTICS
from .content import TASKS, Report, RunContent, Verdict
from .numbers import percent, signed, signed_span, span
from .plain_text import encodable
from .verdicts import in_words

_CHARACTERS = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\|`*[]~$"}
# An underscore inside of a word is itself, as in moco_1x.
_SPECIAL = re.compile(r"[&<>\\|`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])")


def render(report: Report) -> str:
    """Verdict, metrics, errors, deviations from the published recipes and problems, as GitHub shows them.

    Text of the runs (names, paths, fields) is escaped: it is shown as it is and nothing else.
    """
    tables = [_verdicts(report), _average_precisions(report.runs), _other_metrics(report.runs)]
    tables += [_errors(report.runs), *_recipe_differences(report.runs)]
    tables += [*map(_deviations, report.runs), _problems(report)]
    parts = [f"### {table.title}\n\n{table.text('github')}" for table in tables if table.rows]
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
                row += [_difference(verdict), in_words(verdict)]
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
