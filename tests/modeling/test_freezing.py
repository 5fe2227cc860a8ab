import pytest
from commands import project_config
from detectron2.config import instantiate

from ssl_backbones import get_config
from ssl_backbones.modeling.freezing import (
    count_parameters,
    find_backbone,
    find_res5,
    norms,
    parts,
)


@pytest.fixture(scope="module")
def model():
    return instantiate(get_config("moco_1x").model)


def test_every_parameter_is_counted_once(model):
    counted = [count_parameters(part) for _, part in parts(model)]
    frozen, trainable = (sum(column) for column in zip(*counted, strict=True))
    assert (frozen, trainable) == count_parameters(model)


def test_counts_of_the_recipe(model):
    counts = {name: count_parameters(part) for name, part in parts(model)}
    # By hand: conv1 7 * 7 * 3 * 64 and the affine of its norm, 2 * 64.
    assert counts["stem"] == (9408 + 128, 0)
    # torchvision's ResNet-50 has 25,557,032 parameters with a 2048 x 1000 classifier and its bias.
    backbone = sum(sum(counts[s]) for s in ("stem", "res2", "res3", "res4", "res5"))
    assert backbone == 25_557_032 - 2048 * 1000 - 1000
    assert all(
        counts[s][0] == 0
        for s in ("res2", "res3", "res4", "res5", "proposal_generator", "roi_heads")
    )


def test_the_resnet_is_found(model):
    name, resnet = find_backbone(model)
    assert name == "backbone.bottom_up"
    assert resnet is model.backbone.bottom_up
    assert find_backbone(model.roi_heads) is None


def test_res5_is_found_where_the_heads_hold_it(model):
    c4 = instantiate(project_config("projects/coco_c4/configs/moco_c4_1x.py").model)
    assert find_res5(c4) == ("roi_heads.res5", c4.roi_heads.res5)
    assert find_res5(c4.roi_heads) == ("res5", c4.roi_heads.res5)
    assert find_res5(model) is None


def test_norms_are_counted_by_kind(model):
    # A ResNet-50 has 53, of which the recipe freezes the stem's.
    assert norms(model) == "1 FrozenBatchNorm2d, 52 SyncBatchNorm"
    assert norms(model.roi_heads) == "none"
