"""Signals at any time, ranks that die, another number of processes, numbers that are not finite."""

import contextlib
import os
import random
import signal
import time

import pytest
from running import checkpoint, difference, metrics, output, signal_at, spoil_image, wait

PREEMPTED = 75
EVALUATOR = "ssl_backbones.fast.evaluation.coco_evaluator:FastCOCOEvaluator"
RUN_STEP = "ssl_backbones.engine.trainer:Trainer.run_step"

# The seeded moments of the signals, as a part of the time that a whole run takes.
_DRAW = random.Random(5)
MOMENTS = [
    (number, round(_DRAW.uniform(0.05, 0.95), 3))
    for number in [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1] * 7
]


@pytest.fixture(scope="session")
def duration(runs, whole, tmp_path_factory):
    """Seconds that a run takes, without the first one's warming of caches."""
    whole(1)
    start = time.monotonic()
    assert runs.run(tmp_path_factory.mktemp("timed") / "run") == [0]
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("number", "part"),
    [
        pytest.param(
            number,
            part,
            id=f"{signal.Signals(number).name}-{part}",
            marks=() if n == 4 else pytest.mark.many,
        )
        for n, (number, part) in enumerate(MOMENTS)
    ],
)
def test_a_signal_at_any_moment(runs, whole, duration, tmp_path, stated, number, part):
    name = signal.Signals(number).name
    stated(f"{name} after {part:.0%} of a run's time", "resumed: equal to the last bit")
    folder = tmp_path / "run"
    (process,) = runs.start(folder)
    process.join(part * duration)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
    (status,) = wait([process])
    # Asked to end, a run says so by its status; before it trains there is nothing to save.
    assert status in {signal.SIGKILL: (-9,)}.get(number, (PREEMPTED, -number, 0)), output(folder)
    assert runs.run(folder, resume=True) == [0], output(folder)
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None
    assert difference(metrics(folder), metrics(whole(1))) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_end_in_an_iteration(runs, whole, tmp_path, stated, number):
    stated(f"{number.name} in iteration 6", "the iteration is finished and saved, status 75")
    folder = tmp_path / "run"
    # Iteration 6 is no checkpoint's.
    assert runs.run(folder, fault=(signal_at, RUN_STEP, 7, number)) == [PREEMPTED], output(folder)
    assert (folder / "last_checkpoint").read_text() == "model_0000006.pth"
    assert "Next: the same command with --resume" in output(folder)
    assert runs.run(folder, resume=True) == [0], output(folder)
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None
    assert difference(metrics(folder), metrics(whole(1))) is None


@pytest.mark.parametrize(
    ("place", "call", "rank"),
    [
        (RUN_STEP, 7, 1),
        pytest.param(RUN_STEP, 7, 0, marks=pytest.mark.many),
        pytest.param(
            "ssl_backbones.engine.checkpoints.checkpointer:StrictCheckpointer.save",
            2,
            0,
            marks=pytest.mark.many,
        ),
        pytest.param(f"{EVALUATOR}.process", 2, 1, marks=pytest.mark.many),
    ],
    ids=["a step of rank 1", "a step of rank 0", "a checkpoint's write", "an evaluation"],
)
def test_a_rank_is_killed(runs, whole, tmp_path, stated, request, place, call, rank):
    stated(
        f"one of two gloo processes killed in {request.node.callspec.id}",
        "the other ends in seconds and says why; resumed: equal to the last bit",
    )
    folder = tmp_path / "run"
    fault = (signal_at, place, call, signal.SIGKILL, False, "", rank)
    start = time.monotonic()
    statuses = runs.run(folder, processes=2, fault=fault)
    assert statuses[rank] == -signal.SIGKILL and statuses[1 - rank] == 1
    assert time.monotonic() - start < 60
    said = output(folder, 1 - rank).splitlines()
    assert any("rank" in line and ("closed" in line or "lost" in line) for line in said), said[-5:]
    assert runs.run(folder, processes=2, resume=True) == [0, 0], output(folder)
    assert difference(checkpoint(folder), checkpoint(whole(2))) is None
    assert difference(metrics(folder), metrics(whole(2))) is None


@pytest.mark.parametrize("before", [1, pytest.param(2, marks=pytest.mark.many)])
def test_another_number_of_processes(runs, whole, tmp_path, stated, before):
    after = 3 - before
    stated(
        f"resumed by {after} instead of {before} processes",
        "said; every image of the order is used once",
    )
    folder = tmp_path / "run"
    kill = (signal_at, RUN_STEP, 8, signal.SIGKILL)
    assert set(runs.run(folder, processes=before, fault=kill)) == {-signal.SIGKILL}
    assert runs.run(folder, processes=after, resume=True) == [0] * after, output(folder)
    assert f"slots is {after}, was {before}" in " ".join(output(folder).split())
    # Twelve iterations of two images, two epochs of twelve.
    assert checkpoint(folder)["trainer"]["data"]["position"] == 24
    assert [line["iteration"] for line in metrics(folder)] == list(range(12))
    # Up to the checkpoint nothing has changed.
    assert difference(metrics(folder)[:5], metrics(whole(before))[:5]) is None


def test_not_finite_on_one_of_two_ranks(runs, digits, tmp_path, stated):
    stated(
        "a loss that is NaN on one of two ranks",
        "both stop before the step; what and which images are named",
    )
    folder = tmp_path / "run"
    image = "000003"
    # No log is due in the iteration that it happens in.
    fault = (spoil_image, image)
    assert runs.run(folder, "train.log_period=100", processes=2, fault=fault) == [1, 1], output(
        folder
    )
    said = [line for line in output(folder).splitlines() if "not finite at iteration" in line]
    assert said and "rank 1: Predicted boxes or scores contain Inf/NaN" in said[0]
    assert image in said[0]
    # Nothing came of it: the checkpoint from before it is there, and none after it.
    assert (folder / "last_checkpoint").read_text() == "model_0000003.pth"
    # Without the spoilt image the run goes on from there.
    assert runs.run(folder, processes=2, resume=True) == [0, 0], output(folder)
