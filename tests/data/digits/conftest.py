"""The miniatures' pictures once more, to hold the files against."""

import numpy as np
import pytest

from ssl_backbones.data.digits.digit_scenes import CELLS, photographs

TRAIN, TEST = 12, 6  # as the fixture `miniatures` makes them


@pytest.fixture(scope="session")
def taken():
    """Makes the pictures of a split anew: `taken("train", number of the split in the seed)`."""

    def taken(split, number):
        num = TRAIN if split == "train" else TEST
        made = photographs(split, num, size=64, seed=(0, number), on_scene=lambda: None)
        return list(made)

    return taken


@pytest.fixture(scope="session")
def covered():
    """Pixels that a mask touches, and those of which it covers half or more."""

    def covered(mask):
        cells = mask.reshape(mask.shape[0] // CELLS, CELLS, mask.shape[1] // CELLS, CELLS)
        return cells.any((1, 3)), cells.mean((1, 3)) >= 0.5

    return covered


@pytest.fixture(scope="session")
def extent():
    """First and last row and column of a picture of booleans: left, top, right, bottom, all inside."""

    def extent(pixels):
        rows, columns = np.nonzero(pixels)
        return [int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())]

    return extent
