"""A length in epochs: iterations, steps, periods and warm-up by hand arithmetic, and a run that has them."""

import json
import re
from argparse import Namespace
from types import SimpleNamespace

import pytest
from coco_files import forget
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf
from own_data import own_data
from running import TINY, metrics, output

from ssl_backbones.engine import run as running
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.schedule import lengths_for, lr_multiplier, scale_to_batch
from ssl_backbones.errors import InputError


def lengths(recipe, iterations, *given):
    """Warm-up, period of evaluation, period of checkpoints and steps of a recipe in that length."""
    cfg = load_config(recipe, given)
    words = lengths_for(cfg, iterations, {word.partition("=")[0] for word in given})
    cfg = load_config(recipe, [*words, *given])
    scheduler = cfg.lr_multiplier.scheduler
    assert cfg.train.max_iter == iterations
    steps = tuple(scheduler.milestones) if scheduler.num_updates == iterations else None
    train = cfg.train
    return cfg, (train.warmup_iters, train.eval_period, train.checkpointer.period, steps)


@pytest.mark.parametrize(
    ("recipe", "iterations", "expected"),
    [
        # Of the 1x both periods are 1/18 of the run, of the 2x 1/36; the steps of both at 2/3 and 8/9.
        ("moco_1x", 9000, (500, 500, 500, (6000, 8000))),
        ("moco_1x", 4990, (499, 277, 277, (3327, 4436))),
        ("moco_1x", 1000, (100, 56, 56, (667, 889))),
        ("moco_1x", 360, (36, 20, 20, (240, 320))),
        ("moco_ms2x", 1000, (100, 28, 28, (667, 889))),
        ("moco_ms2x", 180, (18, 5, 5, (120, 160))),
        # Steps at 3/4 and 11/12, checkpoints every 5,000 of 24,000, no evaluation but the last.
        ("projects/voc_c4/configs/moco_voc_c4_24k.py", 2400, (100, 0, 500, (1800, 2200))),
        # No two steps have room: the shares of the recipe stay.
        ("moco_1x", 1, (0, 1, 1, None)),
        ("moco_1x", 2, (0, 1, 1, None)),
        ("moco_1x", 3, (0, 1, 1, (1, 2))),
        ("moco_1x", 4, (0, 1, 1, (2, 3))),
        ("moco_1x", 5, (0, 1, 1, (3, 4))),
        ("moco_1x", 6, (0, 1, 1, (4, 5))),
        ("moco_1x", 7, (0, 1, 1, (5, 6))),
        ("moco_1x", 8, (0, 1, 1, (5, 7))),
        ("moco_1x", 9, (0, 1, 1, (6, 8))),
        ("moco_1x", 10, (1, 1, 1, (7, 9))),
    ],
)
def test_the_lengths_of_a_recipe(recipe, iterations, expected):
    cfg, found = lengths(recipe, iterations)
    assert found == expected
    lr_multiplier(cfg)


@pytest.mark.parametrize(
    ("iterations", "values"),
    [
        # From 0.001 to 1 in 36: half-way in the 18th.
        (360, {0: 0.001, 18: 0.5005, 36: 1, 239: 1, 240: 0.1, 319: 0.1, 320: 0.01, 359: 0.01}),
        (10, {0: 0.001, 1: 1, 6: 1, 7: 0.1, 8: 0.1, 9: 0.01}),
        (9, {0: 1, 5: 1, 6: 0.1, 7: 0.1, 8: 0.01}),
        (3, {0: 1, 1: 0.1, 2: 0.01}),
        (2, {0: 1, 1: 1}),
        (1, {0: 1}),
    ],
)
def test_the_learning_rate_at_the_steps(iterations, values):
    multiplier = lr_multiplier(lengths("moco_1x", iterations)[0])
    assert {n: multiplier(n / iterations) for n in values} == pytest.approx(values)


