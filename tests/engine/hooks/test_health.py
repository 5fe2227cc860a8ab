"""Each warning comes once, with its mend, where its sign is there, and never where it is not."""

import logging

import pytest
import torch
from detectron2.engine import TrainerBase
from torch import nn

from ssl_backbones.engine.hooks.health import Health

HEALTHY = {"total_loss": 1.0, "time": 1.0, "data_time": 0.2, "roi_head/num_fg_samples": 3.0}


class Loop(TrainerBase):
    """Detectron2's own loop: puts what `scalars` says of an iteration and moves what is not `stuck`."""

    def __init__(self, model, scalars=lambda iteration: {}, stuck=()):
        super().__init__()
        self.model, self.scalars, self.stuck = model, scalars, stuck

    def run_step(self):
        self.storage.put_scalars(**{**HEALTHY, **self.scalars(self.iter)})
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name not in self.stuck:
                    parameter += 1


@pytest.fixture
def warnings(caplog):
    """The warnings of a run of so many iterations."""

    def run(iterations, scalars=lambda iteration: {}, stuck=(), start=0, hook=None, **options):
        caplog.clear()
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        loop = Loop(model, scalars, stuck)
        loop.register_hooks([hook or Health(model, **options)])
        with caplog.at_level(logging.WARNING, logger="detectron2"):
            loop.train(start, start + iterations)
        return [record.message for record in caplog.records]

    return run


def test_a_healthy_run_is_silent(warnings):
    falling = lambda iteration: {"total_loss": 1 - iteration / 1000}  # noqa: E731
    assert warnings(450, falling, warmup_iters=300) == []


def test_waiting_for_data(warnings):
    (message,) = warnings(350, lambda i: {"data_time": 0.31})
    assert message.startswith("31% of the last 100") and "num_workers" in message
    assert warnings(350, lambda i: {"data_time": 0.29}) == []
    assert warnings(99, lambda i: {"data_time": 0.9}) == []
    # One slow start is averaged away; half of all iterations waiting entirely is not.
    assert warnings(300, lambda i: {"data_time": float(i < 10)}) == []
    assert len(warnings(300, lambda i: {"data_time": float(i % 2)})) == 1


def test_no_foreground(warnings):
    (message,) = warnings(450, lambda i: {"roi_head/num_fg_samples": 0})
    assert "No proposal met an object in 200 iterations" in message and "mapper" in message
    assert warnings(199, lambda i: {"roi_head/num_fg_samples": 0}) == []
    assert warnings(450, lambda i: {"roi_head/num_fg_samples": float(i % 199 == 0)}) == []
    # A cascade has several heads: one with foreground is enough.
    cascade = lambda i: {"roi_head/num_fg_samples": 0, "stage1/roi_head/num_fg_samples": 2}  # noqa: E731
    assert warnings(450, cascade) == []


def test_a_loss_that_does_not_fall(warnings):
    # Tenths of 10 iterations: 4.5 is the mean of the first and 94.5 that of the last.
    (message,) = warnings(150, lambda i: {"total_loss": i}, warmup_iters=100)
    assert "4.5 in its first 10 iterations, 94.5 in its last" in message
    assert "optimizer.lr" in message
    assert len(warnings(150, warmup_iters=100)) == 1  # it stays at 1
    # It may rise after the warm-up, or the run may end within it.
    up_and_down = lambda i: {"total_loss": abs(100 - i)}  # noqa: E731
    assert warnings(300, up_and_down, warmup_iters=100) == []
    assert warnings(99, lambda i: {"total_loss": i}, warmup_iters=100) == []
    assert warnings(60, lambda i: {"total_loss": i}, warmup_iters=40) == []
    assert warnings(60, lambda i: {"total_loss": i}, warmup_iters=None) == []


def test_what_was_counted_is_kept_over_a_resume(warnings):
    """Killed in iteration 60 after a checkpoint of 49: the same message as without."""
    whole = warnings(150, lambda i: {"total_loss": i}, warmup_iters=100)
    model = nn.Linear(2, 3)
    first, second = (Health(model, warmup_iters=100, moved_after=1000) for _ in range(2))
    warnings(50, lambda i: {"total_loss": i}, hook=first)
    second.load_state_dict(first.state_dict())
    assert warnings(100, lambda i: {"total_loss": i}, start=50, hook=second) == whole
    assert second.state_dict()["early_loss"] == [45.0, 10]  # 0 + 1 + ... + 9


def test_weights_that_did_not_move(warnings):
    (message,) = warnings(150, stuck=("1.bias",))
    assert "1 trainable tensors did not move" in message and ": 1.bias." in message
    assert warnings(99, stuck=("1.bias",)) == []
    assert (
        "0.weight, 0.bias"
        in warnings(10, stuck=("0.weight", "0.bias"), start=1000, moved_after=10)[0]
    )


def test_frozen_weights_may_stay(caplog):
    model = nn.Linear(2, 3)
    model.bias.requires_grad_(False)
    loop = Loop(model, stuck=("bias",))
    loop.register_hooks([Health(model, moved_after=5)])
    with caplog.at_level(logging.WARNING, logger="detectron2"):
        loop.train(0, 6)
    assert not caplog.records
