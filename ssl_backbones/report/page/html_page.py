"""A report as one HTML file that needs nothing else: no network, no other file, no JavaScript but to sort."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...evaluation.metrics import metric_name
from ..analysis.bootstrap import METRICS
from ..analysis.findings import ERROR_TYPES, STATISTICS, Interval
from ..comparing.verdicts import COMPARED, HIGHER, LOWER, TIE, format_verdict
from ..content import TASKS, Report, RunContent, Verdict
from ..wording import encodable, percent, signed, signed_span, span
from . import galleries, plots
from . import page_tables as tables
from .plots import DASHES, NUM_COLOURS

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_BYTES = 5_000_000  # of a page
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Of a page's content: nothing is loaded or run, not even if a text got past the escaping."""
LOOSER_METRICS = tuple(metric for metric in METRICS if metric != "AP")
SIGNS = {HIGHER: "▲", LOWER: "▼", TIE: "≈"}
"""By the words of a verdict that stand for a comparison."""

_ALL_ERRORS = {"FalsePos": "all false positives", "FalseNeg": "all false negatives"}
_SWATCH = 1.8  # how much wider than in a plot a run's line is beside its name
_MEND = re.compile(r"; (?:correct|give|number|set) .*(?=\.$)", re.DOTALL)
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Track:
    """Where an interval lies on its scale, in percent of the scale's length."""

    low: float
    value: float
    high: float
    zero: float | None = None


def format_page(report: Report, *, num_pictures: int = 4) -> str:
    """The page as HTML of less than `MOST_BYTES` bytes, for which pictures become smaller or fewer.

    Where its text alone is more it has no pictures, and says how large it is. It can be written as UTF-8,
    whatever the names in it are.

    Args:
        num_pictures: how many of the best, of the worst and of random test images are shown.

    Raises:
        ModuleNotFoundError: jinja2 or matplotlib is not installed.
    """
    template = page_environment().get_template("report.html")
    content = _content(report)

    def page_of(pictures: galleries.Pictures) -> str:
        return encodable(template.render(content, pictures=pictures))

    return page_of(galleries.fill(report, num_pictures, MOST_BYTES, page_of))


def page_environment() -> Environment:
    """What makes pages of the templates beside this module; text in them is escaped.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
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
        "span": span,
        "signed_span": signed_span,
        "format_verdict": format_verdict,
        "metric": metric_name,
        "told": told,
        "value": tables.format_value,
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
        "signs": SIGNS,
        "size_metrics": STATISTICS,
        "sizes": {task: [tables.sizes_of(run, task) for run in report.runs] for task in tasks},
        "measured": tables.measured,
        "not_measured": tables.NOT_MEASURED,
        "is_of_coco": {task: tables.is_of_coco(report.runs, task) for task in tasks},
        "other_metrics": tables.other_metrics(report.runs),
        "image_counts": tables.image_counts(report.runs),
        "sentences": [s for t, word in tasks.items() for s in sentences(report.runs, t, word)],
        "looser": {task: _looser(report.runs, task) for task in tasks},
        "tracks": {task: tracks(report.runs, task) for task in tasks},
        "curves": plots.learning_curves(report.runs),
        "recall_plots": {task: plots.precision_recall(report.runs, task) for task in tasks},
        "thresholds": {task: tables.thresholds(report.runs, task) for task in tasks},
        "class_rows": {task: tables.class_rows(report.runs, task) for task in tasks},
        "error_plots": {task: plots.error_gains(report.runs, task) for task in tasks},
        "confusions": {task: tables.confusions(report.runs, task) for task in tasks},
        "counts": {task: tables.counts(report.runs, task) for task in tasks},
        "tables": tables,
        "galleries": galleries,
        "dashes": [" ".join(f"{_SWATCH * x:g}" for x in d) if d[0] else "none" for d in DASHES],
        "num_colours": NUM_COLOURS,
        "markup": Markup,
        "script": Markup(script),
        "version": __version__,
        # No other script may run.
        "policy": f"{POLICY}; script-src 'sha256-{digest}'",
    }


def told(problem: str) -> str:
    """A problem without what to give a command instead, which is of no use to readers of a page."""
    return _MEND.sub("", problem)


def sentences(runs: Sequence[RunContent], task: str, word: str) -> list[str]:
    """The verdict in words: of a single run its AP, of several what each is against the first."""
    first, *others = runs
    verdict = first.verdicts.get(f"{task}/AP")
    if not others:
        if verdict is None or verdict.value is None:
            return [f"There is no {word} AP."]
        within = f", 95 % interval {span(verdict.interval)}" if verdict.interval else ""
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
    if verdict.difference is None:
        return (
            f"{word.capitalize()} AP of {other.name} is not compared with {first.name}: "
            f"{verdict.word}."
        )
    numbers = f"{signed(verdict.difference.value)} points, 95 % interval {signed_span(verdict.difference)}"
    if verdict.word not in COMPARED:
        doubt = f"{verdict.word[:1].upper()}{verdict.word[1:]}"
        return f"{doubt} whether {word} AP of {other.name} and {first.name} differs: {numbers}."
    if verdict.word == TIE:
        return (
            f"No difference in {word} AP between {other.name} and {first.name} is shown: {numbers}."
        )
    return f"{other.name} has a {verdict.word} {word} AP than {first.name}: {numbers}."


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
