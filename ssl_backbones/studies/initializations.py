"""Which initialisation of a backbone is better, over seeds: results read, compared and tabled."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.metrics import metric_name
from ..files import write_atomically
from ..tables import Table
from .over_seeds import HIGHER, LOWER, TIE, Spread, compare
from .runner import DONE, read_average_precisions

FINETUNED, FROZEN = "finetuned", "frozen"

OUTCOMES = {HIGHER: "came out", TIE: "tie", LOWER: "the other way"}
"""By how the side that was expected to be higher compares."""

_KEY_COLUMNS = ("arm", "protocol", "budget", "seed", "status")
_COMPARED = (
    "weights",
    "train.seed",
    "dataloader.train.dataset.names",
    "dataloader.test.dataset.names",
    "dataloader.evaluator.dataset_name",
    "model.backbone.bottom_up.freeze_at",
)


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        arm: what the backbone was initialised with.
        protocol: `FINETUNED` or `FROZEN`.
        budget: of labelled data: a number of images, or a dataset's name.
        status: `DONE`, or what went wrong.
        metrics: in percent by name, such as "bbox/AP"; empty of a run that is not done.
        recipe: what else its result depends on; empty where it was not read.
        source: the file or folder it was read from.
    """

    arm: str
    protocol: str
    budget: str
    seed: str
    status: str
    metrics: Mapping[str, float]
    source: str
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def condition(self) -> tuple[str, str]:
        """What is alike in runs that can be compared."""
        return self.protocol, self.budget


@dataclass(frozen=True)
class Expectation:
    """That `higher` has the higher AP, wherever both arms are; `protocol` narrows it down."""

    higher: str
    lower: str
    protocol: str = ""


def summarize(results: Iterable[Result], metric: str) -> dict[tuple[str, str], dict[str, Spread]]:
    """Condition to arm to its values, of the runs that are done; in the order of the results.

    Raises:
        InputError: a run lacks the metric.
    """
    values: dict = defaultdict(lambda: defaultdict(list))
    for result in results:
        if result.status != DONE:
            continue
        if metric not in result.metrics:
            known = ", ".join(result.metrics) or "none"
            raise InputError(f"{result.source} holds no {metric}; there are {known}")
        values[result.condition][result.arm].append(result.metrics[metric])
    return {
        condition: {arm: Spread(tuple(seeds)) for arm, seeds in arms.items()}
        for condition, arms in sorted(values.items(), key=lambda item: _order(item[0]))
    }


def _order(condition: tuple[str, str]) -> tuple:
    """Budgets by size; names of datasets after them."""
    protocol, budget = condition
    return protocol, not budget.isdigit(), int(budget) if budget.isdigit() else 0, budget


def read_results(paths: Sequence[str | os.PathLike]) -> list[Result]:
    """Runs from the CSV of a study, or from run folders.

    Raises:
        InputError: a path is neither, or two runs are of one arm, condition and seed.
    """
    results: list[Result] = []
    for path in map(Path, paths):
        results += [_read_run(path)] if path.is_dir() else _read_csv(path)
    seen: dict[tuple, Result] = {}
    for result in results:
        key = (result.arm, *result.condition, result.seed)
        if key in seen:
            raise InputError(
                f"{seen[key].source} and {result.source} are both of {' '.join(key)}: give one of them"
            )
        seen[key] = result
    return results


def other_differences(results: Iterable[Result]) -> dict[str, list[Any]]:
    """Fields that affect a result, differ between the runs and are not what is compared: their values."""
    recipes = [result.recipe for result in results if result.recipe]
    keys = sorted({key for recipe in recipes for key in recipe} - set(_COMPARED))
    found = {}
    for key in keys:
        values = [recipe.get(key, "(absent)") for recipe in recipes]
        distinct = [value for i, value in enumerate(values) if value not in values[:i]]
        if len(distinct) > 1:
            found[key] = distinct
    return found


