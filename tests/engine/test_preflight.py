"""Each thing that preflight refuses, from a config that it accepts."""

import pickle

import numpy as np
import pytest
import torch
from commands import project_config
from detectron2.config import LazyCall, LazyConfig, instantiate
from omegaconf import OmegaConf

from ssl_backbones import InputError
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine import preflight
from ssl_backbones.engine.card import run_card
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.launching.world import World
from ssl_backbones.engine.provenance import check_provenance, check_weights
from ssl_backbones.engine.schedule import scale_to_batch
from ssl_backbones.engine.settling import Setting
from ssl_backbones.modeling.norm import choose_norm
from ssl_backbones.modeling.resnet import build_resnet

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
    assert preflight.check(cfg, ONE_PROCESS)[0] == provenance()
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
            "dataset 'nowhere' is not registered.*--data PATH",
        ),
        (
            ["dataloader.train.dataset.names=coco_2014_train", "model.roi_heads.num_classes=80"],
            "annotations are not at .*instances_train2014.json; put it there, or set "
            "DETECTRON2_DATASETS to the folder that holds coco/",
        ),
        (
            ["model.roi_heads.num_classes=80"],
            "has 10 classes .* and model.roi_heads.num_classes=80",
        ),
        (["dataloader.test.dataset.names=[]"], r"dataloader\.test\.dataset\.names is empty"),
        (["dataloader.test.dataset.names=null"], r"dataloader\.test\.dataset\.names is empty"),
        (["dataloader.train.dataset.names=[]"], r"dataloader\.train\.dataset\.names is empty"),
        (
            ["dataloader.test=null"],
            "has no dataloader.test, without .*a training ends with an eval",
        ),
        (["dataloader.train=null"], "has no dataloader.train"),
        (["dataloader.evaluator=null"], "has no dataloader.evaluator"),
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


def test_all_that_disagrees_is_named_with_overrides_that_mend_it(load, weights):
    """As of an OpenMMLab file of style='caffe': order, mean, deviation and stride, in one line."""
    caffe = {"format": "BGR", "pixel_mean": [103.53, 116.28, 123.675], "pixel_std": [1.0] * 3}
    given = f"train.init_checkpoint={weights(**caffe, stride_in_1x1=True)}"
    with pytest.raises(InputError) as caught:
        preflight.check(load(given), ONE_PROCESS)
    message = str(caught.value)
    assert message.count("disagrees") == 4 and "\n" not in message
    overrides = message.split("; use ")[1].removesuffix(" or other weights").split(" ")
    assert len(overrides) == 6  # the readers of images have an order each
    preflight.check(load(given, *overrides), ONE_PROCESS)


RESNEXT = {
    "name": "resnext50_32x4d",
    "depth": 50,
    "stem_channels": 64,
    "res2_channels": 256,
    "bottleneck_channels": 128,
    "groups": 32,
}
RESNET50 = RESNEXT | {"name": "resnet50", "bottleneck_channels": 64, "groups": 1}


def of(architecture):
    return provenance() | {"architecture": architecture}


def with_our_backbone(cfg, **arguments):
    stages = ["res2", "res3", "res4", "res5"]
    cfg.model.backbone.bottom_up = LazyCall(build_resnet)(out_features=stages, **arguments)
    return cfg


def test_weights_of_another_depth_are_refused(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}", "model.backbone.bottom_up.stages.depth=101")
    with pytest.raises(
        InputError, match=r"resnet50 with depth=50, the config builds one.*depth=101"
    ):
        preflight.check(cfg, ONE_PROCESS)


@pytest.mark.parametrize(
    ("held", "depth"),
    [
        (RESNEXT, 50),
        (RESNET50 | {"stem_channels": 128, "res2_channels": 512}, 50),
        (RESNET50, 18),
        (RESNET50 | {"depth": 18, "res2_channels": 64}, 50),
    ],
)
def test_detectron2s_default_stages_build_none_but_the_plain_ones(load, held, depth):
    cfg = load(f"model.backbone.bottom_up.stages.depth={depth}")
    with pytest.raises(InputError, match=r"architecture disagrees.*L\(build_resnet\)\(depth="):
        check_provenance(of(held), cfg)


def test_our_constructor_is_compared_field_by_field(load):
    cfg = with_our_backbone(load(), bottleneck_channels=128, groups=32)
    check_provenance(of(RESNEXT), cfg)
    message = r"holds a resnet50 with bottleneck_channels=64, groups=1, the config builds one with "
    with pytest.raises(InputError, match=f"{message}bottleneck_channels=128, groups=32"):
        check_provenance(of(RESNET50), cfg)


def test_weights_for_images_of_other_channels_are_refused_with_their_number(load):
    held = of(RESNET50 | {"in_channels": 12})
    message = (
        "pretrained on images of 12 channels, the config's model reads images of 3; give weights"
    )
    for cfg in (load(), with_our_backbone(load())):
        with pytest.raises(InputError, match=message):
            check_provenance(held, cfg)
    cfg = with_our_backbone(load(), in_channels=12)
    check_provenance(held, cfg)
    with pytest.raises(InputError, match=r"images of 3 channels, the config's .* images of 12"):
        check_provenance(of(RESNET50), cfg)


def test_a_config_that_was_read_from_yaml_is_compared_too(load, tmp_path):
    """It has names where a LazyConfig has functions."""
    path = tmp_path / "config.yaml"
    for make in (lambda cfg: cfg, lambda cfg: with_our_backbone(cfg, groups=1)):
        LazyConfig.save(make(load()), str(path))
        cfg = LazyConfig.load(str(path))
        check_provenance(of(RESNET50), cfg)
        with pytest.raises(InputError, match="architecture disagrees"):
            check_provenance(of(RESNEXT), cfg)


