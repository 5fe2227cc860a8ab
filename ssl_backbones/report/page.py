"""A report as one HTML file that needs nothing else: no network, no other file, no JavaScript but to sort."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..evaluation.analysis.findings import ERROR_TYPES, Interval, TaskAnalysis
from . import galleries, plots, provenance
from .content import TASKS, Report, RunContent, Verdict
from .svg import DASHES, NUM_COLOURS

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_BYTES = 5_000_000  # of a page
MOST_CELLS = 26  # rows of a confusion matrix that is a table, background among them
MOST_CONFUSIONS = 12  # that are named beneath it
SIZE_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
LOOSER_METRICS = ("AP50", "AP75")
COMPARED = {"higher": "▲", "lower": "▼", "no difference shown": "≈"}
"""Words of a verdict that stand for a comparison, with a sign for each."""

_ALL_ERRORS = {"FalsePos": "all false positives", "FalseNeg": "all false negatives"}
_SWATCH = 1.8  # how much wider than in a plot a run's line is beside its name
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Track:
    """Where an interval lies on its scale, in percent of the scale's length."""

    low: float
    value: float
    high: float
    zero: float | None = None


def render(report: Report, *, num_pictures: int = 4) -> str:
    """The page as HTML of less than `MOST_BYTES` bytes, for which pictures become smaller or fewer.

    Args:
        num_pictures: how many of the best, of the worst and of random test images are shown.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib is not installed.
    """
    template = _environment().get_template("report.html")
    content = _content(report)

    def page_of(pictures: galleries.Pictures) -> str:
        return template.render(content, pictures=pictures)

    return page_of(galleries.fill(report, num_pictures, MOST_BYTES, page_of))


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "signed": signed,
        "range": _range,
        "signed_range": _signed_range,
        "value": shown_value,
        "shell": shlex.join,
    }
    return environment


def _content(report: Report) -> dict[str, Any]:
    """All that the templates are given but the pictures."""
    from markupsafe import Markup

    tasks = {
        t: w
        for t, w in TASKS.items()
        if any(t in r.analyses or f"{t}/AP" in r.verdicts for r in report.runs)
    }
    script = (_TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "report": report,
        "runs": report.runs,
        "tasks": tasks,
        "analysed": {
            t: [(i, r) for i, r in enumerate(report.runs) if t in r.analyses] for t in tasks
        },
        "error_types": ERROR_TYPES,
        "error_rows": {**ERROR_TYPES, **_ALL_ERRORS},
        "compared": COMPARED,
        "size_metrics": SIZE_METRICS,
        "sentences": [s for t, word in tasks.items() for s in sentences(report.runs, t, word)],
        "looser": {task: _looser(report.runs, task) for task in tasks},
        "tracks": {task: tracks(report.runs, task) for task in tasks},
        "curves": plots.learning_curves(report.runs),
        "recall_plots": {task: plots.precision_recall(report.runs, task) for task in tasks},
        "thresholds": {task: _thresholds(report.runs, task) for task in tasks},
        "class_rows": {task: class_rows(report.runs, task) for task in tasks},
        "error_plots": {task: plots.error_gains(report.runs, task) for task in tasks},
        "confusions": {task: _confusions(report.runs, task) for task in tasks},
        "counts": {task: _counts(report.runs, task) for task in tasks},
        "provenance": provenance,
        "galleries": galleries,
        "dashes": [" ".join(f"{_SWATCH * x:g}" for x in d) if d[0] else "none" for d in DASHES],
        "num_colours": NUM_COLOURS,
        "markup": Markup,
        "script": Markup(script),
        "version": __version__,
        # No other script may run, and nothing may be loaded: not even if a text got past the escaping.
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
    }


