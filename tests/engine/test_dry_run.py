"""The estimate of a schedule, by hand arithmetic and from a real detector, and what it leaves behind."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.dry_run import Costs, dry_run, estimate, measure, temporary_run_folder
from ssl_backbones.engine.trainer import Trainer

TINY = str(Path(__file__).parents[1] / "tiny.py")


def costs(**changes):
    """Half a second an iteration; 5,000 images on 8 processes, 0.1 s each."""
    values = {
        "iteration": 0.5,
        "evaluation_batch": 0.1,
        "evaluation_batches": 625,
        "test_images": 5000,
        "memory": 7000.0,
        "checkpoint": 2**28,
    }
    return Costs(**{**values, **changes})


@pytest.mark.parametrize(
    ("overrides", "training", "evaluation", "in_all"),
    [
        # 90,000 x 0.5 s = 12.5 h; 18 evaluations of 62.5 s = 18.75 min.
        (
            [],
            "90,000 iterations of 0.5 s: 12.5 h",
            "18, the last one of 1.0 min: 18.8 min",
            "12.8 h",
        ),
        # 500 of 5,000 images in all but the last: 62.5 s x (1 + 17 x 0.1) = 168.75 s.
        (["train.eval_subset=500"], "12.5 h", "the last one of 1.0 min: 2.8 min", "12.5 h"),
        # 9 sizes, flipped as well: 18 times as long; 18 x 18.75 min.
        (["train.tta.enabled=true"], "12.5 h", "18, the last one of 18.8 min: 5.6 h", "18.1 h"),
        (["train.ema.enabled=true"], "12.5 h", "18, the last one of 2.1 min: 37.5 min", "13.1 h"),
        (["train.eval_period=0"], "12.5 h", "1, the last one of 1.0 min: 1.0 min", "12.5 h"),
        # 13 and a last one.
        (["train.eval_period=7000"], "12.5 h", "13, the last one", "12.7 h"),
        (["train.max_iter=60"], "60 iterations of 0.5 s: 30 s", "1, the last", "1.5 min"),
    ],
)
def test_the_arithmetic(overrides, training, evaluation, in_all):
    rows = dict(estimate(load_config("moco_1x", overrides), costs()))
    assert training in rows["training"]
    assert evaluation in rows["evaluation"]
    assert rows["in all"].startswith(in_all)
    assert rows["memory"].startswith("7,000 MiB of each process")


@pytest.fixture(scope="module")
def trainer(digits):
    cfg = load_config(TINY)
    torch.manual_seed(0)
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    loader = build_train_loader(cfg.dataloader.train, seed=7)
    return cfg, Trainer(model, loader, instantiate(cfg.optimizer), seed=7)


def test_a_detector_is_measured(trainer):
    cfg, trainer = trainer
    found = measure(cfg, trainer)
    assert trainer.iter == 3
    assert found.evaluation_batches == found.test_images == 6
    assert 0 < found.evaluation_batch < 60 and 0 < found.iteration < 60
    # float32 weights and momentum: twice the parameters, and the buffers.
    state = trainer.model.state_dict()
    trained = sum(parameter.numel() for parameter in trainer.model.parameters())
    buffers = sum(t.numel() * t.element_size() for t in state.values()) - 4 * trained
    assert found.checkpoint == 8 * trained + buffers


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(Path(folder).rglob("*"))}


def test_nothing_is_left_behind(trainer, tmp_path, monkeypatch):
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    for folder in (work, temporary):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = tree(tmp_path)
    cfg, trained = trainer
    args = Namespace(opts=["train.output_dir=output/planned"])
    with temporary_run_folder(args, load_config(TINY, args.opts)):
        folder = load_config(TINY, args.opts).train.output_dir
        assert os.path.dirname(folder) == str(temporary) and os.path.isdir(folder)
        (Path(folder) / "log.txt").write_text("what a run writes")
        rows = dict(dry_run(cfg, trained, args.planned_folder))
    # The planned folder is not there and its disk is looked at all the same.
    assert rows["disk"].endswith(f"GiB free in {work}")
    before[temporary] = temporary.stat().st_mtime_ns
    assert tree(tmp_path) == before


def test_a_disk_that_is_too_small_is_said(trainer, tmp_path):
    cfg, trained = trainer
    cfg.train.checkpointer.max_to_keep = 10**12
    words = dict(dry_run(cfg, trained, str(tmp_path)))["disk"]
    assert words.endswith(": TOO LITTLE, lower train.checkpointer.max_to_keep")
