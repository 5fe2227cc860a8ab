"""Values over seeds: the rule of ties, and the interval of their mean."""

import numpy as np
import pytest

from ssl_backbones.studies.over_seeds import Spread, compare


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ((33, 34, 35), (30, 31, 32), "higher"),  # 3 apart, ranges of 2
        ((30, 31, 32), (33, 34, 35), "lower"),
        ((32, 33, 34), (30, 31, 32), "tie"),  # 2 apart: just the range
        ((33, 34, 35), (28, 31, 34), "tie"),  # 3 apart, and one range of 6
        ((5, 5, 5), (5, 5, 5), "tie"),
        ((5, 5, 5), (4, 4, 4), "higher"),  # no spread at all
        ((50, 51), (1, 2, 3), "unknown"),
        ((1, 2, 3), (50,), "unknown"),
    ],
)
def test_a_difference_inside_the_spread_is_a_tie(a, b, verdict):
    assert compare(Spread(a), Spread(b)) == verdict


def test_one_pair_in_twenty_of_equal_arms_is_called_different():
    draws = np.random.default_rng(0).standard_normal((6000, 2, 3))
    called = [compare(Spread(tuple(a)), Spread(tuple(b))) != "tie" for a, b in draws]
    # 4.9 % by 200,000 pairs of plain NumPy; the standard error of 6,000 is 0.3 %.
    assert np.mean(called) == pytest.approx(0.049, abs=0.01)


def test_the_band_is_students_interval():
    # t with 2 degrees of freedom at 97.5 %: 4.302653 (any table); mean 2, standard deviation 1.
    low, high = Spread((1, 2, 3)).interval()
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    # 1.959964 in the limit of many.
    many = np.random.default_rng(0).normal(size=10_000)
    low, high = Spread(many).interval()
    assert (high - low) / 2 == pytest.approx(1.959964 * many.std(ddof=1) / 100, rel=1e-3)
    assert Spread((7.0,)).interval() == (7.0, 7.0)
