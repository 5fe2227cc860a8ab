"""A run that was killed anywhere and resumed ends in the same files as one that was not."""

import signal

import pytest
from running import checkpoint, difference, metrics, output

TRAINER = "ssl_backbones.engine.trainer:Trainer"
EVALUATOR = "ssl_backbones.fast.evaluation.coco_evaluator:FastCOCOEvaluator"
SAVE = "ssl_backbones.engine.checkpoints.checkpointer:StrictCheckpointer"

# Twelve iterations, two images each of twelve: an epoch ends with iteration 5. Checkpoints after iterations
# 3, 5 (before an evaluation), 7 and 11 (the last, and another evaluation).
POINTS = {
    "before the first step": (f"{TRAINER}.run_step", 1),
    "between forward and backward": ("torch:Tensor.backward", 6),
    "between backward and step": (f"{TRAINER}._record", 6),
    "after a step": (f"{TRAINER}.run_step", 10, "after"),
    "at an epoch's edge": (f"{TRAINER}.run_step", 6, "after"),
    "before a checkpoint": (f"{SAVE}.save", 2),
    "in a checkpoint's write": ("ssl_backbones.hashing:HashingFile.write", 700),
    "before a checkpoint's rename": ("os:replace", 2, "before", ".pth'"),
    "before a checkpoint's checksum": (
        "ssl_backbones.engine.checkpoints.checkpointer:write_checksum",
        2,
    ),
    "before the pointer to a checkpoint": (f"{SAVE}.tag_last_checkpoint", 2),
    "after the pointer to a checkpoint": (f"{SAVE}.tag_last_checkpoint", 2, "after"),
    "while an old checkpoint is removed": ("os:remove", 1, "before", "model_0000003.pth'"),
    "in an evaluation": (f"{EVALUATOR}.process", 4),
    "before an evaluation's results": (f"{EVALUATOR}.evaluate", 1),
    "in the write of the last checkpoint": (f"{SAVE}.save", 1, "before", "model_final"),
    "in the write of the best checkpoint": (f"{SAVE}.save", 1, "before", "model_best"),
    "in the last evaluation": (f"{EVALUATOR}.process", 10),
    "after everything": (f"{TRAINER}.after_train", 1, "after"),
}
IN_SUITE = (
    "between backward and step",
    "in a checkpoint's write",
    "before the pointer to a checkpoint",
    "in an evaluation",
)


def fault(place, call, when="before", of="", number=signal.SIGKILL, rank=None):
    from running import signal_at

    return signal_at, place, call, number, when == "after", of, rank


def assert_same(folder, reference):
    assert difference(checkpoint(folder), checkpoint(reference)) is None
    assert difference(metrics(folder), metrics(reference), "metrics") is None


@pytest.mark.parametrize(
    "point",
    [pytest.param(p, marks=() if p in IN_SUITE else pytest.mark.many) for p in POINTS],
)
def test_killed_and_resumed(runs, whole, tmp_path, stated, point):
    stated(f"SIGKILL {point}", "resumed: equal to the last bit")
    folder = tmp_path / "run"
    assert runs.run(folder, fault=fault(*POINTS[point])) == [-signal.SIGKILL], output(folder)
    assert runs.run(folder, resume=True) == [0], output(folder)
    assert_same(folder, whole(1))


OPTIONS = (
    "train.accumulate=2",
    "train.ema.enabled=true",
    "train.precise_bn.enabled=true",
    "train.precise_bn.num_iter=2",
    "train.clip.norm=5.0",
    "train.clip.value=1.0",
    "train.eval_subset=3",
    "train.best_metric=segm/AP",
    "train.patience=5",
    "dataloader.train.num_workers=2",
    "train.log_period=5",
)


