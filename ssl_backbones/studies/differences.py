"""Whether two arms of a study differ, counting both what the seed and what the test images leave to chance.

The model: the AP of a run is that of its arm over endless images and seeds, plus an effect of the images that
were drawn, which all seeds share, plus one of the seed, plus one of both. Images and seeds are crossed, and
arms are paired: all have the same images, and of each seed the same heads and order of images.

- What images leave is the variance of a difference over the bootstrap of images, the seeds being held.
- What seeds leave is the mean square of the interaction of arm and seed, pooled over all arms: the residuals
  of a randomised block design with seeds for blocks, so that three seeds of four arms have six degrees of
  freedom and not two. Where a pair's own differences vary more than that, as with an arm whose seeds vary
  more than the others', it is theirs. What images and seed leave together stands in both, and is taken out
  once.
- The degrees of freedom of the sum are Satterthwaite's (Biometrics Bulletin 2, 1946).
- All pairs are compared at once: intervals are Tukey's, by the studentized range. Of equal arms, however
  many, none is then called better in 95 of 100 studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

LEVEL = 0.95
"""In how many studies the intervals of all pairs hold the truth at once."""

POWER = 0.8
FEWEST_SEEDS = 3
FEWEST_IMAGES = 30
"""Of fewer test images the bootstrap is not what its name says."""

BETTER, WORSE, NOT_TOLD_APART = "better", "worse", "not told apart"


@dataclass(frozen=True)
class Variances:
    """What a difference of two arms owes to chance, in squared points of AP.

    Attributes:
        images: over test sets of this size, of the difference over endless seeds.
        seeds: over seeds, of the difference of one pair of runs over endless images.
        both: of one pair of runs, what images and seed leave together.
    """

    images: float
    seeds: float
    both: float

    def of_mean(self, seeds: int) -> float:
        """Of the difference of means over this many seeds."""
        return self.images + (self.seeds + self.both) / seeds

    def with_images(self, factor: float) -> Variances:
        """On a test set of that many times the images."""
        return Variances(self.images / factor, self.seeds, self.both / factor)


MEASURED, MEASURED_IMAGES = Variances(images=1.3, seeds=0.8, both=1.9), 50
"""Of a difference in projects/photographs, the mean over its pairs and both tasks, and its test images."""


@dataclass(frozen=True)
class Difference:
    """The first arm less the second, in points of AP, with its interval among all pairs of the study."""

    first: str
    second: str
    value: float
    low: float
    high: float
    variances: Variances

    @property
    def verdict(self) -> str:
        """Of the first arm."""
        if self.low > 0:
            return BETTER
        return WORSE if self.high < 0 else NOT_TOLD_APART


def differences(
    arms: Sequence[str], values: np.ndarray, drawn: np.ndarray, images: int
) -> list[Difference]:
    """Every pair of arms, in their order.

    Args:
        values: arms x seeds, AP in percent.
        drawn: resamples x arms x seeds, each resample of the same images for all.
        images: of the test set.

    Raises:
        ValueError: fewer than two arms, or than `FEWEST_SEEDS` seeds.
    """
    count, seeds = values.shape
    if count < 2 or seeds < FEWEST_SEEDS:
        raise ValueError(f"{count} arms with {seeds} seeds: give 2 with {FEWEST_SEEDS} at least")
    pooled = 2 * interaction(values)
    found = []
    for i, j in combinations(range(count), 2):
        over_images, both = _over_images(drawn[:, i] - drawn[:, j])
        of_pair = max(pooled, float(np.var(values[i] - values[j], ddof=1)))
        parts = Variances(max(0.0, over_images - both / seeds), max(0.0, of_pair - both), both)
        half = float(_reach(count, seeds, images, over_images, both, np.array(of_pair)))
        value = float(values[i].mean() - values[j].mean())
        found.append(Difference(arms[i], arms[j], value, value - half, value + half, parts))
    return found


def _reach(
    arms: int, seeds: int, images: int, over_images: float, both: float, of_pair: np.ndarray
) -> np.ndarray:
    """How far the interval of a difference reaches to each side.

    Args:
        over_images: variance of the mean difference over the bootstrap.
        both: what images and one seed leave together.
        of_pair: variances of the difference of one pair of runs over seeds.
    """
    of_seeds = of_pair / seeds
    total = max(0.0, over_images - both / seeds) + np.maximum(of_seeds, both / seeds)
    blocks = (arms - 1) * (seeds - 1)
    spent = over_images**2 / (images - 1) + of_seeds**2 / blocks
    return quantile(arms, _degrees(total, spent, min(images - 1, blocks))) * np.sqrt(total)


def mean_interval(values: np.ndarray, drawn: np.ndarray, images: int) -> tuple[float, float]:
    """Of one arm's AP, over seeds and images: for itself, and not for a comparison.

    Args:
        values: of each seed.
        drawn: resamples x seeds.
    """
    seeds = len(values)
    over_images, both = _over_images(drawn)
    of_seeds = float(np.var(values, ddof=1)) / seeds
    total = max(0.0, over_images - both / seeds) + max(of_seeds, both / seeds)
    spent = over_images**2 / (images - 1) + of_seeds**2 / (seeds - 1)
    degrees = _degrees(np.array(total), np.array(spent), min(images, seeds) - 1)
    half = float(quantile(2, degrees)) * math.sqrt(total)
    mean = float(values.mean())
    return max(0.0, mean - half), min(100.0, mean + half)


def _over_images(drawn: np.ndarray) -> tuple[float, float]:
    """Variances over resamples of the mean over seeds, and of what images and one seed leave together."""
    seeds = drawn.shape[1]
    of_mean = float(np.var(drawn.mean(axis=1), ddof=1))
    of_one = float(np.var(drawn, axis=0, ddof=1).mean())
    # of_mean = images + both / seeds, of_one = images + both.
    return of_mean, max(0.0, (of_one - of_mean) * seeds / (seeds - 1))


def interaction(values: np.ndarray) -> float:
    """Mean square, in arms x seeds, of what neither the arm's mean nor the seed's explains."""
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float(np.sum(rest**2) / ((len(values) - 1) * (values.shape[1] - 1)))


def _degrees(total: np.ndarray, spent: np.ndarray, least: int) -> np.ndarray:
    """Satterthwaite's degrees of freedom of a sum of variances, `spent` being those of its parts' squares."""
    # Of no variance, and beyond 10,000 of them, the quantile is that of a normal distribution.
    found = np.divide(total**2, spent, out=np.full_like(spent, _ENDLESS), where=spent > 0)
    return np.clip(found, least, _ENDLESS)


_ENDLESS = 1e4


def quantile(arms: int, degrees: float | np.ndarray) -> np.ndarray:
    """How many standard errors an interval reaches to each side, for `LEVEL` over all pairs of arms."""
    from scipy.special import stdtrit

    if arms == 2:
        return stdtrit(degrees, (1 + LEVEL) / 2)
    return np.exp(_log_range(arms)(1 / np.asarray(degrees))) / math.sqrt(2)


@lru_cache(maxsize=16)
def _log_range(arms: int) -> Callable[[np.ndarray], np.ndarray]:
    """Of the studentized range's quantile the logarithm, by the inverse of the degrees of freedom.

    Scipy integrates for a fifth of a second; between these points the quantile is met to one in a thousand.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.stats import studentized_range

    degrees = np.array([_ENDLESS, 120, 40, 20, 12, 8, 6, 4.5, 3.5, 2.8, 2.3, 2, 1.6, 1.3, 1])
    return PchipInterpolator(1 / degrees, np.log(studentized_range.ppf(LEVEL, arms, degrees)))


def resolution(arms: int, seeds: int, images: int, variances: Variances) -> float:
    """The difference of two arms, in points, that is shown in `POWER` of such studies.

    Found by drawing what seeds leave in 4,000 studies; what images leave is taken as known.
    """
    random = np.random.default_rng(0)
    of_one = (variances.seeds + variances.both) / 2
    values = random.standard_normal((_STUDIES, arms, seeds)) * math.sqrt(of_one)
    pooled = 2 * np.array([interaction(study) for study in values])
    differences_of_runs = values[:, 0] - values[:, 1]
    of_pair = np.maximum(pooled, differences_of_runs.var(axis=1, ddof=1))
    chance = differences_of_runs.mean(axis=1)
    chance += random.standard_normal(_STUDIES) * math.sqrt(variances.images)
    over_images = variances.images + variances.both / seeds
    reach = _reach(arms, seeds, images, over_images, variances.both, of_pair)
    # It is shown where the difference, and what chance adds to it, is beyond the interval's reach.
    return float(np.quantile(reach - chance, POWER))


_STUDIES = 4000