def percent(value: float | None) -> str:
    """One decimal, as AP is told; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.1f}".replace("-", "−")


def signed(value: float | None) -> str:
    """With its sign, which is a minus and no hyphen; an exact zero has none."""
    if value is None or value != value:
        return "–"
    return "0" if value == 0 else f"{value:+.1f}".replace("-", "−")


def shown_value(value: Any) -> str:
    """A field of a config, the same whether it is a string or not."""
    return "not set" if value is None else str(value)


def sentences(runs: Sequence[RunContent], task: str, word: str) -> list[str]:
    """The verdict in words: of a single run its AP, of several what each is against the first."""
    first, *others = runs
    verdict = first.verdicts.get(f"{task}/AP")
    if not others:
        if verdict is None or verdict.value is None:
            return [f"There is no {word} AP."]
        within = f", 95 % interval {_range(verdict.interval)}" if verdict.interval else ""
        return [f"{word.capitalize()} AP {percent(verdict.value)}{within}."]
    return [_compared(first, other, task, word) for other in others]


def _looser(runs: Sequence[RunContent], task: str) -> list[tuple[str, str, Verdict]]:
    """Name of the run, metric and verdict of what is told beside AP."""
    return [
        (run.name, metric, run.verdicts[f"{task}/{metric}"])
        for metric in LOOSER_METRICS
        for run in runs
        if f"{task}/{metric}" in run.verdicts
    ]


def _compared(first: RunContent, other: RunContent, task: str, word: str) -> str:
    verdict = other.verdicts.get(f"{task}/AP")
    if verdict is None:
        return f"{other.name} has no {word} AP to compare."
    if verdict.difference is None or verdict.word not in COMPARED:
        reason = verdict.word.removeprefix("not compared: ")
        return (
            f"{word.capitalize()} AP of {other.name} is not compared with {first.name}: {reason}."
        )
    numbers = f"{signed(verdict.difference.value)} points, 95 % interval {_signed_range(verdict.difference)}"
    if verdict.word == "no difference shown":
        return (
            f"No difference in {word} AP between {other.name} and {first.name} is shown: {numbers}."
        )
    return f"{other.name} has a {verdict.word} {word} AP than {first.name}: {numbers}."


def _range(interval: Interval) -> str:
    return f"{percent(interval.low)} to {percent(interval.high)}"


def _signed_range(interval: Interval) -> str:
    return f"{signed(interval.low)} to {signed(interval.high)}"


def tracks(runs: Sequence[RunContent], task: str) -> list[dict[str, Track]]:
    """For each run where its AP and its difference to the first lie, on scales that all runs share."""
    verdicts = [run.verdicts.get(f"{task}/AP") for run in runs]
    values = [v.interval for v in verdicts if v and v.interval]
    differences = [v.difference for v in verdicts if v and v.difference]
    lowest = min((interval.low for interval in values), default=0)
    highest = max((interval.high for interval in values), default=1)
    reach = max((max(abs(d.low), abs(d.high)) for d in differences), default=1) or 1
    found = []
    for verdict in verdicts:
        of_run = {}
        if verdict and verdict.interval:
            of_run["ap"] = _track(verdict.interval, lowest, highest)
        if verdict and verdict.difference:
            of_run["difference"] = _track(verdict.difference, -reach, reach, zero=50)
        found.append(of_run)
    return found


def _track(interval: Interval, lowest: float, highest: float, zero: float | None = None) -> Track:
    margin = 0.08 * (highest - lowest) or 1
    length = highest - lowest + 2 * margin
    places = (
        round(100 * (x - lowest + margin) / length, 2)
        for x in (interval.low, interval.value, interval.high)
    )
    return Track(*places, zero)


def class_rows(runs: Sequence[RunContent], task: str) -> list[tuple[str, int, list[Any]]]:
    """Name, number of objects, and each run's row (None where it has none) of every class."""
    by_run = [
        {row.name: row for row in run.analyses[task].classes} if task in run.analyses else {}
        for run in runs
    ]
    names = dict.fromkeys(name for rows in by_run for name in rows)
    found = []
    for name in names:
        rows = [of_run.get(name) for of_run in by_run]
        found.append((name, max(row.objects for row in rows if row), rows))
    return found


def _thresholds(runs: Sequence[RunContent], task: str) -> list[tuple[float, list[float | None]]]:
    """IoU threshold, and the AP of each run there."""
    analyses = [run.analyses.get(task) for run in runs]
    known = sorted({t for a in analyses if a for t in a.precision})
    return [
        (t, [plots.mean_precision(a, t) if a and t in a.precision else None for a in analyses])
        for t in known
    ]


def _confusions(runs: Sequence[RunContent], task: str) -> list[dict[str, Any]]:
    found = []
    for number, run in enumerate(runs):
        if task not in run.analyses:
            continue
        analysis = run.analyses[task]
        names = [*analysis.class_names, "background"]
        is_table = len(names) <= MOST_CELLS
        words = (
            f"confusion matrix of {run.name}, {TASKS[task]}: {len(names)} rows; the commonest confusions "
            "are named in the table after it"
        )
        found.append(
            {
                "run": run,
                "number": number,
                "names": names,
                "rows": analysis.confusion if is_table else (),
                "svg": ""
                if is_table
                else plots.confusion_picture(analysis, f"confusion{task}{number}", words),
                "commonest": commonest_confusions(analysis),
            }
        )
    return found


def commonest_confusions(analysis: TaskAnalysis) -> list[tuple[str, str, int]]:
    """What is there, what was found instead, and how often, of two different classes."""
    names = analysis.class_names
    pairs = [
        (names[row], names[column], count)
        for row, counts in enumerate(analysis.confusion[:-1])
        for column, count in enumerate(counts[:-1])
        if row != column and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:MOST_CONFUSIONS]


def _counts(runs: Sequence[RunContent], task: str) -> list[tuple[str, list[int | None]]]:
    analyses = [run.analyses.get(task) for run in runs]
    names = dict.fromkeys(name for a in analyses if a for name in a.counts)
    return [(name, [a.counts.get(name) if a else None for a in analyses]) for name in names]
