"""Whether arms differ: intervals against scipy's, printed tables and studies of which the truth is known."""

import csv
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ssl_backbones.studies.differences import (
    BETTER,
    NOT_TOLD_APART,
    WORSE,
    Variances,
    differences,
    interaction,
    mean_interval,
    quantiles,
    resolution,
)

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def simulate():
    sys.path.insert(0, str(CHECKOUT))
    from projects.simulated_studies import simulate

    yield simulate
    sys.path.remove(str(CHECKOUT))


def held(values: np.ndarray, resamples: int = 4) -> np.ndarray:
    """Resamples in which no image moves anything: endless images."""
    return np.broadcast_to(values, (resamples, *values.shape))


def test_of_two_arms_on_endless_images_it_is_the_paired_t_interval():
    values = np.random.default_rng(0).normal(40, 2, (2, 5))
    (found,) = differences(["a", "b"], values, held(values), images=5000)
    expected = stats.ttest_rel(*values).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert found.value == pytest.approx(values[0].mean() - values[1].mean())


def test_of_many_arms_it_is_tukeys_of_a_randomised_block_design():
    """The mean square of the residuals by least squares, the quantile as it is printed in tables."""
    values = np.random.default_rng(1).normal(40, 2, (4, 3))
    arm, seed = np.indices((4, 3)).reshape(2, -1)
    design = np.column_stack([np.eye(4)[arm], np.eye(3)[seed]])
    fitted, _, rank, _ = np.linalg.lstsq(design, values.ravel(), rcond=None)
    rest = values.ravel() - design @ fitted
    mean_square = rest @ rest / (12 - rank)
    assert interaction(values) == pytest.approx(mean_square)
    # The studentized range of 4 means with 6 degrees of freedom at 5 %: 4.896 in every table.
    for pair in differences(list("abcd"), values, held(values), images=5000):
        i, j = ("abcd".index(arm) for arm in (pair.first, pair.second))
        # Of a pair that varies more than all do, by its own.
        variance = max(mean_square, np.var(values[i] - values[j], ddof=1) / 2)
        assert pair.high - pair.value == pytest.approx(4.896 * math.sqrt(variance / 3), rel=1e-3)
    for arms, degrees, printed in ((3, 10, 3.877), (6, 20, 4.445)):
        _, reaches = quantiles(arms, 5000, degrees)
        assert reaches[-1] * math.sqrt(2) == pytest.approx(printed, abs=1e-3)


def test_of_seeds_that_change_nothing_it_is_the_interval_over_images():
    random = np.random.default_rng(2)
    drawn = np.repeat(random.normal(0, [[0.5], [0.5]], (4000, 2, 1)), 3, axis=2)
    values = np.repeat([[41.0], [40.0]], 3, axis=1)
    (found,) = differences(["a", "b"], values, drawn, images=200)
    half = stats.t.ppf(0.975, 199) * np.std(drawn[:, 0, 0] - drawn[:, 1, 0], ddof=1)
    assert found.high - found.value == pytest.approx(half, rel=1e-9)
    assert found.variances.seeds == found.variances.both == 0


def test_variances_are_taken_apart():
    """By hand: 0.5 from images, 2 from seeds, 1 from both, of each of two arms."""
    random = np.random.default_rng(3)
    values = math.sqrt(2) * random.standard_normal((2, 4000))
    drawn = math.sqrt(0.5) * random.standard_normal((400, 2, 1)) + random.standard_normal(
        (400, 2, 4000)
    )
    (found,) = differences(["a", "b"], values + drawn[0], drawn + values, images=10**6)
    parts = found.variances
    assert (parts.images, parts.seeds, parts.both) == pytest.approx((1, 4, 2), rel=0.15)
    half = parts.with_images(2)
    assert (half.images, half.seeds) == (parts.images / 2, parts.seeds)


@pytest.mark.parametrize(("shift", "verdict"), [(9, BETTER), (-9, WORSE), (0.1, NOT_TOLD_APART)])
def test_verdicts_are_of_the_first_arm(shift, verdict):
    values = np.array([[0.2, -0.3, 0.1], [0.0, 0.4, -0.2]])
    values[0] += shift
    (found,) = differences(["a", "b"], values, held(values), images=100)
    assert found.verdict == verdict


