"""Comparing backbones: what its words mean, what is equal between arms, and the whole of it in miniature."""

import csv
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from own_data import own_data
from PIL import Image
from running import difference

from ssl_backbones.conversion.writing import write_detectron2
from ssl_backbones.data.dividing import with_labels_of
from ssl_backbones.data.folders import find_splits
from ssl_backbones.errors import InputError
from ssl_backbones.studies.arms import parse_arms
from ssl_backbones.studies.backbones import SET_BY, BackboneStudy, read_data
from ssl_backbones.studies.protocol_runs import refuse_set

SMALL = (
    "train.max_iter=1",
    "train.log_period=1",
    "train.draw_batches=0",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "dataloader.train.mapper.augmentations.0.short_edge_length=64",
    "dataloader.test.mapper.augmentations.0.short_edge_length=64",
    "model.roi_heads.batch_size_per_image=16",
    "model.proposal_generator.post_nms_topk=[50,20]",
)


CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(digits, module_folder):
    return own_data(digits, module_folder / "photos")


@pytest.fixture
def study(data, tmp_path, moco_file):
    def of(*words, **options):
        arms = parse_arms([word.replace("FILE", str(moco_file)) for word in words])
        return BackboneStudy(
            arms, read_data(str(data)), Path("out"), root=tmp_path, seeds=3, **options
        )

    return of


def test_arms_by_their_words(moco_file):
    words = (str(moco_file), "mine=" + str(moco_file), f"{moco_file}:shuffled")
    words += ("ssl://augnet_imagenet", "ssl://augnet_imagenet:bgr", "supervised", "scratch")
    found = [(arm.name, arm.source, arm.spoilt, arm.intact) for arm in parse_arms(words)]
    stem, file = moco_file.name.split(".")[0], str(moco_file)
    assert found == [
        (stem, file, "", stem),
        ("mine", file, "", "mine"),
        (f"{stem}-shuffled", file, "shuffled", stem),
        ("augnet_imagenet", "ssl://augnet_imagenet", "", "augnet_imagenet"),
        ("augnet_imagenet-bgr", "ssl://augnet_imagenet", "bgr", "augnet_imagenet"),
        ("supervised", "ssl://supervised_imagenet", "", "supervised"),
        ("scratch", "", "", "scratch"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scratch"], "one arm has nothing to be compared with"),
        (["FILE", "FILE"], "give each a name of its own, as NAME=FILE"),
        (["FILE", "scratch:shuffled"], "random weights have nothing that could be spoilt"),
        (["FILE", "nowhere.pth"], "there is no file nowhere.pth: an arm is a checkpoint"),
        (["FILE", "ssl://nothing"], "no weights are named ssl://nothing"),
        (["FILE", "FILE:upside_down"], "there is no file"),
        (["FILE", "mine=FILE:bgr"], "mine-bgr is a control of mine, which is no arm"),
        (["FILE", "mine="], "the arm 'mine=' has no file: write NAME=FILE"),
        (["FILE", "lr=0.1=2"], "there is no file"),
        (["FILE", "/"], "/ is a folder: an arm is the file of a checkpoint"),
    ],
)
def test_arms_that_are_none_are_refused(moco_file, words, message):
    with pytest.raises(InputError, match=message):
        parse_arms([word.replace("FILE", str(moco_file)) for word in words])


def test_overrides_that_would_unpair_the_arms_are_refused():
    refuse_set(["optimizer.lr=0.01", "train.max_iter=5"], SET_BY)
    for word in ("train.seed=1", "train.paired_init=false", "train.init_checkpoint=a.pkl"):
        with pytest.raises(InputError, match="is set by"):
            refuse_set([word], SET_BY)


def test_between_arms_of_a_seed_only_the_weights_differ(study):
    it = study("FILE", "FILE:shuffled", "scratch")
    names = it.names()
    assert len(names) == 9 and [name[-1] for name in names] == list("000111222")
    for seed in range(3):
        cells = [cell for cell in it.cells.values() if cell.seed == seed]
        commands = [
            {
                word
                for word in it.cell_step(cell).words
                if not word.startswith(("train.init_checkpoint=", "train.output_dir="))
            }
            for cell in cells
        ]
        assert commands[0] == commands[1] == commands[2]
        # A random stem has to learn, and so do the others then.
        assert {f"train.seed={seed}", "train.paired_init=true"} < commands[0]
        assert "model.backbone.bottom_up.freeze_at=0" in commands[0]
    assert not any("freeze_at" in word for word in study("FILE", "FILE:bgr").overrides)


