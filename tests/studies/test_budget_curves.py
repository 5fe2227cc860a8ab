"""The figure of AP against the budget of labels."""

import numpy as np
import pytest
from PIL import Image

from ssl_backbones.errors import InputError
from ssl_backbones.studies.initializations import Result, draw_budget_curves


def result(arm, budget, seed, ap, protocol="finetuned"):
    return Result(arm, protocol, str(budget), str(seed), "done", {"bbox/AP": ap}, "test")


def test_every_arm_is_drawn_in_a_colour_of_its_own(tmp_path):
    results = [
        result(arm, budget, seed, 10 * (1 + place) + seed, protocol)
        for place, arm in enumerate(("scratch", "moco", "swav"))
        for protocol in ("finetuned", "frozen")[: 1 + (arm != "scratch")]
        for budget in (50, 400)
        for seed in range(3)
    ]
    path = tmp_path / "curves.png"
    draw_budget_curves(results, ["bbox/AP"], path)
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    # matplotlib's first four colours: three are used.
    counts = [
        (pixels == colour).all(1).sum()
        for colour in ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40))
    ]
    assert min(counts[:3]) > 100 and counts[3] == 0


def test_a_dataset_for_a_budget_cannot_be_drawn(tmp_path):
    with pytest.raises(InputError, match="'digits_train' is no number of images"):
        draw_budget_curves([result("a", "digits_train", 0, 1)], ["bbox/AP"], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