@pytest.fixture(scope="session")
def whole_with_options(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("options") / "run"
    assert runs.run(folder, *OPTIONS) == [0], output(folder)
    return folder


@pytest.mark.parametrize(
    "point",
    [
        "in an evaluation",
        pytest.param("between backward and step", marks=pytest.mark.many),
        pytest.param("before a checkpoint's checksum", marks=pytest.mark.many),
    ],
)
def test_killed_with_every_option_and_resumed(runs, whole_with_options, tmp_path, stated, point):
    stated(f"SIGKILL {point}, every option on, 2 workers", "resumed: equal to the last bit")
    folder = tmp_path / "run"
    assert runs.run(folder, *OPTIONS, fault=fault(*POINTS[point])) == [-signal.SIGKILL]
    assert runs.run(folder, *OPTIONS, resume=True) == [0], output(folder)
    assert_same(folder, whole_with_options)
    ema, model = (checkpoint(folder)[key] for key in ("ema", "model"))
    assert difference(ema["model"], model)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(p, marks=pytest.mark.many)
        for p in ("between backward and step", "in a checkpoint's write", "in an evaluation")
    ],
)
def test_two_processes_killed_and_resumed(runs, whole, tmp_path, stated, point):
    stated(f"SIGKILL {point}, of both of two processes", "resumed: equal to the last bit")
    folder = tmp_path / "run"
    killed = runs.run(folder, processes=2, fault=fault(*POINTS[point]))
    assert -signal.SIGKILL in killed and 0 not in killed
    assert runs.run(folder, processes=2, resume=True) == [0, 0], output(folder)
    assert_same(folder, whole(2))


# The weights hardly change, so that the second evaluation is no better and ends the run at iteration 5.
STOPPING = (
    "train.patience=1",
    "train.eval_period=3",
    "train.best_metric=bbox/AP",
    "optimizer.lr=1e-9",
)


@pytest.fixture(scope="session")
def whole_stopped_early(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert runs.run(folder, *STOPPING) == [0], output(folder)
    assert checkpoint(folder)["trainer"]["iteration"] == 5
    return folder


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("in the copy of its last checkpoint", ("ssl_backbones.engine.hooks.saving:copy", 1)),
        pytest.param(
            "in the evaluation that stops it",
            (f"{EVALUATOR}.process", 9),
            marks=pytest.mark.many,
        ),
        pytest.param("not at all", None, marks=pytest.mark.many),
    ],
)
def test_killed_where_it_stops_early(runs, whole_stopped_early, tmp_path, stated, name, point):
    stated(f"a run that stops early, SIGKILL {name}", "resumed: equal to the last bit")
    folder = tmp_path / "run"
    if point:
        assert runs.run(folder, *STOPPING, fault=fault(*point)) == [-signal.SIGKILL], output(folder)
    else:
        assert runs.run(folder, *STOPPING) == [0], output(folder)
    assert runs.run(folder, *STOPPING, resume=True) == [0], output(folder)
    assert_same(folder, whole_stopped_early)


def test_an_evaluation_alone_killed_and_started_again(runs, whole, tmp_path, stated):
    stated("SIGKILL in an evaluation of --eval-only", "started again: the same files")
    folder, words = tmp_path / "run", f"train.init_checkpoint={whole(1) / 'model_final.pth'}"
    killed = fault(*POINTS["in an evaluation"])
    assert runs.run(folder, words, eval_only=True, fault=killed) == [-signal.SIGKILL]
    assert not (folder / "inference" / "metrics.json").exists()
    assert runs.run(folder, words, eval_only=True) == [0], output(folder)
    for name in ("metrics.json", "per_class.csv", "coco_instances_results.json"):
        again, before = (path / "inference" / name for path in (folder, whole(1)))
        assert again.read_bytes() == before.read_bytes(), name


def test_nothing_unfinished_is_left(runs, whole, tmp_path, stated):
    stated("SIGKILL in a checkpoint's write", "the next start removes the temporary file")
    folder = tmp_path / "run"
    runs.run(folder, fault=fault(*POINTS["in a checkpoint's write"]))
    assert [path.name for path in folder.glob(".model*")]
    assert runs.run(folder, "train.max_iter=6", resume=True) == [0], output(folder)
    assert not [path.name for path in folder.glob(".model*")]


def test_the_comparison_sees_another_seed(runs, whole, tmp_path, stated):
    stated("another seed (the control)", "differs: the comparison can fail")
    folder = tmp_path / "run"
    assert runs.run(folder, "train.seed=8") == [0], output(folder)
    assert difference(checkpoint(folder)["model"], checkpoint(whole(1))["model"])
    assert difference(metrics(folder), metrics(whole(1)))
