"""What a comparison of initialisations says: its tables, and what became of what was expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import InputError
from .initializations import (
    DONE,
    HIGHER,
    LOWER,
    TIE,
    Result,
    Summary,
    compare,
    other_differences,
    summarize,
)

OUTCOMES = {HIGHER: "came out", TIE: "tie", LOWER: "the other way"}
"""By how the side that was expected to be higher compares."""

_NAMES = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}


@dataclass(frozen=True)
class Expectation:
    """That `higher` has the higher AP, wherever both arms are; `protocol` narrows it down."""

    higher: str
    lower: str
    protocol: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}{': ' if self.protocol else ''}{self.higher} > {self.lower}"


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def text(self, style: str = "simple") -> str:
        """Laid out in one of tabulate's styles."""
        from tabulate import tabulate

        return tabulate(self.rows, self.columns, tablefmt=style, disable_numparse=True)


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


def metric_name(metric: str) -> str:
    """ "bbox/AP50" as people say it: "box AP50"."""
    task, _, number = metric.partition("/")
    return f"{_NAMES.get(task, task)} {number}"


def _means(results: Sequence[Result], metric: str, reference: str) -> Table:
    rows = []
    for (protocol, budget), arms in summarize(results, metric).items():
        base = arms.get(reference) or next(iter(arms.values()))
        for summary in arms.values():
            seeds = summary.values
            against = ("", "") if summary is base else _against(summary, base)
            spread = f"{min(seeds):.1f} to {max(seeds):.1f}"
            rows.append(
                (
                    protocol,
                    budget,
                    summary.arm,
                    str(len(seeds)),
                    f"{summary.mean:.1f}",
                    spread,
                    *against,
                )
            )
    name = metric_name(metric)
    columns = ("protocol", "budget", "backbone", "seeds", name, "over seeds", "difference", "is")
    return Table(f"{name}, mean and range over seeds", columns, rows)


def _against(summary: Summary, base: Summary) -> tuple[str, str]:
    difference = f"{summary.mean - base.mean:+.1f} to {base.arm}"
    return difference, compare(summary, base)


def _ties(results: Sequence[Result], metrics: Sequence[str]) -> Table:
    rows = []
    for metric in metrics:
        for condition, arms in summarize(results, metric).items():
            pairs = list(combinations(arms.values(), 2))
            tied = [f"{a.arm} = {b.arm}" for a, b in pairs if compare(a, b) == TIE]
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
