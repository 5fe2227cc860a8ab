"""A run whose loss was not finite, and the same iteration again from the file it leaves."""

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.modeling.backbone.regnet import SimpleStem

from ssl_backbones import InputError
from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.exceptions import NonFiniteError
from ssl_backbones.engine.foreign_config import config_from_text
from ssl_backbones.engine.recipe import plain
from ssl_backbones.engine.replay import replay, save_replay
from ssl_backbones.engine.trainer import Trainer

TINY = str(Path(__file__).parents[1] / "tiny.py")


def args(path, *opts, config_file=""):
    return Namespace(replay=str(path), config_file=config_file, opts=list(opts))


@pytest.fixture(scope="module")
def failed(digits, tmp_path_factory):
    """Two iterations of two micro-batches, the second with a mask head that has been spoilt."""
    folder = tmp_path_factory.mktemp("run")
    cfg = load_config(TINY)
    torch.manual_seed(0)
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    loader = build_train_loader(cfg.dataloader.train, seed=7, accumulate=2)
    trainer = Trainer(model, loader, instantiate(cfg.optimizer), accumulate=2, seed=7)
    trainer.train(0, 1)
    with torch.no_grad():
        model.roi_heads.mask_head.predictor.bias.fill_(math.nan)
    with pytest.raises(NonFiniteError) as caught:
        trainer.train(1, 2)
    return save_replay(str(folder), trainer, caught.value, cfg), caught.value


@pytest.fixture
def changed(failed, tmp_path):
    def write(**fields):
        content = torch.load(failed[0], weights_only=True)
        torch.save({**content, **fields}, tmp_path / "changed.pth")
        return args(tmp_path / "changed.pth")

    return write


def table(printed):
    """The rows of a table by their columns' names; the images' other lines are left out."""
    lines = printed.splitlines()
    rule = next(n for n, line in enumerate(lines) if line.startswith("----"))
    spans, start = [], 0
    for dashes in lines[rule].split("  "):
        spans.append(slice(start, start + len(dashes)))
        start += len(dashes) + 2
    names = [lines[rule - 1][span].strip() for span in spans]
    rows = [[line[span].strip() for span in spans] for line in lines[rule + 1 :]]
    return [dict(zip(names, row, strict=True)) for row in rows if row[0].isdigit()]


def test_the_same_iteration_runs_again(failed, capsys):
    path, error = failed
    assert Path(path).name == "replay_0000001.pth"
    assert replay(args(path)) == 0
    printed = capsys.readouterr().out
    rows = table(printed)
    assert [(row["rank"], row["micro-batch"]) for row in rows] == [("0", "0"), ("0", "1")]
    (report,) = error.ranks
    # Same images, augmentations and proposals: the mean of the micro-batches is what the trainer had.
    finite = {name: value for name, value in report["losses"].items() if math.isfinite(value)}
    assert len(finite) == 4
    for name, value in finite.items():
        assert sum(float(row[name]) for row in rows) / 2 == pytest.approx(value, rel=1e-4)
    assert all(row["loss_mask"] == "nan" for row in rows)
    assert "rank 0, micro-batch 1: loss_mask, gradient of " in printed
    for name in report["files"]:
        assert Path(name).name in printed.replace("\n", "")


def test_slots_of_several_ranks_are_numbered_as_in_training(failed, changed, capsys):
    """Two ranks with a micro-batch each are the two micro-batches of one rank."""
    replay(args(failed[0]))
    one = table(capsys.readouterr().out)
    (report,) = failed[1].ranks
    replay(changed(ranks=[{**report, "samples": [samples]} for samples in report["samples"]]))
    two = table(capsys.readouterr().out)
    assert [row.pop("rank") for row in two] == ["0", "1"]
    assert [row.pop("micro-batch") for row in two] == ["0", "0"]
    losses = [{k: v for k, v in row.items() if k not in ("rank", "micro-batch")} for row in one]
    assert two == losses and one[0]["loss_cls"] != one[1]["loss_cls"]


def test_a_loss_that_is_finite_here_is_said(failed, capsys, tmp_path):
    path, _ = failed
    content = torch.load(path, weights_only=True)
    content["model"]["roi_heads.mask_head.predictor.bias"].zero_()
    torch.save(content, tmp_path / "mended.pth")
    assert replay(args(tmp_path / "mended.pth")) == 0
    printed = capsys.readouterr().out
    assert "All losses and gradients are finite here" in printed
    assert "loss_mask=" in printed and "on rank 0" in printed


