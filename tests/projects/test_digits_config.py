"""The digits config is the MoCo recipe where the recipe is the point."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from PIL import Image

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config():
    return LazyConfig.load(str(CHECKOUT / "projects/digits/configs/moco_digits.py"))


@pytest.fixture(scope="module")
def recipe():
    return LazyConfig.load(str(CHECKOUT / "configs/moco_1x.py"))


def test_backbone_and_input_are_the_recipes(config, recipe):
    assert config.model.backbone.bottom_up == recipe.model.backbone.bottom_up
    for key in ("input_format", "pixel_mean", "pixel_std"):
        assert config.model[key] == recipe.model[key]
    assert config.dataloader.train.mapper.image_format == "RGB"
    assert config.dataloader.test.mapper.image_format == "RGB"


def test_scenes_are_read_in_rgb_and_never_mirrored(config, digits):
    config.dataloader.train.total_batch_size = 1
    loader = iter(instantiate(config.dataloader.train))
    for _ in range(8):
        (sample,) = next(loader)
        scene = Image.open(sample["file_name"]).resize((96, 96), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), np.asarray(scene))


def test_the_optimizer_takes_every_trainable_parameter(config):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GroupNorm(1, 2))
    config.optimizer.params.model = model
    optimizer = instantiate(config.optimizer)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-4}
    taken = sum(len(group["params"]) for group in optimizer.param_groups)
    assert taken == len(list(model.parameters()))
