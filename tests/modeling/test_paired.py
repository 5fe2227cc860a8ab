"""Parts that start alike whatever backbone stands before them."""

import pytest
import torch
from detectron2.config import LazyCall, instantiate

from ssl_backbones import get_config
from ssl_backbones.modeling.paired import build_paired
from ssl_backbones.modeling.resnet import build_resnet

LATERALS = {f"backbone.fpn_lateral{stage}.weight" for stage in (2, 3, 4, 5)}


def config(**widths):
    model = get_config("moco_1x").model
    model.backbone.bottom_up = LazyCall(build_resnet)(
        **widths, norm="BN", freeze_at=0, out_features=["res2", "res3", "res4", "res5"]
    )
    return model


def state(model) -> dict[str, torch.Tensor]:
    return model.state_dict()


@pytest.fixture(scope="module")
def resnet18():
    return state(build_paired(config(depth=18, res2_channels=64), seed=3))


def same(one, other):
    return one.shape == other.shape and torch.equal(one, other)


def test_behind_another_backbone_only_the_laterals_differ(resnet18):
    narrow = state(build_paired(config(depth=18, res2_channels=32), seed=3))
    others = {name for name in resnet18 if "bottom_up" not in name}
    assert {name for name in others if not same(resnet18[name], narrow[name])} == LATERALS
    # Detectron2's own way: everything behind the backbone differs, biases of 0 aside.
    torch.manual_seed(3)
    one = state(instantiate(config(depth=18, res2_channels=64)))
    torch.manual_seed(3)
    other = state(instantiate(config(depth=18, res2_channels=32)))
    weights = {name for name in others if name.endswith("weight")}
    assert not {name for name in weights if same(one[name], other[name])}


def test_the_seed_alone_decides(resnet18):
    torch.manual_seed(77)
    again = state(build_paired(config(depth=18, res2_channels=64), seed=3))
    assert all(torch.equal(resnet18[name], again[name]) for name in again)
    other = state(build_paired(config(depth=18, res2_channels=64), seed=4))
    drawn = {
        name for name in other if torch.is_floating_point(other[name]) and other[name].std() > 0
    }
    assert len(drawn) > 30 and not {
        name for name in drawn if torch.equal(resnet18[name], other[name])
    }


def test_weights_are_drawn_as_ever(resnet18):
    """No two parts and no two layers draw the same numbers, and their spread is that of Detectron2's own."""
    torch.manual_seed(0)
    stock = state(instantiate(config(depth=18, res2_channels=64)))
    starts = {}
    for name, tensor in resnet18.items():
        if name.endswith("weight") and tensor.ndim > 1:
            torch.testing.assert_close(tensor.std(), stock[name].std(), rtol=0.1, atol=0)
            starts.setdefault(
                (tensor.flatten()[:4] / tensor.std()).numpy().round(4).tobytes(), []
            ).append(name)
    assert max(map(len, starts.values())) == 1
