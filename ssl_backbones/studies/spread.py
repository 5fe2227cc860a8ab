"""The values of several runs in short."""

from __future__ import annotations

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A metric's values over the runs that are done, such as folds or repeats."""

    values: list[float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation (n - 1); None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def shown(self, decimals: int) -> str:
        """Mean and deviation; "" without a value."""
        if not self.values:
            return ""
        spread = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{spread}"
