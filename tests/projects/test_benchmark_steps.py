"""Rows of training steps and inference: both sides do what they say, and a difference is found."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from projects.benchmarks import processes
from projects.benchmarks.row import Disagreement
from projects.benchmarks.rows import gpu, inference, step


def gradients(pooling=1.0, weight=1.0):
    return step.Gradients({"weight": np.full(5, weight)}, [np.full(5, pooling, np.float32)])


def check_step(stock, ours, loss=1.0):
    exact = gradients().pooling
    step.check(lambda: (exact, stock, ours), {"loss_mask": 1.0}, {"loss_mask": loss})


def test_other_losses_and_farther_gradients_are_found():
    check_step(gradients(), gradients(), loss=1 + 5e-6)
    check_step(gradients(pooling=1.01), gradients(pooling=0.99))
    check_step(gradients(), gradients(weight=1.009))
    for loss in (1 + 2e-5, np.nan):
        with pytest.raises(Disagreement, match="loss_mask"):
            check_step(gradients(), gradients(), loss=loss)
    with pytest.raises(Disagreement, match="pooling gradient 0"):
        check_step(gradients(pooling=1.01), gradients(pooling=1.012))
    with pytest.raises(Disagreement, match="nan off"):
        check_step(gradients(), gradients(pooling=np.nan))
    for weight in (1.011, 0.0, np.nan):
        with pytest.raises(Disagreement, match="gradient of weight"):
            check_step(gradients(), gradients(weight=weight))


def test_a_kernel_without_the_gradient_of_later_channels_is_found(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    from ssl_backbones.fast.pooling import roi_align_kernels

    spread = roi_align_kernels.spread

    def spread_first_channels(features, pooled, image, channel, *weights):
        if channel < 64:
            spread(features, pooled, image, channel, *weights)

    (row,) = (row for row in step.ROWS if row.name == "step")
    comparison = row.prepare(tmp_path, True)
    comparison.check(comparison.stock(), comparison.ours())
    right = comparison.ours(True)
    monkeypatch.setattr(roi_align_kernels, "spread", spread_first_channels)
    losses = comparison.ours()
    with pytest.raises(Disagreement, match="pooling gradient 0"):
        comparison.check(comparison.stock(), losses)
    # The step's own gradients alone tell as well.
    sides = [side._replace(pooling=[]) for side in (right, comparison.ours(True))]
    with pytest.raises(Disagreement, match="the gradient of backbone"):
        step.check(lambda: ([], *sides), losses, losses)


@pytest.mark.parametrize(
    "name, stock",
    [("step", {}), ("step-same-allocator", processes.ALLOCATOR), ("step-recipe", {})],
)
def test_which_side_of_a_step_has_the_allocator_setting(tmp_path, monkeypatch, name, stock):
    started = []
    monkeypatch.setattr(step, "side", lambda make, environment: started.append(environment))
    (row,) = (row for row in step.ROWS if row.name == name)
    comparison = row.prepare(tmp_path, False)
    assert started == [stock, processes.ALLOCATOR]
    assert ("allocator" in comparison.opponent) == bool(stock)


@pytest.mark.parametrize(
    "other", [{"loss_cls": np.inf}, {"loss_cls": np.nan}, {"loss_mask": 1.0}, {}]
)
def test_a_backbone_that_does_not_train_is_found(other):
    step.check_finite({"loss_cls": 1.0}, {"loss_cls": 2.0})
    with pytest.raises(Disagreement, match="the losses are"):
        step.check_finite({"loss_cls": 1.0}, other)


def test_the_allocator_setting_is_the_documented_one():
    text = (Path(__file__).parents[2] / "docs/speed.md").read_text()
    assert f"GLIBC_TUNABLES={processes.ALLOCATOR['GLIBC_TUNABLES']} " in text


def test_other_instances_are_found():
    result = {
        "category_id": 3,
        "bbox": [1.0, 2.0, 30.0, 40.0],
        "score": 0.5,
        "segmentation": {"size": [4, 4], "counts": "04"},
    }
    inference.check([result], [{**result, "score": 0.50005}])
    for change in (
        {"category_id": 4},
        {"bbox": [1.0, 2.0, 30.0, 40.1]},
        {"score": 0.51},
    ):
        with pytest.raises(Disagreement, match="instance 0"):
            inference.check([result], [{**result, **change}])
    for found in ([], [result, result]):
        with pytest.raises(Disagreement, match="instances, and"):
            inference.check([result], found)
    with pytest.raises(Disagreement):
        inference.check([], [])


def test_losses_farther_off_than_amp_are_found():
    single, stock = [2.0, 1.0], [2.02, 1.01]
    gpu.check(single, stock, [2.03, 1.02])
    with pytest.raises(Disagreement, match="noise is"):
        gpu.check(single, stock, [2.2, 1.1])


def test_the_gpu_row_runs_on_a_cpu_too():
    comparison = gpu.compare("cpu", small=True)
    comparison.check(comparison.stock(), comparison.ours())
    assert any("images/s" in note for note in comparison.notes())


def test_a_side_with_another_environment_is_another_process(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    here = processes.side(make_report, {})
    there = processes.side(make_report, processes.ALLOCATOR)
    assert here() == (os.getpid(), None)
    pid, tunables = there()
    assert pid != os.getpid()
    assert tunables == processes.ALLOCATOR["GLIBC_TUNABLES"]
    assert there()[0] == pid
    assert "GLIBC_TUNABLES" not in os.environ


def test_with_that_environment_it_is_this_process(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", processes.ALLOCATOR["GLIBC_TUNABLES"])
    assert processes.side(make_report, processes.ALLOCATOR)()[0] == os.getpid()
    pid, tunables = processes.side(make_report, {})()
    assert pid != os.getpid() and tunables is None


def test_what_fails_in_another_process_fails_here():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        processes.Worker(partial(divmod, 1, 0), {})
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        processes.Worker(partial(partial, divmod, 1, 0), {})()


def test_arguments_reach_another_process():
    assert processes.Worker(partial(partial, divmod), {})(7, 2) == (3, 1)


def make_report():
    return lambda: (os.getpid(), os.environ.get("GLIBC_TUNABLES"))
