"""Layer-wise decay beside the published code's numbers, and what the optimizer is given."""

from dataclasses import dataclass

import pytest
import torch
from commands import project_config
from detectron2.config import LazyCall, instantiate
from detectron2.solver.build import get_default_optimizer_params
from torch import nn

from ssl_backbones import get_config
from ssl_backbones.errors import InputError
from ssl_backbones.modeling import layer_decay
from ssl_backbones.modeling.convnext import STAGES, build_convnext
from ssl_backbones.modeling.layer_decay import layer_decayed_params

pytest.importorskip("timm")

# By hand from get_num_layer_layer_wise(name, 6) of ConvNeXt's object_detection/mmcv_custom/
# layer_decay_optimizer_constructor.py (commit 048efce), whose names are on the right.
LAYERS = {
    "convnext.stem.0.weight": 0,  # downsample_layers.0.0.weight
    "convnext.stem.1.bias": 0,  # downsample_layers.0.1.bias
    "convnext.stages.0.blocks.2.gamma": 1,  # stages.0.2.gamma
    "convnext.stages.1.downsample.1.weight": 2,  # downsample_layers.1.1.weight
    "convnext.stages.1.blocks.0.conv_dw.weight": 2,  # stages.1.0.dwconv.weight
    "convnext.stages.2.downsample.0.bias": 3,  # downsample_layers.2.0.bias
    "convnext.stages.2.blocks.2.mlp.fc1.weight": 3,  # stages.2.2.pwconv1.weight
    "convnext.stages.2.blocks.3.norm.weight": 4,  # stages.2.3.norm.weight
    "convnext.stages.2.blocks.8.mlp.fc2.bias": 5,  # stages.2.8.pwconv2.bias
    "convnext.stages.3.downsample.1.bias": 6,  # downsample_layers.3.1.bias
    "convnext.stages.3.blocks.0.gamma": 6,  # stages.3.0.gamma
    "output_norms.res2.weight": 7,  # norm0.weight: like neck and heads
}
SCALES = {
    0: 0.6983372960937497,  # 0.95 ** (8 - 0 - 1)
    1: 0.7350918906249998,
    2: 0.7737809374999999,
    3: 0.8145062499999999,
    4: 0.8573749999999999,
    5: 0.9025,
    6: 0.95,
    7: 1.0,
}


def recipe(**options):
    """The model of a recipe on a ConvNeXt that is as deep as the T, and narrow."""
    config = get_config("moco_1x").model
    config.backbone.bottom_up = LazyCall(build_convnext)(
        dims=[8, 8, 8, 8], out_features=list(STAGES), **options
    )
    return config


@pytest.fixture(scope="module")
def detector():
    return instantiate(recipe(freeze_at=2))


def rates(model, groups):
    names = {p: n.removeprefix("backbone.bottom_up.") for n, p in model.named_parameters()}
    return {names[p]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_layers_and_scales_are_the_published_ones():
    model = instantiate(recipe())
    backbone = model.backbone.bottom_up
    assert backbone.num_layers == 6 + 2
    found = rates(model, layer_decayed_params(model, base_lr=2.0, weight_decay=0.05, decay=0.95))
    for name, layer in LAYERS.items():
        assert backbone.layer_id(name) == layer, name
        assert found[name][0] == pytest.approx(2.0 * SCALES[layer], rel=1e-12), name
    for name in ("roi_heads.box_head.fc1.weight", "backbone.fpn_lateral2.bias"):
        assert found[name][0] == 2.0
    assert sorted({lr for lr, _ in found.values()}) == pytest.approx(
        [2 * s for s in SCALES.values()]
    )


def test_a_convnext_s_has_twelve_layers():
    # num_layers=12 in cascade_mask_rcnn_convnext_small_*.py; stages.2.26 is in 3 + 26 // 3.
    with torch.device("meta"):
        network = build_convnext(depths=[3, 3, 27, 3], dims=[8, 8, 8, 8])
    assert network.num_layers == 12 + 2
    assert network.layer_id("convnext.stages.2.blocks.26.gamma") == 11
    assert network.layer_id("convnext.stages.3.downsample.0.weight") == 12


def test_what_trains_is_there_once_and_the_frozen_not_at_all(detector):
    groups = layer_decayed_params(detector, base_lr=1.0, weight_decay=0.05, decay=0.95)
    given = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(given) == len(set(given))
    assert set(given) == {id(p) for p in detector.parameters() if p.requires_grad}
    assert not any(name.startswith("convnext.stem") for name in rates(detector, groups))
    # Six layers are left of eight, each with and without weight decay.
    assert len({(g["lr"], g["weight_decay"]) for g in groups}) == len(groups) == 2 * 6
    again = layer_decayed_params(
        instantiate(recipe(freeze_at=2)), base_lr=1.0, weight_decay=0.05, decay=0.95
    )
    shapes = [[[p.shape for p in g["params"]] for g in one] for one in (groups, again)]
    assert shapes[0] == shapes[1]


def test_weight_decay_leaves_out_biases_norms_and_scales(detector):
    groups = layer_decayed_params(detector, base_lr=1.0, weight_decay=0.05, decay=0.95)
    for name, (_, decay) in rates(detector, groups).items():
        is_weight = name.endswith(".weight") and "norm" not in name and ".downsample.0." not in name
        assert decay == (0.05 if is_weight else 0.0), name


@dataclass(eq=False)
class Transformer(nn.Module):
    """What another family of backbones has to have."""

    num_layers: int = 3
    no_weight_decay: tuple[str, ...] = ("pos_embed",)

    def __post_init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 2))
        self.block = nn.Linear(2, 2)
        self.table = nn.Parameter(torch.zeros(4, 2))

    def layer_id(self, name: str) -> int:
        return 0 if name == "pos_embed" else 1


