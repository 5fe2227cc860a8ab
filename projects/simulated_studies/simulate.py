"""Do the intervals of a comparison hold what they say? Studies of which the truth is known, a thousand a row.

Each study is drawn anew: images, seeds, and what both leave together, with the variances that real studies
had, skewed over images as detections are, and also with arms whose seeds vary more or less than the others'.
It is then judged by the code that judges a comparison, bootstrap and all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from ssl_backbones.errors import InputError, run_command
from ssl_backbones.files import write_atomically
from ssl_backbones.progress import progress_bar
from ssl_backbones.studies.differences import Variances, differences, mean_interval, resolution
from ssl_backbones.tables import Table

ARMS, SEEDS, IMAGES = (2, 6), (3, 5, 10), (50, 200, 5000)
REFERENCE_IMAGES = 50
FITTED = Variances(images=1.3, seeds=3.9, both=1.9)
"""Of a difference of two arms on that many images; README.md says from what it was taken."""

SPREADS = {
    "equal": (1.0,) * 6,
    "one quiet arm": (1.6, 1.6, 1.3, 1.9, 0.25, 1.7),
    "one noisy arm": (1.0, 1.0, 1.0, 1.0, 1.0, 3.0),
}
"""Relative deviations of the arms over seeds; the second are those of projects/transfer_study (50 scenes)."""

TRUTH = 40.0
"""The AP of every arm."""

RESAMPLES = 200  # of each study; a thousand would tell the same of a thousand studies


@dataclass(frozen=True)
class Row:
    """What came out of many studies of one kind.

    Attributes:
        spread: of the arms' seeds, of `SPREADS`.
        called: share of the studies of equal arms in which any two are told apart: in all others the
            intervals of all pairs hold the truth.
        held: share of the arms whose own interval holds the truth.
        resolution: in points, as it is announced.
        power: share of the studies in which a difference of that size is shown.
    """

    arms: int
    seeds: int
    images: int
    spread: str
    called: float
    held: float
    resolution: float
    power: float


def kinds() -> Iterator[tuple[int, int, int, str]]:
    for arms in ARMS:
        for seeds in SEEDS:
            for images in IMAGES:
                yield arms, seeds, images, "equal"
    for spread in list(SPREADS)[1:]:
        for seeds in SEEDS:
            yield 6, seeds, 200, spread


def simulate(
    arms: int, seeds: int, images: int, spread: str, studies: int, random: np.random.Generator
) -> Row:
    """Studies of equal arms, and as many of which the first arm is better by what the resolution says."""
    variances = FITTED.with_images(images / REFERENCE_IMAGES)
    announced = resolution(arms, seeds, images, variances)
    deviations = np.array(SPREADS[spread][:arms])
    deviations /= np.sqrt(np.mean(deviations**2))
    called = held = shown = 0
    for _ in range(studies):
        values, drawn = draw(arms, seeds, images, variances, deviations, random)
        names = [str(arm) for arm in range(arms)]
        pairs = differences(names, values, drawn, images)
        called += any(pair.low > 0 or pair.high < 0 for pair in pairs)
        intervals = [mean_interval(values[arm], drawn[:, arm], images) for arm in range(arms)]
        held += sum(low <= TRUTH <= high for low, high in intervals)
        values[0] += announced
        # The same study, were the first arm better: only its values move.
        shown += differences(names[:], values, drawn, images)[0].low > 0
    rates = called / studies, held / studies / arms, announced, shown / studies
    return Row(arms, seeds, images, spread, *rates)


def draw(
    arms: int,
    seeds: int,
    images: int,
    variances: Variances,
    deviations: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Values (arms x seeds) of a study without any true difference, and resamples of them.

    A run's value is a mean over images, so that its bootstrap is that of means.
    """
    # Half of a difference's variance is either arm's; the mean of n has an n-th of one's.
    of_images = _skewed(random, (arms, 1, images)) * (variances.images / 2 * images) ** 0.5
    of_both = _skewed(random, (arms, seeds, images)) * (variances.both / 2 * images) ** 0.5
    of_seeds = random.standard_normal((arms, seeds)) * (variances.seeds / 2) ** 0.5
    scores = (of_images + of_both).reshape(arms * seeds, images)
    of_seeds = of_seeds * deviations[:, None]
    values = TRUTH + scores.mean(axis=1).reshape(arms, seeds) + of_seeds
    weights = random.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    drawn = (weights @ scores.T / images).reshape(RESAMPLES, arms, seeds) + of_seeds
    drawn += TRUTH
    return values, drawn


def _skewed(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Mean 0, variance 1, skewness 2: most images tell little, and a few much."""
    return random.exponential(size=shape) - 1


def table(rows: Sequence[Row]) -> Table:
    cells = [
        (
            *(str(row.arms), str(row.seeds), f"{row.images:,}", row.spread),
            *(f"{100 * row.called:.1f} %", f"{100 * row.held:.1f} %"),
            *(f"{row.resolution:.1f}", f"{100 * row.power:.0f} %"),
        )
        for row in rows
    ]
    columns = ("arms", "seeds", "images", "arms' seeds vary")
    columns += ("equal arms told apart", "arms' own intervals hold")
    return Table("", (*columns, "announced resolution", "and how often it is shown"), cells)


def run(arguments: argparse.Namespace) -> None:
    if arguments.studies < 1:
        raise InputError(f"--studies {arguments.studies}: give at least 1")
    every = list(kinds())
    rows = []
    with progress_bar(len(every)) as advance:
        for number, kind in enumerate(every):
            random = np.random.default_rng([arguments.seed, number])
            rows.append(simulate(*kind, arguments.studies, random))
            advance()
    print(table(rows).format_text())
    if arguments.csv:
        records = Table.of_records("", [row.__dict__ for row in rows])
        text = records.format_csv()
        write_atomically(arguments.csv, lambda file: file.write(text.encode()))
        print(f"\nresults: {arguments.csv}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python projects/simulated_studies/simulate.py --studies 1000 --csv simulated.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--studies", type=int, default=1000, metavar="N", help="of each kind")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures there")
    return run_command(lambda: run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
