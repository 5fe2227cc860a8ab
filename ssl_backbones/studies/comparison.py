"""What came out of a comparison of backbones, from its cells: verdicts, how sure they are, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import recipe
from ..errors import InputError
from ..evaluation.metrics import TASKS, metric_name
from ..report.analysis.bootstrap import weighted_average_precision
from ..report.analysis.outcomes import find_outcomes
from ..report.content import RunContent
from ..report.reading.ground_truth import GroundTruths, evaluated_images
from ..report.reading.runs import read_run
from ..tables import Table
from .differences import (
    BETTER,
    FEWEST_IMAGES,
    FEWEST_SEEDS,
    NOT_TOLD_APART,
    WORSE,
    Difference,
    differences,
    mean_interval,
)
from .protocol_runs import without_own

RESAMPLES = 1000


@dataclass(frozen=True)
class TaskComparison:
    """A task of a comparison.

    Attributes:
        values: arms x seeds, AP in percent.
        intervals: of each arm.
        pairs: every two arms; empty with fewer than `FEWEST_SEEDS` seeds.
    """

    values: np.ndarray
    intervals: Sequence[tuple[float, float] | None]
    pairs: Sequence[Difference]


@dataclass(frozen=True)
class Comparison:
    """All that is told of a comparison.

    Attributes:
        arms: names, in their order.
        seeds: those with which every arm is done.
        images: of the test set.
        controls: by an arm that is spoilt, the arm that it is a control of.
        tasks: by task.
        runs: of each arm the mean of its runs, for their curves and metrics.
    """

    arms: Sequence[str]
    seeds: Sequence[int]
    images: int
    controls: Mapping[str, str]
    tasks: Mapping[str, TaskComparison]
    runs: Sequence[RunContent]

    @property
    def has_verdicts(self) -> bool:
        return any(of_task.pairs for of_task in self.tasks.values())


def compare(
    folders: Mapping[tuple[str, int], Path],
    controls: Mapping[str, str],
    *,
    truths: GroundTruths | None = None,
    resamples: int = RESAMPLES,
    progress: Callable[[int], AbstractContextManager] = lambda _: nullcontext(lambda: None),
) -> Comparison:
    """Compare arms from the run folders of their cells.

    Args:
        folders: by arm and seed. A seed that an arm lacks counts for none.
        controls: as `Comparison` has them.
        truths: of the runs' test images; None for what is recorded in their folders.
        progress: makes a bar of so many steps, as `ssl_backbones.progress.progress_bar` does.

    Raises:
        InputError: no seed is done with every arm, or a folder's detections cannot be read.
    """
    arms = list(dict.fromkeys(arm for arm, _ in folders))
    seeds = common_seeds(folders)
    if not seeds:
        raise InputError("no seed is done with every arm: let the study go on")
    truths = truths or GroundTruths()
    runs = [[read_run(folders[arm, seed]) for seed in seeds] for arm in arms]
    tests = [[_tested(run, truths) for run in of_arm] for of_arm in runs]
    images = len(tests[0][0][1])
    for seed in range(len(seeds)):
        _check_recipes([of_arm[seed] for of_arm in runs])
    # Of a share of the labels each seed has images of its own.
    _check_recipes(runs[0], "dataloader.train.dataset.names")
    # A run that found nothing has no numbers, and an AP of 0.
    named = [
        task for task in TASKS if any(f"{task}/AP" in run.metrics for of in runs for run in of)
    ]
    tasks = {}
    with progress(resamples * len(named)) as advance:
        for task in named:
            measures = [
                [
                    weighted_average_precision(find_outcomes(truth.coco, run.detections, task, ids))
                    for run, (truth, ids) in zip(of_arm, tested, strict=True)
                ]
                for of_arm, tested in zip(runs, tests, strict=True)
            ]
            tasks[task] = _compared(arms, measures, images, resamples, advance)
    return Comparison(arms, seeds, images, controls, tasks, list(map(_mean_run, arms, runs)))


def _check_recipes(runs: Sequence[RunContent], *own: str) -> None:
    """Refuse runs that differ in more than weights, seed and fields of their own."""
    first, *others = (without_own(run.record.get("recipe", {})) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if differ := [one for one in recipe.compare(first, other) if one[0] not in own]:
            raise InputError(
                f"{run.folder} is of another recipe than {runs[0].folder}: {differ[0][0]} differs; remove "
                "the one that is wrong, and let the study go on"
            )


def common_seeds(folders: Mapping[tuple[str, int], Path]) -> list[int]:
    """Those that every arm has."""
    arms = {arm for arm, _ in folders}
    seeds = dict.fromkeys(seed for _, seed in folders)
    return [seed for seed in seeds if all((arm, seed) in folders for arm in arms)]


def _tested(run: RunContent, truths: GroundTruths) -> tuple[Any, Sequence[Any]]:
    """The annotations, and the ids of the images."""
    if run.detections is None:
        raise InputError(f"{run.folder} has no detections: remove it, and let the study go on")
    truth = truths.of(run.dataset, run.folder)
    ids = evaluated_images(truth, run.facts)
    return truth, sorted(truth.coco.imgs) if ids is None else ids


def why_no_verdict(arms: int, seeds: int, images: int) -> str:
    """ "" where there are enough of all for one."""
    return why_no_interval(seeds, images) or ("one arm alone is done" if arms < 2 else "")


def why_no_interval(seeds: int, images: int) -> str:
    if seeds < FEWEST_SEEDS:
        return f"{seeds} of at least {FEWEST_SEEDS} seeds are done with every arm"
    if images < FEWEST_IMAGES:
        return f"there are {images} test images, and fewer than {FEWEST_IMAGES} say too little"
    return ""


def _compared(
    arms: Sequence[str], measures: Sequence, images: int, resamples: int, advance: Callable
) -> TaskComparison:
    def average_precision(weights: np.ndarray) -> np.ndarray:
        return np.array([[measure(weights)[0] for measure in of_arm] for of_arm in measures])

    values = average_precision(np.ones(images, np.int64))
    if why_no_interval(len(values[0]), images):
        return TaskComparison(values, [None] * len(arms), ())
    random = np.random.default_rng(0)
    drawn = np.empty((resamples, *values.shape))
    for resample in drawn:
        chosen = random.integers(images, size=images)
        resample[:] = average_precision(np.bincount(chosen, minlength=images))
        advance()
    drawn = drawn[~np.isnan(drawn).any(axis=(1, 2))]
    if len(drawn) < 2:
        return TaskComparison(values, [None] * len(arms), ())
    intervals = [mean_interval(values[i], drawn[:, i], images) for i in range(len(arms))]
    pairs = differences(arms, values, drawn, images) if len(arms) > 1 else ()
    return TaskComparison(values, intervals, pairs)


def _mean_run(arm: str, runs: Sequence[RunContent]) -> RunContent:
    """What all seeds have, as the mean over them."""
    mean = RunContent(name=arm, folder="")
    for name in runs[0].curves:
        if all(name in run.curves for run in runs):
            by_run = [dict(run.curves[name]) for run in runs]
            shared = sorted(set.intersection(*map(set, by_run)))
            mean.curves[name] = [(i, sum(of[i] for of in by_run) / len(runs)) for i in shared]
    for name in runs[0].metrics:
        values = [run.metrics.get(name) for run in runs]
        if not any(value is None for value in values):
            mean.metrics[name] = sum(values) / len(runs)
    return mean


# What is told of it


def sentences(found: Comparison) -> list[str]:
    """What came out, a sentence a pair and task, and whether the controls were seen."""
    if not found.has_verdicts:
        why = why_no_verdict(len(found.arms), len(found.seeds), found.images)
        return [f"No verdict: {why or 'there is no object to find'}."]
    told = []
    for task, of_task in found.tasks.items():
        name = metric_name(f"{task}/AP")
        for pair in of_task.pairs:
            span = f"{pair.value:+.1f} points, 95 % interval {pair.low:+.1f} to {pair.high:+.1f}"
            if pair.verdict == NOT_TOLD_APART:
                told.append(f"{name}: {pair.first} and {pair.second} are not told apart ({span}).")
            else:
                told.append(f"{name}: {pair.first} is {pair.verdict} than {pair.second} ({span}).")
    return told + _of_controls(found)


def _of_controls(found: Comparison) -> list[str]:
    """A comparison that does not see what is wrong on purpose says little by "not told apart"."""
    told = []
    for spoilt, intact in found.controls.items():
        if intact not in found.arms:
            continue
        seen, turned = (
            " and ".join(
                metric_name(f"{task}/AP")
                for task, of_task in found.tasks.items()
                for pair in of_task.pairs
                if (pair.first, pair.second, pair.verdict)
                in ((better, worse, BETTER), (worse, better, WORSE))
            )
            for better, worse in ((intact, spoilt), (spoilt, intact))
        )
        if seen:
            told.append(f"The control {spoilt} is told to be worse than {intact}, by {seen}.")
        elif turned:
            told.append(
                f"The control {spoilt} is told to be better than {intact}, by {turned}: what those weights "
                "learnt does not help here, and whether they were loaded right is not seen."
            )
        else:
            told.append(
                f"The control {spoilt} is not told to be worse than {intact}: this comparison cannot see "
                "that those weights are spoilt, and so says nothing of smaller differences."
            )
    return told


def tables(found: Comparison) -> list[Table]:
    """Arms, pairs, and what differs by size and class."""
    made = [_table_of_arms(found)]
    if found.has_verdicts:
        made.append(_table_of_pairs(found))
    made.append(_table_of_metrics(found))
    return made


def _table_of_arms(found: Comparison) -> Table:
    rows = []
    for task, of_task in found.tasks.items():
        for arm, values, interval in zip(
            found.arms, of_task.values, of_task.intervals, strict=True
        ):
            span = "" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
            each = ", ".join(f"{value:.1f}" for value in values)
            name = metric_name(f"{task}/AP")
            rows.append((arm, name, f"{values.mean():.1f}", span, each))
    title = f"Arms: means over {len(found.seeds)} seeds on {found.images} images"
    return Table(title, ("arm", "metric", "mean", "95 % interval", "each seed"), rows)


def table_of_protocols(found: Mapping[str, Comparison]) -> Table:
    """Of one arm's studies, by their protocols: its AP under each."""
    made = {protocol: _table_of_arms(one) for protocol, one in found.items()}
    rows = [(protocol, *row[1:]) for protocol, table in made.items() for row in table.rows]
    return Table("", ("protocol", "metric", "mean", "95 % interval", "each seed"), rows)