@pytest.fixture
def own_config(tmp_path):
    """As docs/bring_your_own_pretraining.md has it, with a backbone of one call."""
    path = tmp_path / "own.py"
    path.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from ssl_backbones.engine.config import find_config\n"
        "from ssl_backbones.modeling.resnet import build_resnet\n"
        "from detectron2.config import LazyConfig\n"
        "recipe = LazyConfig.load(find_config('moco_1x'))\n"
        "model, train, dataloader = recipe.model, recipe.train, recipe.dataloader\n"
        "optimizer, lr_multiplier = recipe.optimizer, recipe.lr_multiplier\n"
        "model.backbone.bottom_up = L(build_resnet)(depth=50, norm='SyncBN', freeze_at=1,\n"
        "    out_features=['res2', 'res3', 'res4', 'res5'])\n"
    )
    return path


def test_frozen_keeps_the_backbone_as_it_is(study, own_config):
    it = study("FILE", "FILE:bgr", protocol="frozen")
    words = it.cell_step(next(iter(it.cells.values()))).words
    assert "model.backbone.bottom_up.freeze_at=5" in words
    assert "model.backbone.bottom_up.stages.norm=FrozenBN" in words
    bottom_up = "model.backbone.bottom_up"
    assert study("FILE", "FILE:bgr", protocol="frozen", config=str(own_config)).overrides == [
        f"{bottom_up}.freeze_at=5",
        f"{bottom_up}.norm=FrozenBN",
    ]
    # Of a ViT the embeddings, all blocks and the norm, none of which is left out by chance.
    vit = str(CHECKOUT / "projects/vit/configs/vit_small_dino_100ep.py")
    for depth, words in ((12, []), (24, [f"{bottom_up}.depth=24"])):
        options = {"protocol": "frozen", "config": vit, "overrides": words}
        assert study("FILE", "FILE:bgr", **options).overrides == [
            f"{bottom_up}.freeze_at={depth + 2}",
            f"{bottom_up}.drop_path=0.0",
            *words,
        ]
    with pytest.raises(InputError, match="scratch would keep its random weights"):
        study("FILE", "scratch", protocol="frozen")


def test_a_share_of_the_labels_is_alike_in_all_arms_and_another_with_each_seed(study, data):
    it = study("FILE", "scratch", protocol="low_shot_25")
    cells = list(it.cells.values())
    assert [cell.name for cell in cells[1:3]] == [
        "scratch_low_shot_25_3_0",
        "checkpoint_0199_low_shot_25_3_1",
    ]
    it.data = replace(it.data, classes=["as", "they", "stand", "there"])
    it.prepare_for([cell for cell in cells if cell.arm == "scratch"])
    whole = find_splits(data).splits
    chosen = []
    for seed in range(3):
        listed = find_splits(it.root / it.data_of(seed))
        assert listed.classes == ["as", "they", "stand", "there"]
        found = listed.splits
        train, test = (json.loads(found[role].annotations.read_text()) for role in ("train", "val"))
        names = {image["file_name"] for image in train["images"]}
        # A quarter of twelve, chosen as the rule says, by the hash of "0:SEED:NAME".
        every = json.loads(whole["train"].annotations.read_text())
        ordered = sorted(
            (image["file_name"] for image in every["images"]),
            key=lambda name, seed=seed: hashlib.sha256(f"0:{seed}:{name}".encode()).hexdigest(),
        )
        assert names == set(ordered[:3])
        ids = {image["id"] for image in train["images"]}
        assert train["annotations"] == [a for a in every["annotations"] if a["image_id"] in ids]
        assert test == json.loads(whole["val"].annotations.read_text())
        assert found["train"].images.resolve() == whole["train"].images.resolve()
        chosen.append(names)
        words = [word for cell in cells if cell.seed == seed for word in it.cell_step(cell).words]
        assert words.count(it.data_of(seed)) == 2
    assert len(set(map(frozenset, chosen))) > 1


