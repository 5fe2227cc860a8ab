"""Micro-batches of one process are the batches of several processes."""

import pytest
from running import checkpoint, metrics, output

TEN = ("train.max_iter=10", "train.eval_period=0", "model.backbone.bottom_up.norm=FrozenBN")


def test_accumulating_two_is_two_processes(runs, tmp_path):
    one, two, unlike = (tmp_path / name for name in ("one", "two", "unlike"))
    assert runs.run(one, *TEN, "train.accumulate=2") == [0], output(one)
    assert runs.run(two, *TEN, processes=2) == [0, 0], output(two)
    # The control: the same images in one batch are normalised together, and that is another loss.
    assert runs.run(unlike, *TEN) == [0], output(unlike)
    ours, theirs, other = (checkpoint(folder)["model"] for folder in (one, two, unlike))
    start = max((ours[key] - other[key]).abs().max().item() for key in ours)
    worst = max((ours[key] - theirs[key]).abs().max().item() for key in ours)
    assert worst < 1e-5 < start
    for mine, its in zip(metrics(one), metrics(two), strict=True):
        assert mine["total_loss"] == pytest.approx(its["total_loss"], rel=1e-5)
