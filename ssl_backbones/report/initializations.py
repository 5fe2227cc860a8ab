"""Which initialisation of a backbone is better, over seeds: results read, summed up and compared.

A difference of means inside the spread over seeds is a tie. The spread of a comparison is the larger one of
its two sides' ranges, highest less lowest seed. With three normally distributed seeds a side this calls one
pair in twenty of equal initialisations different (4.9 %; with two seeds 22 %, so that those are not judged).
"""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

FEWEST_SEEDS = 3
"""Of each side, for a verdict."""

DONE = "done"
HIGHER, LOWER, TIE, UNKNOWN = "higher", "lower", "tie", "unknown"
FINETUNED, FROZEN = "finetuned", "frozen"

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
class Summary:
    """The values of one arm under one condition, a seed each."""

    arm: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Highest less lowest seed."""
        return max(self.values) - min(self.values)


def compare(a: Summary, b: Summary) -> str:
    """Whether `a` is `HIGHER` or `LOWER` than `b`, a `TIE`, or `UNKNOWN` for want of seeds."""
    if min(len(a.values), len(b.values)) < FEWEST_SEEDS:
        return UNKNOWN
    difference = a.mean - b.mean
    if abs(difference) <= max(a.spread, b.spread):
        return TIE
    return HIGHER if difference > 0 else LOWER


def summarize(results: Iterable[Result], metric: str) -> dict[tuple[str, str], dict[str, Summary]]:
    """Condition to arm to its summary, of the runs that are done; in the order of the results.

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
        condition: {arm: Summary(arm, tuple(seeds)) for arm, seeds in arms.items()}
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


def read_average_precisions(run_folder: str | os.PathLike) -> dict[str, float]:
    """AP, AP50, ... of a run's last evaluation, in percent: "bbox/AP" and so on.

    An evaluation without a single detection has no numbers, and an AP of 0.

    Raises:
        InputError: the run has not ended with an evaluation.
    """
    from ..evaluation.metrics import flatten, read_metrics

    path = Path(run_folder) / "inference" / "metrics.json"
    try:
        metrics, _ = read_metrics(str(path))
        numbers = flatten(metrics)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read {path}: give the folder of a finished run") from error
    return {
        name: 0.0 if math.isnan(value) and name.endswith("/AP") else value
        for name, value in numbers.items()
    }


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

    recipe = read(folder)["recipe"]
    freeze_at = recipe.get("model.backbone.bottom_up.freeze_at", 0)
    return Result(
        arm=_short(str(recipe.get("weights", "random"))),
        protocol=FROZEN if isinstance(freeze_at, int) and freeze_at >= 5 else FINETUNED,
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