@pytest.mark.parametrize(("arms", "images", "blocks"), [(2, 49, 2), (2, 199, 9), (6, 29, 10)])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.7, 0.95])
def test_of_two_variances_an_interval_holds_whatever_the_share(arms, images, blocks, share):
    """Of normal means and chi-squared variances, drawn by numpy: 5 % miss, within what the rule costs."""
    random = np.random.default_rng(0)
    studies = 40_000
    means = random.standard_normal((studies, arms))
    first = (1 - share) * random.chisquare(images, studies) / images
    second = share * random.chisquare(blocks, studies) / blocks
    reach = np.interp(second / (first + second), *quantiles(arms, images, blocks))
    missed = np.ptp(means, axis=1) / math.sqrt(2) > reach * np.sqrt(first + second)
    # With 2 degrees of freedom no interval that only grows with the share misses 5 % at each.
    assert missed.mean() == pytest.approx(0.05, abs=0.012 if blocks == 2 else 0.004)


def test_an_interval_of_two_variances_is_between_those_of_either():
    shares, reaches = quantiles(2, 49, 2)
    ends = stats.t.ppf(0.975, [49, 2])
    assert (reaches[0], reaches[-1]) == pytest.approx(tuple(ends), rel=1e-6)
    assert (shares[0], shares[-1]) == (0, 1) and (np.diff(reaches) >= 0).all()


def test_fewer_than_three_seeds_or_two_arms_are_no_study():
    for shape in ((2, 2), (1, 5)):
        values = np.zeros(shape)
        with pytest.raises(ValueError, match="give 2 with 3 at least"):
            differences(["a", "b"][: shape[0]], values, held(values), images=9)


def test_equal_arms_to_the_last_bit_are_not_told_apart():
    values = np.full((3, 3), 40.0)
    for pair in differences(list("abc"), values, held(values), images=50):
        assert (pair.low, pair.value, pair.high) == (0, 0, 0) and pair.verdict == NOT_TOLD_APART


def test_one_arms_interval_is_students_where_images_are_endless():
    values = np.array([40.0, 42.0, 41.5, 39.0])
    low, high = mean_interval(values, held(values), images=5000)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean_interval(np.array([0.1, 0.3, 5.0]), held(np.array([0.1, 0.3, 5.0])), 9)[0] == 0


def test_resolution_falls_with_seeds_and_images_and_is_students_of_two_arms():
    variances = Variances(images=0, seeds=4, both=0)
    # scipy.stats.ttest_power's like: 80 % power of a paired t-test of 5 pairs needs 1.68 deviations.
    assert resolution(2, 5, 10**6, variances) / 2 == pytest.approx(1.68, abs=0.05)
    some = Variances(images=1, seeds=4, both=1)
    assert resolution(2, 10, 200, some) < resolution(2, 5, 200, some) < resolution(6, 5, 200, some)
    assert resolution(2, 5, 800, some.with_images(4)) < resolution(2, 5, 200, some)
    assert resolution(2, 5, 200, Variances(0, 0, 0)) == 0


@pytest.mark.parametrize(("arms", "seeds", "images"), [(2, 3, 50), (6, 5, 50)])
def test_simulated_studies_hold_what_is_promised(simulate, arms, seeds, images):
    """A slice of the command: not more than 5 % and 80 %, within three standard errors."""
    studies = 300
    row = simulate.simulate(arms, seeds, images, "equal", studies, np.random.default_rng(0))
    assert row.called - 0.05 < 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.92 < row.held < 0.98
    assert abs(row.power - 0.8) < 3 * math.sqrt(0.8 * 0.2 / studies)


def test_the_page_has_the_figures_that_were_simulated(simulate):
    folder = CHECKOUT / "projects/simulated_studies"
    with open(folder / "results/simulated.csv", newline="") as file:
        rows = [
            simulate.Row(
                *(int(row[name]) for name in ("arms", "seeds", "images")),
                row["spread"],
                *(float(row[name]) for name in ("called", "held", "resolution", "power")),
            )
            for row in csv.DictReader(file)
        ]
    assert [(r.arms, r.seeds, r.images, r.spread) for r in rows] == list(simulate.kinds())
    assert simulate.table(rows).format_markdown() in (folder / "README.md").read_text()


def test_the_simulation_prints_and_writes_its_figures(simulate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        simulate, "kinds", lambda: iter([(2, 3, 50, "equal"), (6, 3, 50, "one noisy arm")])
    )
    path = tmp_path / "figures.csv"
    assert simulate.main(["--studies", "2", "--csv", str(path)]) == 0
    assert "announced resolution" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) == 3
    assert simulate.main(["--studies", "0"]) == 2
