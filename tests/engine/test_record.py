"""run.json: what a fingerprint depends on and what it does not, and what a record holds."""

import json
import os
import platform
import subprocess
from importlib.metadata import version

import pytest
import torch
from detectron2 import model_zoo

from ssl_backbones import InputError, get_config
from ssl_backbones.engine import record
from ssl_backbones.engine import record as environment
from ssl_backbones.engine.config import apply_overrides
from ssl_backbones.engine.recipe import ABSENT, WITHOUT_EFFECT, compare, fingerprint, recipe
from ssl_backbones.engine.schedule import lr_multiplier

SOURCE = {"source_sha256": "ab12", "method": "moco", "branch": "encoder_q", "date": "today"}


def config(*overrides):
    cfg = get_config("moco_1x")
    apply_overrides(cfg, overrides)
    return cfg


@pytest.fixture(scope="module")
def plain():
    return fingerprint(config(), SOURCE)


@pytest.mark.parametrize(
    "override",
    [
        "train.output_dir=elsewhere",
        "train.log_period=7",
        "train.paired_init=false",
        "train.device=cpu",
        "train.checkpointer.period=9",
        "train.init_checkpoint=renamed.pkl",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "dataloader.evaluator.output_dir=elsewhere",
        "optimizer.momentum=0.90",
        "lr_multiplier.scheduler.values=[1,0.1,0.01]",
        "dataloader.train.mapper._target_=detectron2.data.DatasetMapper",
        "dataloader.train.dataset._target_=detectron2.data.get_detection_dataset_dicts",
        "dataloader.evaluator._target_=detectron2.evaluation.COCOEvaluator",
        "model.roi_heads.box_pooler._target_=ssl_backbones.fast.pooling.roi_pooler.FastROIPooler",
    ],
)
def test_where_and_how_fast_do_not_count(plain, override):
    assert fingerprint(config(override), SOURCE) == plain


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.03",
        "train.max_iter=90001",
        "train.seed=3",
        "model.roi_heads.num_classes=81",
        "model.backbone.bottom_up.freeze_at=2",
        "dataloader.train.dataset.names=digits_train",
        "dataloader.train.mapper.augmentations.0.short_edge_length=640",
        "dataloader.train.total_batch_size=8",
        "train.amp.enabled=true",
        "train.paired_init=true",
        # Pixels may be off by 1.
        "dataloader.train.mapper.exact=false",
    ],
)
def test_what_changes_the_result_counts(plain, override):
    assert fingerprint(config(override), SOURCE) != plain


def test_weights_count_by_their_source_and_the_slots_count(plain):
    assert fingerprint(config(), {**SOURCE, "date": "tomorrow", "source": "other name"}) == plain
    assert fingerprint(config(), {**SOURCE, "source_sha256": "cd34"}) != plain
    assert fingerprint(config(), {**SOURCE, "branch": "encoder_k"}) != plain
    assert fingerprint(config(), SOURCE, 2) != plain


def test_processes_and_micro_batches_are_the_same_but_to_sync_bn():
    frozen = [f"model.backbone.bottom_up.{part}.norm=FrozenBN" for part in ("stem", "stages")]
    two, one = (config(*frozen, *words) for words in ([], ["train.accumulate=2"]))
    assert fingerprint(one, SOURCE, 2) == fingerprint(two, SOURCE, 2)
    # Of four processes and of two that accumulate twice, it has the statistics of four and of two.
    four, two = recipe(config(), SOURCE, 4), recipe(config("train.accumulate=2"), SOURCE, 4)
    assert compare(four, two) == [("train.accumulate", ABSENT, 2)]


def test_weights_without_provenance_count_by_content(tmp_path):
    file, copy = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (file, copy):
        path.write_bytes(b"abc")
    fields = recipe(config(f"train.init_checkpoint={file}"))
    # The hash of "abc": FIPS 180-2, appendix B.1.
    assert fields["weights"].startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")
    assert recipe(config(f"train.init_checkpoint={copy}")) == fields
    assert recipe(config("train.init_checkpoint="))["weights"] == "random"


def test_building_the_schedule_changes_nothing(plain):
    """It writes the warm-up's share of the run into the config."""
    cfg = config()
    lr_multiplier(cfg)
    assert cfg.lr_multiplier.warmup_length == 500 / 90_000
    cfg.lr_multiplier.warmup_length = 0.5
    assert fingerprint(cfg, SOURCE) == plain
    assert fingerprint(config("train.warmup_iters=600"), SOURCE) != plain


def test_every_field_left_out_has_a_reason_and_exists():
    assert all(WITHOUT_EFFECT.values())
    kept = recipe(config())
    assert "optimizer.lr" in kept and kept["model._target_"].endswith(".GeneralizedRCNN")
    assert kept["dataloader.train.mapper.augmentations.0.short_edge_length"] == 800
    assert not any(key.startswith("train.checkpointer") for key in kept)