def _read_csv(path: Path) -> list[Result]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            columns = table.fieldnames or []
            missing = [name for name in _KEY_COLUMNS if name not in columns]
            if missing:
                raise InputError(f"{path} is no CSV of a study: it has no column {missing[0]}")
            return [_from_row(row, str(path)) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is not CSV"
        raise InputError(
            f"cannot read {path}: {reason}; give the CSV of a study, or run folders"
        ) from error


def _from_row(row: Mapping[str, str], source: str) -> Result:
    try:
        metrics = {name: float(row[name]) for name in row if name and "/AP" in name and row[name]}
    except (TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged: {error}") from error
    arm, protocol, budget, seed, status = (row[name] or "" for name in _KEY_COLUMNS)
    return Result(arm, protocol, budget, seed, status, metrics, source)


def _read_run(folder: Path) -> Result:
    from ..engine.record import read
    from ..modeling.freezing import freeze_at_of_all

    recipe = read(folder)["recipe"]
    build, depth, freeze_at = (
        recipe.get(f"model.backbone.bottom_up.{name}")
        for name in ("_target_", "depth", "freeze_at")
    )
    is_whole = isinstance(freeze_at, int) and freeze_at >= freeze_at_of_all(build, depth)
    return Result(
        arm=_short(str(recipe.get("weights", "random"))),
        protocol=FROZEN if is_whole else FINETUNED,
        budget=_text(recipe.get("dataloader.train.dataset.names", "")),
        seed=str(recipe.get("train.seed", "")),
        status=DONE,
        metrics=read_average_precisions(folder),
        source=str(folder),
        recipe=recipe,
    )


def _short(weights: str) -> str:
    """The record's "SHA256 METHOD BRANCH" as "METHOD BRANCH SHA256", the hash as git shortens one."""
    sha256, _, words = weights.partition(" ")
    return f"{words} {sha256[:8]}" if words else weights[:8]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# What is told of them


def parse_expectation(text: str) -> Expectation:
    """From "A > B", or "PROTOCOL: A > B".

    Raises:
        InputError: it is neither.
    """
    found = re.fullmatch(r"(?:\s*(\w+)\s*:)?([^<>:]+)>([^<>:]+)", text)
    if not found:
        raise InputError(f"--expect {text!r}: write 'A > B', or 'PROTOCOL: A > B'")
    protocol, higher, lower = (part.strip() for part in (found[1] or "", found[2], found[3]))
    return Expectation(higher, lower, protocol)


def tables(
    results: Sequence[Result],
    metrics: Sequence[str],
    *,
    reference: str = "",
    expectations: Sequence[Expectation] = (),
) -> list[Table]:
    """One table a metric, then the ties, what was expected, and what is not comparable or missing.

    Args:
        reference: the arm that the others are compared with; where it is missing, the condition's first.

    Raises:
        InputError: no run is done, a run lacks a metric, or no run is of an arm that is named.
    """
    arms = list(dict.fromkeys(result.arm for result in results))
    for name in filter(None, (reference, *(n for e in expectations for n in (e.higher, e.lower)))):
        if name not in arms:
            raise InputError(f"no run is of the arm {name!r}; there are {', '.join(arms)}")
    if not any(result.status == DONE for result in results):
        raise InputError("no run is done: there is nothing to compare")
    made = [_means(results, metric, reference) for metric in metrics]
    made.append(_ties(results, metrics))
    if expectations:
        made.append(_outcomes(results, metrics, expectations))
    made += [table for table in (_differences(results), _failures(results)) if table.rows]
    return made


def _means(results: Sequence[Result], metric: str, reference: str) -> Table:
    rows = []
    for (protocol, budget), arms in summarize(results, metric).items():
        base = reference if reference in arms else next(iter(arms))
        for arm, spread in arms.items():
            seeds = spread.values
            means = (f"{spread.mean:.1f}", f"{min(seeds):.1f} to {max(seeds):.1f}")
            against = ("", "")
            if arm != base:
                difference = f"{spread.mean - arms[base].mean:+.1f} to {base}"
                against = (difference, compare(spread, arms[base]))
            rows.append((protocol, budget, arm, str(len(seeds)), *means, *against))
    name = metric_name(metric)
    columns = ("protocol", "budget", "backbone", "seeds", name, "over seeds", "difference", "is")
    return Table(f"{name}, mean and range over seeds", columns, rows)


def _ties(results: Sequence[Result], metrics: Sequence[str]) -> Table:
    rows = []
    for metric in metrics:
        for condition, arms in summarize(results, metric).items():
            pairs = list(combinations(arms, 2))
            tied = [f"{a} = {b}" for a, b in pairs if compare(arms[a], arms[b]) == TIE]
            named = ", ".join(tied) or "none"
            rows.append((*condition, metric_name(metric), f"{len(tied)} of {len(pairs)}", named))
    return Table("Ties", ("protocol", "budget", "metric", "pairs", "tied"), rows)


def _outcomes(
    results: Sequence[Result], metrics: Sequence[str], expectations: Sequence[Expectation]
) -> Table:
    rows = []
    for expected in expectations:
        for metric in metrics:
            for (protocol, budget), arms in summarize(results, metric).items():
                if expected.protocol not in ("", protocol):
                    continue
                if expected.higher in arms and expected.lower in arms:
                    a, b = arms[expected.higher], arms[expected.lower]
                    outcome = OUTCOMES.get(compare(a, b), "too few seeds")
                    order = f"{expected.higher} > {expected.lower}"
                    difference = f"{a.mean - b.mean:+.1f}"
                    rows.append((order, protocol, budget, metric_name(metric), difference, outcome))
    columns = ("expected", "protocol", "budget", "metric", "difference", "outcome")
    return Table("What was expected before the runs", columns, rows)


def _differences(results: Sequence[Result]) -> Table:
    rows = [
        (name, ", ".join(map(str, values))) for name, values in other_differences(results).items()
    ]
    title = "Not comparable: what else differs between the runs and affects a result"
    return Table(title, ("field", "values"), rows)


def _failures(results: Sequence[Result]) -> Table:
    rows = [
        (result.arm, *result.condition, result.seed, result.status)
        for result in results
        if result.status != DONE
    ]
    return Table(
        "Runs without a result", ("backbone", "protocol", "budget", "seed", "status"), rows
    )


_PANEL_INCHES = (4.8, 4.0)
_APART = 1.03
_MARKERS = "osD^vP*X"


def draw_budget_curves(
    results: Sequence[Result], metrics: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw a panel for each protocol and metric: means, bands, and every seed as a point.

    The bands are Student's intervals of the mean over seeds (`Spread.interval`): they tell how far the mean
    would move with other seeds, not with other pretrainings or test images.

    Raises:
        InputError: a budget is no number, or `path` cannot be written.
    """
    from matplotlib.figure import Figure

    protocols = list(dict.fromkeys(result.protocol for result in results))
    arms = list(dict.fromkeys(result.arm for result in results))
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(protocols), height * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), len(protocols), squeeze=False, sharey="row", sharex=True)
    for row, metric in zip(axes, metrics, strict=True):
        summaries = summarize(results, metric)
        for axis, protocol in zip(row, protocols, strict=True):
            for arm in arms:
                # A little apart, so that points of equal budgets can be told from each other.
                shift = _APART ** (arms.index(arm) - (len(arms) - 1) / 2)
                points = [
                    (_number(budget) * shift, found[arm])
                    for (of, budget), found in summaries.items()
                    if of == protocol and arm in found
                ]
                if points:
                    _draw_arm(axis, points, arms.index(arm), arm)
            axis.set(title=protocol, xlabel="labelled images", xscale="log")
            axis.grid(alpha=0.3)
            ticks = sorted({_number(budget) for _, budget in summaries})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        row[0].set_ylabel(f"{metric_name(metric)} (%)")
    curves = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    drawn = [arm for arm in arms if arm in curves]
    figure.legend([curves[arm] for arm in drawn], drawn, loc="outside lower center", ncols=6)
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _draw_arm(axis, points: list[tuple[float, Spread]], index: int, arm: str) -> None:
    colour = f"C{index}"
    budgets = [budget for budget, _ in points]
    bands = [spread.interval() for _, spread in points]
    means = [spread.mean for _, spread in points]
    marker = _MARKERS[index % len(_MARKERS)]
    axis.plot(budgets, means, color=colour, marker=marker, markersize=5, label=arm)
    axis.fill_between(budgets, *zip(*bands, strict=True), color=colour, alpha=0.12, linewidth=0)
    # A band between two budgets is seen; at a single one it is a bar.
    axis.vlines(budgets, *zip(*bands, strict=True), color=colour, alpha=0.4, linewidth=1)
    for budget, spread in points:
        axis.plot([budget] * len(spread.values), spread.values, ".", color=colour, markersize=3)


def _number(budget: str) -> float:
    try:
        return float(budget)
    except ValueError as error:
        raise InputError(
            f"the budget {budget!r} is no number of images: a figure against it needs the CSV of a study"
        ) from error