def test_a_backbone_lists_what_has_no_weight_decay(monkeypatch):
    model = nn.ModuleDict({"net": Transformer(), "head": nn.Linear(2, 1)})
    monkeypatch.setattr(layer_decay, "find_backbone", lambda model: ("net", model["net"]))
    options = {"base_lr": 1.0, "weight_decay": 0.1, "decay": 0.5}
    assert rates(model, layer_decayed_params(model, **options, no_decay_names=["table"])) == {
        "net.pos_embed": (0.25, 0.0),
        "net.table": (0.5, 0.0),
        "net.block.weight": (0.5, 0.1),
        "net.block.bias": (0.5, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
    }


def test_a_backbone_without_layers_and_a_decay_that_is_none_are_refused(detector):
    with pytest.raises(InputError, match=r"ResNet has none to count: .*get_default_optimizer_para"):
        layer_decayed_params(
            instantiate(get_config("moco_1x").model), base_lr=1.0, weight_decay=0.0, decay=0.9
        )
    with pytest.raises(InputError, match=r"decay=1\.5: must be above 0 and at most 1"):
        layer_decayed_params(detector, base_lr=1.0, weight_decay=0.0, decay=1.5)


def test_what_decays_in_a_vit_and_how_fast_it_learns_are_vitdets():
    """Beside Detectron2's own function, which takes no norm of ViTDet's pyramid and heads for one."""
    with torch.device("meta"):
        model = instantiate(project_config("projects/vit/configs/vit_base_mae_100ep.py").model)
    groups = layer_decayed_params(
        model, base_lr=1.0, weight_decay=0.1, decay=0.7, decay_biases=True
    )
    found = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    stock = get_default_optimizer_params(
        model,
        weight_decay=0.1,
        weight_decay_norm=0.0,
        overrides={"pos_embed": {"weight_decay": 0.0}, "cls_token": {"weight_decay": 0.0}},
    )
    of_stock = {p: group["weight_decay"] for group in stock for p in group["params"]}
    names = dict(model.named_parameters())
    assert set(found) == set(of_stock) == set(names.values())
    for name, parameter in names.items():
        inside = name.startswith("backbone.bottom_up.")
        assert found[parameter][1] == (of_stock[parameter] if inside else 0.1), name
    for name, rate in (
        # get_vit_lr_decay_rate of detectron2's main, modeling/backbone/vit.py: 0.7 ** (13 - layer).
        ("backbone.bottom_up.vit.pos_embed", 0.009688901040700),
        ("backbone.bottom_up.vit.blocks.0.norm1.bias", 0.013841287201000),
        ("backbone.bottom_up.vit.blocks.11.attn.qkv.weight", 0.7),
        *(("backbone.levels.p2.0.weight", 1.0), ("roi_heads.box_head.fc1.bias", 1.0)),
    ):
        assert found[names[name]][0] == pytest.approx(rate, rel=1e-9), name
