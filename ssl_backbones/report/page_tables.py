"""What stands in the tables of a report's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from . import plots
from .analysis.findings import STATISTICS, TaskAnalysis
from .content import TASKS, RunContent
from .numbers import percent

MOST_CELLS = 26  # rows of a confusion matrix that is a table, background among them
MOST_CONFUSIONS = 12  # that are named beneath it
NOT_MEASURED = "not measured"


def class_rows(runs: Sequence[RunContent], task: str) -> list[tuple[str, int, list[Any]]]:
    """Name, number of objects, and each run's row (None where it has none) of every class.

    Classes of one name are told apart by their order, as they are in all runs of a test set.
    """
    by_run = []
    for run in runs:
        times: Counter[str] = Counter()
        by_run.append({})
        for row in run.analyses[task].classes if task in run.analyses else ():
            by_run[-1][row.name, times[row.name]] = row
            times[row.name] += 1
    found = []
    for key in dict.fromkeys(key for rows in by_run for key in rows):
        rows = [of_run.get(key) for of_run in by_run]
        found.append((key[0], max(row.objects for row in rows if row), rows))
    return found


def other_metrics(runs: Sequence[RunContent]) -> list[tuple[str, list[str]]]:
    """Metrics of other tasks than the page is of, such as keypoints, and each run's in words."""
    names = dict.fromkeys(name for run in runs for name in run.other_metrics)
    return [(name, [measured(run.other_metrics, name) for run in runs]) for name in names]


def measured(metrics: Mapping[str, float | None], name: str) -> str:
    """A metric in words: one that is undefined is a dash, and one that is not there was not measured."""
    return percent(metrics[name]) if name in metrics else NOT_MEASURED


def is_of_coco(runs: Sequence[RunContent], task: str) -> bool:
    """Whether all that was measured in a task is COCO's, which alone tells AP by size."""
    known = [run.metrics for run in runs if f"{task}/AP" in run.metrics]
    return bool(known) and all(f"{task}/APs" in metrics for metrics in known)


def sizes_of(run: RunContent, task: str) -> Mapping[str, float | None]:
    """AP by size as it is computed of the detections, or else as the run's own evaluation has it."""
    if task in run.analyses:
        return run.analyses[task].by_size
    names = {size: f"{task}/{size}" for size in STATISTICS}
    return {size: run.metrics[name] for size, name in names.items() if name in run.metrics}


def image_counts(runs: Sequence[RunContent]) -> list[tuple[str, str]]:
    """How many images were evaluated, with the name of the run where runs differ in it."""
    counts = [run.facts.get("images") for run in runs]
    if len(set(map(str, counts))) == 1:
        return [] if counts[0] is None else [("", str(counts[0]))]
    shown = ["not known" if count is None else str(count) for count in counts]
    return [(run.name, count) for run, count in zip(runs, shown, strict=True)]


def thresholds(runs: Sequence[RunContent], task: str) -> list[tuple[float, list[float | None]]]:
    """IoU threshold, and the AP of each run there."""
    analyses = [run.analyses.get(task) for run in runs]
    known = sorted({t for a in analyses if a for t in a.precision})
    return [
        (t, [plots.mean_precision(a, t) if a and t in a.precision else None for a in analyses])
        for t in known
    ]


def confusions(runs: Sequence[RunContent], task: str) -> list[dict[str, Any]]:
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


def counts(runs: Sequence[RunContent], task: str) -> list[tuple[str, list[int | None]]]:
    analyses = [run.analyses.get(task) for run in runs]
    names = dict.fromkeys(name for a in analyses if a for name in a.counts)
    return [(name, [a.counts.get(name) if a else None for a in analyses]) for name in names]