def test_the_run_s_own_config_may_be_given(failed, capsys):
    path, _ = failed
    assert replay(args(path, "model.roi_heads.batch_size_per_image=4", config_file=TINY)) == 0
    assert "rank 0, micro-batch 1: loss_mask" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "other"}, "is not a replay file"),
        ({"iteration": "1"}, "is damaged: its fields"),
        ({"ranks": [{"losses": {}}]}, "is damaged: its fields"),
        ({"ranks": [{"losses": {"a": 1.0}, "samples": [[[0, "x"]]]}]}, "is damaged: its fields"),
        ({"config": "{"}, "is not JSON"),
        ({"config": "[" * 100_000}, "is not JSON"),
        ({"config": "{}"}, "lacks a part"),
    ],
)
def test_another_file_is_refused(changed, fields, message):
    with pytest.raises(InputError, match=message):
        replay(changed(**fields))


def test_a_config_with_code_of_others_is_refused_unless_given(failed, changed):
    config = json.loads(torch.load(failed[0], weights_only=True)["config"])
    config["dataloader"]["train"]["mapper"]["_target_"] = "my.project.Mapper"
    with pytest.raises(InputError, match=r"makes my\.project\.Mapper, which .*--config-file"):
        replay(changed(config=json.dumps(config)))


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "builtins.exec",
        "torch.load",
        "antigravity",
        # What a module of Detectron2 imports is reached through it.
        "detectron2.layers.wrappers.torch.load",
        "detectron2.modeling.backbone.resnet.np.load",
        "detectron2.data.build.torchdata.DataLoader",
        "detectron2.data.build.load_proposals_into_dataset",
        "torch.nn.modules.module.warnings.warn",
        "detectron2.modeling",
        "detectron2.modeling.no.such.thing",
        ["os.system"],
        {"_target_": "os.system"},
        None,
    ],
)
def test_a_hostile_config_runs_nothing(target, tmp_path):
    marker = tmp_path / "marker"
    call = {"_target_": target, "command": f"touch {marker}", "f": str(marker)}
    for place in (call, [call], {"deep": [{"er": call}]}):
        text = json.dumps({"model": place, "dataloader": {}, "train": {}})
        with pytest.raises(InputError, match="which is not run from a file"):
            config_from_text(text, "file")
    assert not marker.exists()


def test_an_interpolation_is_refused():
    text = json.dumps({"model": {"a": "${oc.env:HOME}"}, "dataloader": {}, "train": {}})
    with pytest.raises(InputError, match="not resolved"):
        config_from_text(text, "file")


ZOO = "COCO-InstanceSegmentation/mask_rcnn_"


@pytest.mark.parametrize(
    "cfg",
    [
        load_config("moco_1x"),
        load_config(TINY),
        model_zoo.get_config(f"{ZOO}R_50_FPN_1x.py"),
        model_zoo.get_config(f"{ZOO}R_50_C4_1x.py"),
        model_zoo.get_config(f"{ZOO}regnetx_4gf_dds_fpn_1x.py"),
    ],
    ids=["moco_1x", "tiny", "zoo R50-FPN", "zoo R50-C4", "zoo RegNet"],
)
def test_honest_configs_pass_and_stay_what_they_are(cfg):
    parts = plain(cfg)
    content = {"model": parts["model"], "dataloader": {"train": parts["dataloader"]["train"]}}
    again = config_from_text(json.dumps({**content, "train": {}}), "file")
    assert plain(again.model) == parts["model"]
    assert plain(again.dataloader.train) == parts["dataloader"]["train"]


def test_a_class_in_a_config_is_that_class_again():
    cfg = model_zoo.get_config(f"{ZOO}regnetx_4gf_dds_fpn_1x.py")
    content = {"model": plain(cfg)["model"], "dataloader": {}, "train": {}}
    bottom_up = config_from_text(json.dumps(content), "file").model.backbone.bottom_up
    assert bottom_up.stem_class is SimpleStem
    assert instantiate(bottom_up).stem.conv.out_channels == 32