def _table_of_pairs(found: Comparison) -> Table:
    rows = []
    for task, of_task in found.tasks.items():
        for pair in of_task.pairs:
            parts = pair.variances
            seeds = (parts.seeds + parts.both) ** 0.5
            rows.append(
                (
                    *(pair.first, pair.second, metric_name(f"{task}/AP")),
                    *(f"{pair.value:+.1f}", f"{pair.low:+.1f} to {pair.high:+.1f}", pair.verdict),
                    *(f"{parts.images**0.5:.1f}", f"{seeds:.1f}"),
                )
            )
    columns = ("first", "second", "metric", "difference", "95 % interval, all pairs at once")
    return Table(
        "Pairs: the first less the second",
        (*columns, "the first is", "from images", "from one seed"),
        rows,
    )


def records(found: Comparison) -> list[dict[str, Any]]:
    """The pairs as a CSV has them, to the last bit."""
    return [
        {
            "first": pair.first,
            "second": pair.second,
            "metric": f"{task}/AP",
            "difference": pair.value,
            "low": pair.low,
            "high": pair.high,
            "first_is": pair.verdict,
            "variance_images": pair.variances.images,
            "variance_seeds": pair.variances.seeds,
            "variance_both": pair.variances.both,
            "seeds": len(found.seeds),
            "images": found.images,
        }
        for task, of_task in found.tasks.items()
        for pair in of_task.pairs
    ]


def _table_of_metrics(found: Comparison) -> Table:
    names = [name for name in found.runs[0].metrics if name.partition("/")[0] in found.tasks]
    rows = []
    for name in names:
        values = [run.metrics.get(name) for run in found.runs]
        if not any(value is None or value != value for value in values):
            rows.append((metric_name(name), *(f"{value:.1f}" for value in values)))
    return Table("By size and class: means over seeds", ("metric", *found.arms), rows)
