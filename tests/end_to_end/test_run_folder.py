"""A run folder: whose it is, what it keeps, and what a resumed run may change."""

import re

import pytest
from detectron2.config import LazyConfig
from running import checkpoint, metrics, output, signal_at

SHORT = ("train.max_iter=4", "train.eval_period=0", "train.checkpointer.period=2")
KILL_AT_3 = (signal_at, "ssl_backbones.engine.trainer:Trainer.run_step", 4)


@pytest.fixture
def killed(runs, tmp_path):
    """A run of four iterations, killed in the last; its checkpoint is of iteration 1."""
    folder = tmp_path / "run"
    assert runs.run(folder, *SHORT, fault=KILL_AT_3) == [-9], output(folder)
    return folder


def last_line(folder):
    return output(folder).splitlines()[-1]


def test_a_new_run_in_an_old_folder_is_refused(runs, killed):
    before = sorted(path.name for path in killed.iterdir())
    assert runs.run(killed, *SHORT, "train.seed=8") == [2]
    assert "holds a run (model_0000001.pth): add --resume to go on with it" in last_line(killed)
    assert sorted(path.name for path in killed.iterdir()) == before
    # Without last_checkpoint as well.
    (killed / "last_checkpoint").unlink()
    assert runs.run(killed, *SHORT, "train.seed=8") == [2]


def test_a_changed_option_takes_effect_from_there_on_and_is_told(runs, killed):
    words = (*SHORT, "optimizer.lr=0.0004", "train.warmup_iters=null", "train.ema.enabled=true")
    words += ("train.checkpointer.max_to_keep=null",)
    assert runs.run(killed, *words, resume=True) == [0], output(killed)
    said = " ".join(output(killed).split())
    assert "optimizer.lr is 0.0004, was 0.02" in said
    assert "holds no averaged weights: the average starts here" in said
    by_iteration = {line["iteration"]: line["lr"] for line in metrics(killed)}
    # Past the first of its steps; before, in the warm-up of the first start.
    assert by_iteration[3] == pytest.approx(0.0004 * 0.1)
    assert by_iteration[0] == pytest.approx(0.02 * 0.001)
    # Of two updates, not of the random weights from before the checkpoint was loaded.
    held = checkpoint(killed)
    key = "backbone.bottom_up.stem.conv1.norm.running_var"
    assert (held["ema"]["model"][key] - held["model"][key]).abs().max() < 0.05


def test_config_yaml_is_what_was_given(runs, tmp_path):
    folder = tmp_path / "run"
    words = (
        *SHORT,
        "dataloader.train.total_batch_size=4",
        "train.scale_lr=linear",
        "train.seed=-1",
    )
    assert runs.run(folder, *words) == [0], output(folder)
    # Twice the reference: half the iterations at twice the learning rate.
    assert checkpoint(folder)["trainer"]["iteration"] == 1
    kept = LazyConfig.load(str(folder / "config.yaml"))
    assert (kept.optimizer.lr, kept.train.max_iter, kept.train.scale_lr) == (0.02, 4, "linear")
    assert kept.train.seed == checkpoint(folder)["trainer"]["seed"] >= 0
    weights = f"train.init_checkpoint={folder / 'model_final.pth'}"
    assert runs.run(folder, weights, "optimizer.lr=0.5", eval_only=True) == [0], output(folder)
    assert LazyConfig.load(str(folder / "config.yaml")).optimizer.lr == 0.02
    # And what is said to run next names what the run was given.
    assert re.search(r"--eval-only .*train.init_checkpoint=", output(folder)) is None


def test_ranks_with_unlike_configs_are_refused(runs, tmp_path):
    folder = tmp_path / "run"
    one = runs.start(folder, *SHORT, processes=2, unlike=(1, "train.checkpointer.period=3"))
    statuses = [child.join(60) or child.exitcode for child in one]
    assert statuses == [2, 2]
    assert "the ranks disagree on the config" in output(folder)


def test_a_signal_after_the_training_does_not_undo_it(runs, tmp_path):
    folder = tmp_path / "run"
    fault = (signal_at, "ssl_backbones.engine.run:_closing_words", 1, 10)
    # SIGUSR1 has its own way again: nobody asks for a checkpoint of what is done.
    assert runs.run(folder, *SHORT, fault=fault) == [-10]
    assert checkpoint(folder)["trainer"]["iteration"] == 3
    assert "Preempted" not in output(folder)


def test_a_dry_run_leaves_no_folder_and_says_what_is_next(runs, tmp_path):
    folder = tmp_path / "run"
    assert runs.run(folder, *SHORT, dry_run=True) == [0], output(folder)
    assert "All of it would take:" in output(folder)
    assert last_line(folder) == "Next: the same command without --dry-run"
    assert not folder.exists()