def test_a_share_of_yolos_labels_is_of_its_training_images_alone(study, tmp_path):
    """Labels lie among the images, to which the share's folder leads."""
    photos = tmp_path / "photos"
    for split, count in (("train", 8), ("val", 3)):
        folder = photos / split / "images"
        folder.mkdir(parents=True)
        (photos / split / "labels").mkdir()
        for number in range(count):
            Image.new("RGB", (64, 64), (20 * number, 9, 9)).save(folder / f"{split}{number}.png")
            label = photos / split / "labels" / f"{split}{number}.txt"
            label.write_text("0 0.5 0.5 0.25 0.25\n")
    (photos / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [thing]\n")
    it = study("FILE", "scratch", protocol="low_shot_25")
    it.data = read_data(str(photos))
    it.prepare_for([cell for cell in it.cells.values() if cell.arm == "scratch"])
    written = read_data(str(it.root / it.data_of(0)))
    assert (written.train_images, written.test_images) == (2, 3)
    images = json.loads(written.test.annotations.read_text())["images"]
    assert {Path(image["file_name"]).stem for image in images} == {"val0", "val1", "val2"}


def test_names_that_stand_twice_are_two_images():
    content = {
        "images": [{"id": number, "file_name": "a.png"} for number in range(10)],
        "annotations": [],
    }
    assert len(with_labels_of(content, 30, 0)["images"]) == 3


def test_a_share_without_an_object_is_refused_before_anything_is_made(run_tool, data, tmp_path):
    bare = shutil.copytree(data, tmp_path / "bare")
    path = next(bare.rglob("*train*.json"))
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][:1]
    path.write_text(json.dumps(content))
    words = ("tools/evaluate_backbone.py", "scratch", "--data", str(bare), "--protocols")
    words += ("recipe,low_shot_9", "--repeats", "9", "--output", str(tmp_path / "out"))
    done = run_tool(*words)
    assert done.returncode == 2 and "none of the 1 images of seed" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", ["low_shot", "low_shot_0", "low_shot_100", "linear"])
def test_what_is_no_protocol_is_refused(study, protocol):
    with pytest.raises(InputError, match=f"no protocol is called {protocol}: there are recipe"):
        study("FILE", "scratch", protocol=protocol)


def test_a_cell_that_went_on_is_timed_as_a_whole_one(study):
    """By hand: its second half took an hour."""
    it = study("FILE", "scratch")
    name = it.names()[0]
    folder = it.folder / "cells" / name
    folder.mkdir(parents=True)
    starts = [
        {"time": "2026-01-01T00:00:00+00:00", "iteration": 0},
        {"time": "2026-01-02T00:00:00+00:00", "iteration": 200},
    ]
    (folder / "run.json").write_text(
        json.dumps({"recipe": {}, "environment": {}, "starts": starts})
    )
    row = {"cell": name, "status": "done", "seconds": "9000", "iterations": "400"}
    it.keep(name, {**row, "finished": "2026-01-02T01:00:00+00:00"})
    assert it._hours(3) == pytest.approx(2 * 3)
    # What was left of it was only the evaluation: the part says nothing of the whole.
    starts[1]["iteration"] = 400
    (folder / "run.json").write_text(
        json.dumps({"recipe": {}, "environment": {}, "starts": starts})
    )
    assert it._hours(1) == pytest.approx(2.5)


def test_a_budget_chooses_the_seeds_by_what_cells_took(study):
    it = study("FILE", "scratch", jobs=2)
    with pytest.raises(
        InputError,
        match=r"no cell is done .*with --only checkpoint_0199_finetuned_12_0 in place of",
    ):
        it.seeds_in(6)
    for name in it.names()[:2]:
        it.record.path.parent.mkdir(exist_ok=True)
        it.keep(name, {"cell": name, "status": "done", "seconds": "1800"})
    # Two arms of half an hour, two at once: half an hour a seed.
    assert (it.seeds_in(6), it.seeds_in(1e9)) == (12, 100)
    # However many run at once, a cell takes half an hour.
    assert (study("FILE", "scratch", jobs=64).seeds_in(1), it._hours(3)) == (64, 1)
    with pytest.raises(InputError, match=r"take 0\.5 hours"):
        study("FILE", "scratch", jobs=64).seeds_in(0.4)
    with pytest.raises(InputError, match=r"3 seeds of every arm.* take 1\.5 hours"):
        it.seeds_in(1.4)


