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
- How many standard errors an interval reaches depends on the share that the seeds have in its variance. It is
  set so that 95 of 100 intervals hold whatever the true share is, as Lee and Gurland did for two variances
  (JASA 70, 1975): Satterthwaite's degrees of freedom let 92 hold with three seeds of two arms.
- All pairs are compared at once: at either end of the share intervals are Tukey's, by the studentized
  range. Of equal arms, however many, none is then called better in 95 of 100 studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    pooled = 2 * float(interaction(values))
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
    blocks = (arms - 1) * (seeds - 1)
    return _half(arms, images - 1, blocks, over_images, both / seeds, of_pair / seeds)


def mean_interval(values: np.ndarray, drawn: np.ndarray, images: int) -> tuple[float, float]:
    """Of one arm's AP, over seeds and images: for itself, and not for a comparison.

    Args:
        values: of each seed.
        drawn: resamples x seeds.
    """
    seeds = len(values)
    over_images, both = _over_images(drawn)
    of_seeds = np.var(values, ddof=1) / seeds
    half = float(_half(2, images - 1, seeds - 1, over_images, both / seeds, of_seeds))
    mean = float(values.mean())
    return max(0.0, mean - half), min(100.0, mean + half)


def _half(
    arms: int, images: int, blocks: int, over_images: float, both: float, over_seeds: np.ndarray
) -> np.ndarray:
    """Of an interval, from the variances of a mean over images and over seeds, which have `both` in common.

    Args:
        images, blocks: degrees of freedom of the one and of the other.
    """
    of_images, of_seeds = max(0.0, over_images - both), np.maximum(over_seeds, both)
    total = of_images + of_seeds
    share = np.divide(of_seeds, total, out=np.zeros_like(total), where=total > 0)
    shares, reaches = quantiles(arms, images, blocks)
    return np.interp(share, shares, reaches) * np.sqrt(total)


def _over_images(drawn: np.ndarray) -> tuple[float, float]:
    """Variances over resamples of the mean over seeds, and of what images and one seed leave together."""
    seeds = drawn.shape[1]
    of_mean = float(np.var(drawn.mean(axis=1), ddof=1))
    of_one = float(np.var(drawn, axis=0, ddof=1).mean())
    # of_mean = images + both / seeds, of_one = images + both.
    return of_mean, max(0.0, (of_one - of_mean) * seeds / (seeds - 1))


def interaction(values: np.ndarray) -> np.ndarray:
    """Mean square, in (studies x) arms x seeds, of what neither the arm's mean nor the seed's explains."""
    rest = values - values.mean(axis=-1, keepdims=True)
    rest -= rest.mean(axis=-2, keepdims=True)
    arms, seeds = values.shape[-2:]
    return np.sum(rest**2, axis=(-2, -1)) / ((arms - 1) * (seeds - 1))


@lru_cache(maxsize=16)
def quantiles(arms: int, images: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """How many standard errors an interval reaches to each side, for `LEVEL` over all pairs of arms.

    Args:
        images, blocks: degrees of freedom of the two variances that are added.

    Returns:
        Estimated shares of the second variance in the sum, from 0 to 1, and the reach at each.
    """
    from scipy.stats import chi2, studentized_range

    shares = np.concatenate([np.linspace(0, 0.9, 19), [0.93, 0.96, 0.98, 1]])
    of_images = chi2.ppf((np.arange(_NODES) + 0.5) / _NODES, images)[:, None] / images
    # Few degrees of freedom go down to nearly no variance, where an interval misses most.
    edges = np.concatenate([[0], np.geomspace(1e-6, 1, 200)])
    of_blocks = chi2.ppf((edges[1:] + edges[:-1]) / 2, blocks) / blocks
    weights = np.diff(edges) / _NODES
    estimated = [((1 - share) * of_images, share * of_blocks) for share in shares]
    errors = np.sqrt([first + second for first, second in estimated])
    found = np.array([second / (first + second) for first, second in estimated])
    points, range_within = _range_within(arms)
    ends = [studentized_range.ppf(LEVEL, arms, degrees) for degrees in (images, blocks)]
    reaches = np.interp(shares, [0, 1], np.log(ends))
    for _ in range(_STEPS):
        held = np.interp(np.exp(np.interp(found, shares, reaches)) * errors, points, range_within)
        missed = ((1 - held) * weights).sum(axis=(1, 2))
        reaches = reaches + _STEP * np.log(missed / (1 - LEVEL))
        reaches[[0, -1]] = np.log(ends)
        if blocks < _FEW:
            # What is measured worse shortens no interval. Without this rule every share could be met, by
            # intervals that grow and shrink wildly.
            reaches = np.minimum(np.maximum.accumulate(reaches), reaches[-1])
    return shares, np.exp(reaches) / math.sqrt(2)


_NODES, _STEPS, _STEP = 24, 150, 0.12
_FEW = 5


@lru_cache(maxsize=16)
def _range_within(arms: int) -> tuple[np.ndarray, np.ndarray]:
    """Points from 0 to 40, and how often the range of so many normal variables is within each."""
    from scipy.special import ndtr

    points, at = np.linspace(0, 40, 2001), np.linspace(-8, 8, 801)
    density = np.exp(-(at**2) / 2) / math.sqrt(2 * math.pi) * (at[1] - at[0])
    return points, np.array(
        [arms * np.sum(density * (ndtr(at) - ndtr(at - point)) ** (arms - 1)) for point in points]
    )


def resolution(arms: int, seeds: int, images: int, variances: Variances) -> float:
    """The difference of two arms, in points, that is shown in `POWER` of such studies.

    Found by drawing what seeds leave in 40,000 studies; what images leave is taken as known.
    """
    random = np.random.default_rng(0)
    of_one = (variances.seeds + variances.both) / 2
    values = random.standard_normal((_STUDIES, arms, seeds)) * math.sqrt(of_one)
    pooled = 2 * interaction(values)
    differences_of_runs = values[:, 0] - values[:, 1]
    of_pair = np.maximum(pooled, differences_of_runs.var(axis=1, ddof=1))
    chance = differences_of_runs.mean(axis=1)
    chance += random.standard_normal(_STUDIES) * math.sqrt(variances.images)
    over_images = variances.images + variances.both / seeds
    reach = _reach(arms, seeds, images, over_images, variances.both, of_pair)
    # It is shown where the difference, and what chance adds to it, is beyond the interval's reach.
    return float(np.quantile(reach - chance, POWER))


_STUDIES = 40_000