def test_a_config_of_detectron2_s_own_zoo_has_one_that_repeats():
    zoo = [model_zoo.get_config("common/models/mask_rcnn_fpn.py") for _ in range(2)]
    for cfg in zoo:
        cfg.train = {"init_checkpoint": ""}
        # An object without a name of its own, of which only its address differs between two processes.
        cfg.train._set_flag("allow_objects", True)
        cfg.train.object = object()
    assert fingerprint(zoo[0]) == fingerprint(zoo[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    digest = record.start(folder, config("train.seed=5"), provenance=SOURCE)
    return folder, digest


def test_a_record_holds_what_it_takes_to_repeat_the_run(run):
    folder, digest = run
    content = json.loads((folder / "run.json").read_text())
    assert content["seed"] == content["recipe"]["train.seed"] == 5
    assert content["fingerprint"] == digest == fingerprint(config("train.seed=5"), SOURCE)
    assert content["weights"] == SOURCE
    assert content["command_line"] and content["starts"][0]["iteration"] == 0
    versions = content["environment"]["versions"]
    assert (
        versions["torch"] == torch.__version__ and versions["python"] == platform.python_version()
    )
    assert content["environment"]["packages"]["rich"] == version("rich")


def test_no_secret_of_the_environment_is_recorded(run, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "swordfish")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = environment.environment()
    assert "swordfish" not in json.dumps(found)
    assert found["variables"]["OMP_NUM_THREADS"] == "3"


def test_a_resumed_run_is_added_and_a_changed_config_is_told_once(run, tmp_path, caplog):
    (tmp_path / "run.json").write_text((run[0] / "run.json").read_text())
    record.start(tmp_path, config("train.seed=5"), provenance=SOURCE, iteration=40, resumed=True)
    assert not caplog.records
    words = (
        "train.seed=5",
        "train.log_period=3",
        "optimizer.lr=0.5",
        "model.roi_heads.num_classes=7",
    )
    record.start(tmp_path, config(*words), provenance=SOURCE, iteration=60, resumed=True)
    (warning,) = caplog.records
    assert (
        "model.roi_heads.num_classes is 7, was 80; optimizer.lr is 0.5, was 0.02."
        in warning.message
    )
    assert "log_period" not in warning.message
    starts = record.read(tmp_path)["starts"]
    assert [start["iteration"] for start in starts] == [0, 40, 60]
    assert len({start["fingerprint"] for start in starts[:2]}) == 1
    assert ["optimizer.lr", 0.02, 0.5] in starts[2]["changed"]


def test_a_lost_record_does_not_stop_a_resume(tmp_path, caplog):
    record.start(tmp_path, config(), iteration=40, resumed=True)
    assert "not known" in caplog.records[0].message
    assert record.read(tmp_path)["starts"][0]["iteration"] == 40


def test_differences_are_named_with_both_values(run, tmp_path):
    other = config("optimizer.lr=0.5", "train.output_dir=elsewhere", "train.seed=6")
    del other.lr_multiplier.warmup_method
    record.start(tmp_path, other, provenance=SOURCE)
    assert record.differences(run[0], tmp_path) == [
        ("lr_multiplier.warmup_method", "linear", ABSENT),
        ("optimizer.lr", 0.02, 0.5),
        ("train.seed", 5, 6),
    ]
    assert record.differences(run[0], run[0]) == []


def test_versions_are_compared_apart(run, tmp_path):
    content = record.read(run[0])
    content["environment"]["versions"]["torch"] = "2.10.0"
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert record.differences(run[0], tmp_path) == []
    assert record.environment_differences(run[0], tmp_path) == [
        ("versions.torch", torch.__version__, "2.10.0")
    ]


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"recipe": 1}', "[" * 100_000])
def test_a_folder_without_a_record_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match="give the folder of a run"):
        record.read(tmp_path)


def git(folder, *words):
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_state_of_the_code_is_kept(tmp_path, monkeypatch):
    checkout, out = tmp_path / "checkout", tmp_path / "run"
    for folder in (checkout, out):
        folder.mkdir()
    git(checkout, "init", "--quiet")
    (checkout / "model.py").write_text("a = 1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "first")
    monkeypatch.chdir(checkout)
    clean = environment.git_states(out)["working_folder"]
    assert clean["commit"] == git(checkout, "rev-parse", "HEAD") and not clean["dirty"]
    (checkout / "model.py").write_text("a = 2\n")
    (checkout / "new.py").write_text("")
    dirty = environment.git_states(out)["working_folder"]
    assert dirty["dirty"] and dirty["untracked"] == ["new.py"]
    # The patch makes the commit what was run.
    git(checkout, "checkout", "--quiet", "model.py")
    git(checkout, "apply", str(out / dirty["diff"]))
    assert (checkout / "model.py").read_text() == "a = 2\n"


def test_no_checkout_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_states(tmp_path) == {}
    assert os.listdir(tmp_path) == []