def test_the_plan_says_what_other_numbers_of_seeds_would_show(study, monkeypatch):
    it = study("FILE", "scratch", jobs=2)
    it.data = replace(it.data, test_images=200)
    it.record.path.parent.mkdir(exist_ok=True)
    it.keep(it.names()[0], {"cell": it.names()[0], "status": "done", "seconds": "1800"})
    *_, head, three, five, ten = it.plan()
    assert head.endswith(
        "(2 arms, 200 test images; by the spread of projects/photographs, which is other data):"
    )
    points = [float(re.search(r": (\d+\.\d) points, ", line)[1]) for line in (three, five, ten)]
    assert points == sorted(points, reverse=True)
    assert "3 seeds: " in three and three.endswith("points, 90 minutes (this study)")
    assert ten.endswith("points, 5.0 hours")


@pytest.mark.parametrize(
    ("named", "expected"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("", ["0", "1"])]
)
def test_each_gpu_has_a_cell_of_its_own(study, monkeypatch, named, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    places = study("FILE", "scratch").places
    assert places == [{"CUDA_VISIBLE_DEVICES": name} for name in expected]


def test_another_file_under_an_arms_name_is_another_study(study, moco_file, tmp_path):
    file = shutil.copy(moco_file, tmp_path / "mine.pth")
    begun = tmp_path / "out" / "cells" / "mine_finetuned_12_0"
    begun.mkdir(parents=True)
    study(f"mine={file}", "scratch").read()
    (begun / "run.json").touch()
    with open(file, "ab") as end:
        end.write(b"more")
    study("FILE", "scratch").read()  # a new arm
    with pytest.raises(InputError, match="holds a study with arm mine="):
        study(f"mine={file}", "scratch").read()
    (begun / "run.json").unlink()
    study(f"mine={file}", "scratch", overrides=["optimizer.lr=1"]).read()


def test_a_converted_file_is_an_arm_as_it_is_and_a_stale_one_is_refused(
    study, moco_file, converted, tmp_path
):
    it = study(f"mine={converted}", f"mine={converted}:bgr")
    (tmp_path / "out" / "weights").mkdir(parents=True)
    it.prepare_for(list(it.cells.values()))
    weights = tmp_path / "out" / "weights"
    assert (weights / "mine.pkl").read_bytes() == converted.read_bytes()
    assert (weights / "mine-bgr.pkl").read_bytes() != converted.read_bytes()
    other = shutil.copy(moco_file, tmp_path / "other.pth")
    with open(other, "ab") as end:
        end.write(b"more")
    it = study(f"mine={other}", "scratch")
    with pytest.raises(InputError, match=r"mine\.pkl is not of .*other\.pth: remove it"):
        it.prepare_for(list(it.cells.values()))


def test_arms_of_two_architectures_are_refused_before_any_cell(study, converted, tmp_path):
    small = tmp_path / "small.pkl"
    provenance = {"architecture": {"name": "resnet18"}, "source_sha256": "ab"}
    write_detectron2(small, {"stem.conv1.weight": np.zeros(1, np.float32)}, lambda: provenance)
    it = study(f"mine={converted}", f"small={small}")
    (tmp_path / "out" / "weights").mkdir(parents=True)
    with pytest.raises(InputError, match="mine is a resnet50, small is a resnet18: compare equal"):
        it.prepare_for(list(it.cells.values()))
    provenance["architecture"]["depth"] = 18
    write_detectron2(small, {"stem.conv1.weight": np.zeros(1, np.float32)}, lambda: provenance)
    it = study(f"small={small}", "scratch")
    with pytest.raises(
        InputError, match=r"architecture disagrees: .*holds a resnet18 with depth=18"
    ):
        it.prepare_for(list(it.cells.values()))


def test_what_no_cell_could_start_with_is_refused_at_once(run_tool, data, moco_file, tmp_path):
    words = ("tools/compare_backbones.py", str(moco_file), "scratch", "--data", str(data))
    words += ("--output", str(tmp_path / "out"), "--plan")
    c4 = CHECKOUT / "projects/coco_c4/configs/moco_c4_1x.py"
    for more, message in (
        (["train.max_itr=3"], "max_itr"),
        (["dataloader.train.total_batch_size=3"], "say train.scale_lr=linear"),
        (["--config-file", str(c4)], "compares detectors with a pyramid"),
        (["--config-file", str(moco_file)], "does not"),
    ):
        done = run_tool(*words, *more)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_names_of_one_checkpoint_end_in_the_same_bits(run_tool, data, moco_file, module_folder):
    """And the whole command: conversion, cells, record, tables and page."""
    folder = module_folder / "study"
    words = ("tools/compare_backbones.py", f"one={moco_file}", f"other={moco_file}", *SMALL)
    words += ("--data", str(data), "--seeds", "1", "--output", str(folder))
    words += ("--jobs", "2", "--keep-checkpoints")
    plan = run_tool(*words, "--plan")
    assert plan.returncode == 0 and "2 of 2 cells to run, 2 at once" in plan.stdout, plan.stderr
    assert not folder.exists()
    done = run_tool(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "cells.csv", newline="") as file:
        one, other = csv.DictReader(file)
    assert (one["status"], other["status"], one["arm"], other["arm"]) == (
        *("done", "done"),
        *("one", "other"),
    )
    assert one["fingerprint"] == other["fingerprint"]
    models = [
        torch.load(folder / "cells" / row["cell"] / "model_final.pth", weights_only=False)["model"]
        for row in (one, other)
    ]
    assert difference(*models) is None
    assert "No verdict: 1 of at least 3 seeds are done with every arm." in done.stdout
    page = (folder / "comparison.html").read_text()
    assert one["fingerprint"][:12] in page
    assert f"page: {folder / 'comparison.html'}" in done.stdout
    again = run_tool(*words)
    assert again.returncode == 0 and "== cells" not in again.stdout
    # On another machine, where both lie elsewhere.
    table = (folder / "comparison.md").read_text()
    moved, places = (
        folder.rename(module_folder / "moved"),
        {str(folder): str(module_folder / "moved")},
    )
    elsewhere = data.rename(module_folder / "elsewhere")
    places[str(data)] = str(elsewhere)
    try:
        there = run_tool(*(places.get(word, word) for word in words))
    finally:
        elsewhere.rename(data)
    assert there.returncode == 0 and "== cells" not in there.stdout, there.stderr
    assert (moved / "comparison.md").read_text() == table


def test_one_checkpoint_under_protocols_on_data_of_ones_own(
    run_tool, data, moco_file, module_folder
):
    folder = module_folder / "evaluation"
    words = ("tools/evaluate_backbone.py", str(moco_file), *SMALL, "--data", str(data))
    words += ("--protocols", "low_shot_50", "--repeats", "2", "--output", str(folder))
    done = run_tool(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "low_shot_50/cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["budget"], row["seed"], row["status"]) for row in rows] == [
        ("6", "0", "done"),
        ("6", "1", "done"),
    ]
    # Of other images each.
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    with open(folder / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["protocol"] for row in table} == {"low_shot_50"}
    assert "verdict" not in done.stdout and f"table: {folder / 'table.md'}" in done.stdout
    for more, message in (
        (["--num-gpus", "2"], "--num-gpus with --data"),
        (["--seed", "3"], "--seed 3 with --data"),
        (["--folds", "2"], "--folds 2 with --data"),
        (["other=scratch"], "give one CHECKPOINT"),
        (["--protocols", "recipe,linear"], "no protocol is called linear"),
        (["--protocols", "recipe,recipe"], "two protocols would be called recipe"),
    ):
        refused = run_tool(*words, *more)
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr


def test_a_cell_may_be_a_job_of_slurms(run_tool, data, moco_file, tmp_path):
    """By submitit's own executor for this machine: submitted, waited for, and a row like any other."""
    words = ("tools/compare_backbones.py", f"one={moco_file}", "scratch", *SMALL)
    words += ("--data", str(data), "--output", str(tmp_path), "--only", "scratch_finetuned_12_0")
    for options, message in (
        ("partition=gpu", "--slurm needs time=TIME"),
        ("time=abc", "--slurm time=abc"),
        ("time=20,cluster=foo", "there are slurm and local"),
    ):
        refused = run_tool(*words, "--slurm", options)
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
    done = run_tool(*words, "--slurm", "cluster=local,time=20", "train.device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    with open(tmp_path / "cells.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "done" and "--slurm cluster=local,time=20,wait=yes" in row["command"]
    log = (tmp_path / "logs/scratch_finetuned_12_0.txt").read_text()
    assert "is submitted." in log
    assert list((tmp_path / "cells/scratch_finetuned_12_0/slurm").glob("*_result.pkl"))