def test_the_stride_is_compared_in_both_forms(load):
    cfg = with_our_backbone(load(), stride_in_1x1=True)
    with pytest.raises(InputError, match=r"bottom_up\.stride_in_1x1=True; use"):
        check_provenance(of(RESNET50), cfg)


def test_a_stride_that_the_config_does_not_say_is_compared(load):
    """Both constructors put it into the 3x3 then."""
    weights = of(RESNET50)
    weights["input"]["stride_in_1x1"] = True
    with pytest.raises(InputError, match=r"has .*bottom_up\.stride_in_1x1=False; use"):
        check_provenance(weights, with_our_backbone(load()))
    cfg = load()
    del cfg.model.backbone.bottom_up.stages.stride_in_1x1
    with pytest.raises(InputError, match=r"has .*stages\.stride_in_1x1=False; use"):
        check_provenance(weights, cfg)


@pytest.fixture
def c4():
    return project_config("projects/coco_c4/configs/moco_c4_1x.py")


@pytest.mark.parametrize("part", ["backbone.stages", "roi_heads.res5"])
def test_the_stride_is_compared_in_both_halves_of_a_c4_model(c4, part):
    check_provenance(of(RESNET50), c4)
    OmegaConf.update(c4, f"model.{part}.stride_in_1x1", True)
    with pytest.raises(InputError, match=rf"model\.{part}\.stride_in_1x1=True; use"):
        check_provenance(of(RESNET50), c4)


def test_a_c4_models_resnet_is_compared(c4):
    with pytest.raises(InputError, match=r"architecture disagrees.*groups=1"):
        check_provenance(of(RESNEXT), c4)


def test_a_c4_model_from_scratch_has_nothing_frozen(c4):
    c4.train.init_checkpoint = ""
    assert check_weights(c4, eval_only=False) == {}
    c4.model.backbone.freeze_at = 2
    with pytest.raises(InputError, match=r"needs model\.backbone\.freeze_at=0"):
        check_weights(c4, eval_only=False)


def test_a_file_without_pickle_passes_with_its_provenance(load, tmp_path):
    """Written by the converter's own writer, whose provenance is JSON in the metadata."""
    tensors = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
    path = tmp_path / "weights.safetensors"
    write_backbone("detectron2-safetensors", path, tensors, provenance)
    cfg = load(f"train.init_checkpoint={path}")
    assert preflight.check(cfg, ONE_PROCESS)[0] == provenance()
    assert cfg.train.init_checkpoint == str(path)
    write_backbone("detectron2-safetensors", path, tensors, lambda: provenance(format="BGR"))
    with pytest.raises(InputError, match="channel order disagrees"):
        preflight.check(cfg, ONE_PROCESS)


def test_from_scratch_passes_with_nothing_frozen(load):
    cfg = load("train.init_checkpoint=", "model.backbone.bottom_up.freeze_at=0")
    assert preflight.check(cfg, World())[0] == {}


def test_a_batch_that_does_not_divide_is_refused(load):
    with pytest.raises(InputError, match="total_batch_size=16 does not divide among 3 processes"):
        preflight.check(load(), World(processes=3))


def test_the_run_card_says_what_a_reader_asks(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}", "train.max_iter=900")
    model = instantiate(load_config("moco_1x").model)
    norm = choose_norm(1, "cpu")
    batch = scale_to_batch(cfg)
    setting = Setting(cfg, ONE_PROCESS, norm, provenance(), None, batch, "fingerprint")
    card = dict(run_card(setting, model, "w.pkl"))
    assert card["weights"] == "w.pkl"
    assert card["provenance"].startswith("moco.pth.tar (sha256 ?), moco")
    assert card["input"].startswith("RGB, mean [123.675, 116.28, 103.53]")
    assert card["norm"].startswith(
        "1 FrozenBatchNorm2d, 52 SyncBatchNorm; BN for SyncBN (one process"
    )
    assert card["stem"] == "9,536 parameters, frozen"
    assert card["res5"].endswith("trains")
    assert card["batch"] == "16 images a step, as the reference, by 1 process"
    assert card["learning rate"] == "0.02"
    # 60,000 and 80,000 of 90,000, in proportion.
    assert card["schedule"] == "900 iterations, steps at [600, 800], warm-up of 500"
    assert card["images"] == "digits_train, tested on digits_test"


def test_the_run_card_says_if_the_training_set_is_tested_on(load, weights):
    cfg = load(f"train.init_checkpoint={weights()}")
    cfg.dataloader.test.dataset.names = ["digits_test", "digits_train"]
    setting = Setting(
        cfg, ONE_PROCESS, choose_norm(1, "cpu"), {}, None, scale_to_batch(cfg), "fingerprint"
    )
    images = dict(run_card(setting, torch.nn.Linear(2, 2), "w.pkl"))["images"]
    assert images.endswith("; AP says how well digits_train was learnt")


def test_a_disk_too_small_for_one_checkpoint_is_refused(tmp_path):
    huge = torch.nn.Linear(10**8, 10**8, device="meta")  # 80 PB with momentum, on no memory at all
    with pytest.raises(InputError, match="MiB free and one checkpoint needs about"):
        preflight.check_disk(str(tmp_path), huge)
    preflight.check_disk(str(tmp_path), torch.nn.Linear(2, 2))
