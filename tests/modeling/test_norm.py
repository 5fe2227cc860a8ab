import pytest
from omegaconf import OmegaConf

from ssl_backbones import get_config
from ssl_backbones.modeling.norm import apply_norm, choose_norm


@pytest.mark.parametrize(
    ("world_size", "device", "name"),
    [(1, "cpu", "BN"), (1, "cuda", "BN"), (2, "cpu", "naiveSyncBN"), (8, "cuda", "SyncBN")],
)
def test_the_rule(world_size, device, name):
    choice = choose_norm(world_size, device)
    assert choice.name == name
    assert choice.reason


def test_only_sync_bn_is_replaced():
    cfg = get_config("moco_1x").model
    cfg.backbone.norm = "GN"
    asked = apply_norm(cfg, choose_norm(1, "cpu"))
    assert asked == ["backbone.bottom_up.stem.norm", "backbone.bottom_up.stages.norm"]
    assert cfg.backbone.bottom_up.stem.norm == cfg.backbone.bottom_up.stages.norm == "BN"
    assert cfg.backbone.norm == "GN"


def test_lists_and_absent_values_are_walked():
    cfg = OmegaConf.create({"a": [{"norm": "SyncBN"}, {"norm": None}], "b": "${a}", "c": ""})
    assert apply_norm(cfg, choose_norm(2, "cpu")) == ["a.0.norm"]
    assert cfg.a[0].norm == "naiveSyncBN"
