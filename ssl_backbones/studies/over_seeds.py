"""What runs say that differ in seed or fold alone: mean and spread of their values, and which side is better.

A difference of means inside the spread over seeds is a tie. The spread of a comparison is the larger one of
its two sides' ranges, highest less lowest seed. With three normally distributed seeds a side this calls one
pair in twenty of equal sides different (4.9 %; with two seeds 22 %, so that those are not judged).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_SEEDS = 3
"""Of each side, for a verdict."""

HIGHER, LOWER, TIE, UNKNOWN = "higher", "lower", "tie", "unknown"

LEVEL = 0.95
"""Confidence of an interval."""


@dataclass(frozen=True)
class Spread:
    """A metric's values over the runs that are done, such as folds or repeats."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation (n - 1); None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def range(self) -> float:
        """Highest less lowest."""
        return max(self.values) - min(self.values)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Student's confidence interval of the mean of normally distributed values; one value is its own."""
        from scipy.special import stdtrit

        if self.deviation is None:
            return self.mean, self.mean
        num = len(self.values)
        half = stdtrit(num - 1, (1 + level) / 2) * self.deviation / math.sqrt(num)
        return self.mean - half, self.mean + half

    def format(self, decimals: int) -> str:
        """Mean and deviation; "" without a value."""
        if not self.values:
            return ""
        spread = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"


def compare(a: Spread, b: Spread) -> str:
    """Whether `a` is `HIGHER` or `LOWER` than `b`, a `TIE`, or `UNKNOWN` for want of seeds."""
    if min(len(a.values), len(b.values)) < FEWEST_SEEDS:
        return UNKNOWN
    difference = a.mean - b.mean
    if abs(difference) <= max(a.range, b.range):
        return TIE
    return HIGHER if difference > 0 else LOWER