def test_what_is_given_or_a_share_stays():
    given = ("train.eval_period=7", "lr_multiplier.scheduler.milestones=[30000,60000]")
    cfg, found = lengths("moco_1x", 360, *given)
    assert found == (36, 7, 20, None) and cfg.lr_multiplier.scheduler.num_updates == 90_000
    assert lengths("moco_1x", 360, "train.eval_period=0")[1][1] == 0
    # A warm-up that is a share of the run, as in Detectron2's own configs.
    assert lengths("moco_1x", 360, "train.warmup_iters=null")[1][0] is None


@pytest.fixture
def chosen(monkeypatch, tmp_path):
    """What tools/train_net.py would start with: its config, and what is said."""
    monkeypatch.setattr(running, "setup_logger", lambda **_: None)
    monkeypatch.setattr(running, "launch", lambda *_: 0)
    before = set(DatasetCatalog.list())

    def choose(*overrides, **flags):
        defaults = dict.fromkeys(
            ["data", "classes", "init", "val_share", "slurm", "num_gpus", "num_processes", "epochs"]
        )
        defaults |= dict.fromkeys(["resume", "eval_only", "dry_run"], False)
        defaults |= {"num_machines": 1, "machine_rank": 0, "dist_url": "auto", "config_file": TINY}
        words = [f"train.output_dir={tmp_path}", *overrides]
        args = Namespace(**{**defaults, **flags}, opts=words)
        assert running.run(args) == 0
        return SimpleNamespace(cfg=load_config(args.config_file, args.opts), said=args.said)

    yield choose
    for name in set(DatasetCatalog.list()) - before:
        forget(name)


ONE = ("dataloader.train.total_batch_size=1", "train.scale_lr=linear")


def test_the_images_are_those_that_are_trained_on(chosen, digits, tmp_path):
    def thin(content):
        """One image without an object, and one with crowds alone."""
        one, other = (image["id"] for image in content["images"][:2])
        kept = [each for each in content["annotations"] if each["image_id"] != one]
        for each in kept:
            each["iscrowd"] = int(each["image_id"] == other)
        content["annotations"] = kept

    root = own_data(digits, tmp_path / "thin", thin)
    found = chosen(data=str(root), epochs=20)
    assert found.cfg.train.max_iter == 20 * 10 / 2
    assert found.said[-1] == (
        "20 epochs of 10 images, 2 a step: train.max_iter=100 train.warmup_iters=4 "
        "train.eval_period=50 train.checkpointer.period=33 "
        "lr_multiplier.scheduler.num_updates=100 lr_multiplier.scheduler.milestones=[67,89]"
    )
    unfiltered = chosen("dataloader.train.dataset.filter_empty=false", data=str(root), epochs=20)
    assert unfiltered.cfg.train.max_iter == 20 * 12 / 2
    content = json.loads((root / "train.json").read_text())
    number = next(one["id"] for one in content["categories"] if one["name"] == "3")
    plain = [one for one in content["annotations"] if not one["iscrowd"]]
    images = {one["image_id"] for one in plain if one["category_id"] == number}
    assert 0 < len(images) < 10
    # In floats 1.1 x 10 is a little more than 11.
    assert chosen(*ONE, data=str(root), epochs=1.1).cfg.train.max_iter == 11
    kept = chosen(*ONE, data=str(root), classes="3", epochs=1)
    assert kept.cfg.train.max_iter == len(images)
    # By name, two sets of 12 and 6; 1.5 epochs of them are 13.5 steps of two.
    both = chosen("dataloader.train.dataset.names=[digits_train,digits_test]", epochs=1.5)
    assert both.cfg.train.max_iter == 14


def test_of_another_format_detectron2_counts(chosen, miniatures):
    words = ("dataloader.train.dataset.names=voc_2007_trainval", "model.roi_heads.num_classes=20")
    assert chosen(*words, epochs=2).cfg.train.max_iter == 12


