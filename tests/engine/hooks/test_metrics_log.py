"""metrics.json and TensorBoard's events, written by a loop whose numbers are known."""

import json
import logging
import math
import os
import resource
import shutil
from pathlib import Path

import pytest
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook
from detectron2.utils.events import EventStorage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_backbones.engine.hooks.metrics_log import TIMED, MetricsLog, cut_back, peak_memory


class Loop(TrainerBase):
    """Detectron2's own loop; iteration i has the loss 1 / (i + 1), takes 2 s and waits 0.5 s for data."""

    stop = None

    def run_step(self):
        loss = 1 / (self.iter + 1)
        self.storage.put_scalars(total_loss=loss, time=2.0, data_time=0.5)


class At(HookBase):
    """Does something after one iteration."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_step(self):
        if self.trainer.iter == self.iteration:
            self.action(self.trainer)


def run(folder, start, stop, *before, period=1, **options):
    loop = Loop()
    log = MetricsLog(str(folder), period, images=16, **options)
    loop.register_hooks([*before, log])
    loop.train(start, stop)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_values_are_raw_and_the_measured_ones_follow_from_the_time(tmp_path):
    run(tmp_path, 0, 3, recipe="0123456789abcdef")
    assert [line.pop("memory") > 50 for line in lines(tmp_path)] == [True] * 3
    entry = lines(tmp_path)[2]
    entry.pop("memory")
    assert entry == {
        "iteration": 2,
        "total_loss": pytest.approx(1 / 3, abs=1e-12),  # a median of 20 would be 1/2
        "time": 2.0,
        "data_time": 0.5,
        "data_wait": 0.25,
        "images_per_second": 8.0,
        "recipe": "0123456789ab",
    }


def test_a_line_every_period_at_evaluations_and_at_the_end(tmp_path):
    run(tmp_path, 0, 11, period=4, eval_period=5)
    assert [line["iteration"] for line in lines(tmp_path)] == [3, 4, 7, 9, 10]


def test_a_run_that_stops_early_has_its_last_line(tmp_path):
    def stop(loop):
        loop.stop = "patience"

    run(tmp_path, 0, 6, At(2, stop), period=4)
    assert [line["iteration"] for line in lines(tmp_path)] == [2, 3, 4, 5]


def test_nan_is_null_and_only_what_this_iteration_put_is_written(tmp_path):
    run(tmp_path, 0, 3, At(1, lambda loop: loop.storage.put_scalar("bbox/APs", math.nan)))
    assert [line.get("bbox/APs", "none") for line in lines(tmp_path)] == ["none", None, "none"]


def test_an_evaluation_after_the_end_is_written_too(tmp_path):
    run(tmp_path, 0, 2, EvalHook(0, lambda: {"bbox": {"AP": 41.0}}))
    last = lines(tmp_path)[-1]
    assert (last["iteration"], last["bbox/AP"]) == (2, 41.0)


def test_a_failed_iteration_is_not_written(tmp_path):
    def fail(loop):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run(tmp_path, 0, 5, At(2, fail))
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 1]


def test_a_resumed_run_ends_in_the_same_file(tmp_path):
    run(tmp_path, 0, 7)
    whole = (tmp_path / "metrics.json").read_text()
    # Three more were done and a fourth was being written when the run was killed after a checkpoint.
    run(tmp_path, 4, 7)
    resumed = [{k: v for k, v in line.items() if k not in TIMED} for line in lines(tmp_path)]
    expected = [json.loads(line) for line in whole.splitlines()]
    assert resumed == [{k: v for k, v in line.items() if k not in TIMED} for line in expected]


def test_the_rest_of_an_iteration_replaces_its_line(tmp_path):
    """As the trainer does it: the hooks after the checkpoint's run once more for its iteration."""
    run(tmp_path, 0, 7)
    loop = Loop()
    log = MetricsLog(str(tmp_path), 1, images=16)
    loop.register_hooks([log])
    loop.start_iter, loop.max_iter, loop.iter = 4, 7, 3
    with EventStorage(3) as loop.storage:
        loop.before_train()
        loop.storage.put_scalars(total_loss=0.25)
        loop.after_step()
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 1, 2, 3]


def test_cutting_back_drops_what_a_crash_left(tmp_path):
    path = tmp_path / "metrics.json"
    kept = '{"iteration": 0}\n{"iteration": 1}\n'
    path.write_text(kept + 'not JSON\n[]\n{"iteration": 5}\n{"iteration": 1, "total_lo')
    cut_back(str(path), 2)
    assert path.read_text() == kept
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_another_run_in_the_same_folder_leaves_the_first_one_s_file(tmp_path):
    run(tmp_path, 0, 2)
    before = (tmp_path / "metrics.json").read_text()
    run(tmp_path, 0, 1)
    assert len(lines(tmp_path)) == 1
    assert (tmp_path / "metrics.json.before").read_text() == before


def test_a_folder_that_is_gone_is_told_once_and_nothing_is_lost(tmp_path, caplog):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    actions = [
        At(1, lambda _: folder.rename(elsewhere)),
        At(4, lambda _: elsewhere.rename(folder)),
    ]
    with caplog.at_level(logging.INFO, logger="detectron2"):
        run(folder, 0, 6, *actions)
    assert [line["iteration"] for line in lines(folder)] == [0, 1, 2, 3, 4, 5]
    messages = [r.message for r in caplog.records if "metrics.json can" in r.message]
    assert len(messages) == 2
    assert "No such file or directory" in messages[0] and "goes on" in messages[0]
    assert messages[1] == "metrics.json can be written again."


def test_a_full_disk_leaves_whole_lines(tmp_path, caplog):
    """A limit on the size of files lets a part of a line through, as a disk does that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "metrics.json"
    while_full = []

    def fill(_):
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))

    def free(_):
        while_full.extend(lines(tmp_path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    try:
        run(tmp_path, 0, 5, At(1, fill), At(3, free))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [line["iteration"] for line in while_full] == [0]
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4]
    assert sum("the disk is full" in record.message for record in caplog.records) == 1


def test_tensorboard_shows_the_same_and_hides_what_was_done_again(tmp_path):
    run(tmp_path, 0, 7)
    run(tmp_path, 4, 6)
    events = EventAccumulator(str(tmp_path)).Reload()
    points = [(event.step, event.value) for event in events.Scalars("total_loss")]
    assert points == [(i, pytest.approx(1 / (i + 1))) for i in range(6)]
    assert {"data_wait", "images_per_second", "memory"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux for the truth")
def test_memory_is_that_of_this_process():
    status = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
    assert peak_memory() == pytest.approx(int(status["VmHWM"].split()[0]) / 1024, rel=0.05)


def test_a_removed_folder_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run(folder, 0, 4, At(1, lambda _: shutil.rmtree(folder)))
    assert not folder.exists()
