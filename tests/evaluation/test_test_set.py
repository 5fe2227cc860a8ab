"""Which images of a test set are taken."""

import pytest

from ssl_backbones.evaluation.test_set import evenly_spread


@pytest.mark.parametrize(
    "size, count, expected",
    [
        (6, 0, [0, 1, 2, 3, 4, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 7, [0, 1, 2, 3, 4, 5]),
        (6, 3, [0, 2, 4]),
        (5, 3, [0, 1, 3]),
        (5000, 2, [0, 2500]),
        (6, 1, [0]),
    ],
)
def test_a_subset_is_evenly_spread(size, count, expected):
    assert evenly_spread(size, count) == expected