def test_a_scaled_learning_rate_changes_no_length(chosen, digits, tmp_path):
    """Nor does a second start, whatever has been written by the first."""
    words = ("train.scale_lr=linear", "dataloader.train.total_batch_size=4")
    cfg = chosen(*words, epochs=1).cfg
    scale_to_batch(cfg)
    # tiny.py's 0.02 is for two images.
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.optimizer.lr) == (3, 2, 0.04)
    assert chosen(*words, "optimizer.lr=0.01", epochs=1).cfg.optimizer.lr == 0.02
    with pytest.raises(InputError, match=r"say train.scale_lr=linear \(learning rate x 2\) or"):
        chosen(words[1], epochs=1)

    root = own_data(digits, tmp_path / "shapes")
    words, flags = ("train.scale_lr=linear", "optimizer.lr=0.01"), {"data": str(root), "epochs": 1}
    first = chosen(*words, **flags, num_processes=2).cfg
    assert (first.train.max_iter, first.optimizer.lr) == (3, 0.02)
    LazyConfig.save(first, str(tmp_path / "config.yaml"))
    for options in ({}, {"config_file": str(tmp_path / "config.yaml")}):
        again = chosen(*words[: 1 if options else 2], **flags, **options, resume=True).cfg
        for key in ("train", "optimizer.lr", "lr_multiplier.scheduler.milestones"):
            assert OmegaConf.select(again, key) == OmegaConf.select(first, key)


def test_without_epochs_the_length_of_own_data_is_said(chosen, digits, tmp_path):
    root = str(own_data(digits, tmp_path / "shapes"))
    # Twelve steps of two images.
    words = "train.max_iter=12 is 2 epochs of these 12 images; --epochs E sets another length"
    assert chosen(data=root).said[-1] == words
    assert not any("epochs" in one for one in chosen("train.max_iter=3", data=root).said)
    assert not any("epochs" in one for one in chosen(data=root, resume=True).said)
    assert chosen().said == []


@pytest.mark.parametrize(
    ("flags", "overrides", "line"),
    [
        ({"epochs": 2, "eval_only": True}, [], "--epochs with --eval-only"),
        ({"epochs": 2}, ["train.max_iter=9"], "--epochs 2 and train.max_iter both say how long"),
        ({"epochs": 0}, [], "--epochs 0: give a number above 0"),
        ({"epochs": float("nan")}, [], "--epochs nan: give a number above 0"),
        ({"epochs": 1e308}, [], r"--epochs 1e\+308: give a number above 0 and below a billion"),
        ({"epochs": 1}, ["dataloader.train.total_batch_size=0"], "size=0 does not divide among"),
        ({"epochs": 1}, ["dataloader.train.dataset.names=absent"], "'absent' is not registered"),
    ],
)
def test_contradictions(chosen, flags, overrides, line):
    with pytest.raises(InputError, match=line):
        chosen(*overrides, **flags)


def test_a_run_of_half_an_epoch_and_its_second_start(runs, digits, tmp_path):
    root, folder = own_data(digits, tmp_path / "shapes"), tmp_path / "run"
    words = ("train.eval_period=0", "train.draw_batches=0")
    flags = {"data": str(root), "epochs": 0.5}
    assert runs.run(folder, *words, **flags) == [0], output(folder)
    said = "0.5 epochs of 12 images, 2 a step: train.max_iter=3 train.warmup_iters=0 "
    assert said + "train.checkpointer.period=1 " in output(folder)
    text = (folder / "config.yaml").read_text()
    cfg = LazyConfig.load(str(folder / "config.yaml"))
    train, scheduler = cfg.train, cfg.lr_multiplier.scheduler
    assert (train.max_iter, train.warmup_iters, train.eval_period) == (3, 0, 0)
    assert (train.checkpointer.period, scheduler.num_updates) == (1, 3)
    assert list(scheduler.milestones) == [1, 2]
    rates = {one["iteration"]: one["lr"] for one in metrics(folder) if "lr" in one}
    assert rates == pytest.approx({0: 0.02, 1: 0.002, 2: 0.0002})

    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    assert runs.run(folder, *words, **flags, resume=True) == [0], output(folder)
    # The run card wraps long words.
    assert "model_0000001.pthatiteration2" in re.sub(r"\s", "", output(folder))
    assert (folder / "config.yaml").read_text() == text
    again = {one["iteration"]: one["lr"] for one in metrics(folder) if "lr" in one}
    assert again == rates
    assert runs.run(folder, *words, "train.max_iter=4", **flags, resume=True) == [2]
    assert output(folder).splitlines()[-1].endswith("leave one of them out")
