"""Each thing that preflight refuses, from a config that it accepts."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.config import instantiate

from ssl_backbones import InputError
from ssl_backbones.engine import preflight
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.launch import World
from ssl_backbones.modeling.norm import choose_norm

ONE_PROCESS = World()


def provenance(**changes):
    return {
        "source": "moco.pth.tar",
        "method": "moco",
        "architecture": {"name": "resnet50", "depth": 50},
        "input": {
            "format": "RGB",
            "pixel_mean": [123.675, 116.28, 103.53],
            "pixel_std": [58.395, 57.12, 57.375],
            "stride_in_1x1": False,
            **changes,
        },
    }


@pytest.fixture
def weights(tmp_path):
    def write(**changes):
        path = tmp_path / "weights.pkl"
        model = {"stem.conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
        content = {"model": model, "__author__": "t", "provenance": provenance(**changes)}
        path.write_bytes(pickle.dumps(content))
        return str(path)

    return write


@pytest.fixture
def load(digits, tmp_path):
    """The MoCo recipe on the digits, with overrides."""

    def load(*overrides):
        return load_config(
            "moco_1x",
            [
                "train.device=cpu",
                f"train.output_dir={tmp_path / 'run'}",
                "dataloader.train.dataset.names=digits_train",
                "dataloader.test.dataset.names=digits_test",
                "model.roi_heads.num_classes=10",
                *overrides,
            ],
        )

    return load


def test_a_right_config_passes_and_yields_the_provenance(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}")
    assert preflight.check(cfg, ONE_PROCESS) == provenance()
    assert (cfg.train.init_checkpoint).endswith("weights.pkl")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.input_format=BGR"], "channel order disagrees: model.input_format=BGR"),
        (["dataloader.train.mapper.image_format=BGR"], "channel order disagrees"),
        (["dataloader.test.mapper.image_format=BGR"], "channel order disagrees"),
        (["model.pixel_mean=[103.53,116.28,123.675]"], "in the reverse of model.input_format=RGB"),
        (
            ["dataloader.train.dataset.names=nowhere"],
            "dataset 'nowhere' is not registered.*digits_train",
        ),
        (
            ["dataloader.train.dataset.names=coco_2017_train", "model.roi_heads.num_classes=80"],
            "annotations are not at .*instances_train2017.json.*DETECTRON2_DATASETS",
        ),
        (["model.roi_heads.num_classes=80"], "10 classes and model.roi_heads.num_classes=80"),
        (["train.max_iter=0"], "train.max_iter=0: must be at least 1"),
        (["optimizer.lr=-0.1"], "optimizer.lr=-0.1: must be above 0"),
        (["train.amp.enabled=true"], "train.amp.enabled=true needs a GPU"),
        (["train.init_checkpoint="], "would freeze random weights.*freeze_at=0"),
        (["train.init_checkpoint=/no/such/file.pkl"], "/no/such/file.pkl"),
        (["train.output_dir=/proc/run"], "cannot write to train.output_dir=/proc/run"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(load, weights, overrides, message):
    cfg = load(f"train.init_checkpoint={weights()}", *overrides)
    with pytest.raises(InputError, match=message) as error:
        preflight.check(cfg, ONE_PROCESS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "BGR"}, "channel order disagrees: moco.pth.tar was trained with BGR"),
        ({"pixel_mean": [0.0, 0.0, 0.0]}, "pixel mean disagrees"),
        ({"pixel_std": [1.0, 1.0, 1.0]}, "pixel standard deviation disagrees"),
        ({"stride_in_1x1": True}, "stride in the 1x1 convolution disagrees"),
    ],
)
def test_weights_trained_on_other_inputs_are_refused(load, weights, changes, message):
    with pytest.raises(InputError, match=message):
        preflight.check(load(f"train.init_checkpoint={weights(**changes)}"), ONE_PROCESS)


def test_weights_of_another_depth_are_refused(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}", "model.backbone.bottom_up.stages.depth=101")
    with pytest.raises(InputError, match=r"depth disagrees.*stages\.depth=101"):
        preflight.check(cfg, ONE_PROCESS)


def test_from_scratch_passes_with_nothing_frozen(load):
    assert (
        preflight.check(
            load("train.init_checkpoint=", "model.backbone.bottom_up.freeze_at=0"), World()
        )
        == {}
    )


@pytest.mark.parametrize(
    ("world", "message"),
    [
        (World("cuda"), "no usable GPU; add train.device=cpu"),
        (World(processes=3), "total_batch_size=16 does not divide among 3 processes"),
        (World(machines=2, machine_rank=2), "--machine-rank 2 of --num-machines 2"),
    ],
)
def test_a_wrong_world_is_refused(load, world, message, monkeypatch):
    if world.device == "cuda":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        preflight.check(load(), world)


def test_the_run_card_says_what_a_reader_asks(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}", "train.max_iter=900")
    model = instantiate(load_config("moco_1x").model)
    card = dict(
        preflight.run_card(cfg, ONE_PROCESS, model, choose_norm(1, "cpu"), provenance(), "w.pkl")
    )
    assert card["weights"] == "w.pkl"
    assert card["provenance"].startswith("moco.pth.tar (sha256 ?), moco")
    assert card["input"].startswith("RGB, mean [123.675, 116.28, 103.53]")
    assert card["norm"].startswith("BN for SyncBN (one process")
    assert card["stem"] == "9,536 parameters, frozen"
    assert card["res5"].endswith("trains")
    assert card["batch"] == "16 images an iteration, 1 process"
    # 60,000 and 80,000 of 90,000, in proportion.
    assert card["schedule"] == "900 iterations, steps at [600, 800], warm-up of 500"
    assert card["images"] == "digits_train, tested on digits_test"


def test_a_disk_too_small_for_one_checkpoint_is_refused(tmp_path):
    huge = torch.nn.Linear(10**8, 10**8, device="meta")  # 80 PB with momentum, on no memory at all
    with pytest.raises(InputError, match="MiB free and one checkpoint needs about"):
        preflight.check_disk(str(tmp_path), huge)
    preflight.check_disk(str(tmp_path), torch.nn.Linear(2, 2))
