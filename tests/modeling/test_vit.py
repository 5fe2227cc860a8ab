"""A ViT in a detector: what is loaded, frozen, trained and said where the two do not go together."""

import inspect
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from ssl_backbones import get_config
from ssl_backbones.conversion.families import VIT
from ssl_backbones.conversion.families.vit import ViT
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.provenance import check_provenance
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.convnext import ChannelNorm, build_convnext
from ssl_backbones.modeling.freezing import parts
from ssl_backbones.modeling.vit import SimpleFeaturePyramid, build_vit

pytest.importorskip("timm")

POSITIONS = ViT(embed_dim=32, depth=2, num_heads=2, mlp_dim=64, grid=3)
ROTARY = replace(POSITIONS, grid=0, num_registers=4, layer_scale=True, swiglu=True, num_heads=1)
KINDS = {"positions": POSITIONS, "rotary": ROTARY}


def mask_rcnn(network=POSITIONS, **options):
    """The MoCo recipe's model on a small ViT, by the two overrides that the converter prints."""
    config = LazyConfig.apply_overrides(get_config("moco_1x"), VIT.overrides(network.to_dict()))
    config.model.backbone.bottom_up.update(options)
    return config


def losses_of(detector: nn.Module) -> torch.Tensor:
    objects = Instances((64, 96))
    objects.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 50.0, 60.0]]))
    objects.gt_classes = torch.tensor([1])
    objects.gt_masks = PolygonMasks([[np.array([8.0, 8, 50, 8, 50, 60, 8, 60])]])
    image = torch.arange(3 * 64 * 96, dtype=torch.float32).reshape(3, 64, 96) % 255
    torch.manual_seed(0)
    with EventStorage():
        losses = detector([{"image": image, "instances": objects, "height": 64, "width": 96}])
    return sum(losses.values())


@pytest.fixture(params=KINDS)
def converted(request, tmp_path):
    network = KINDS[request.param]
    random = np.random.default_rng(0)
    tensors = {n: random.normal(0, 0.2, s).astype(np.float32) for n, s in network.shapes.items()}
    provenance = {"architecture": network.to_dict(), "source": "small.pth", "input": {}}
    write_backbone("detectron2", tmp_path / "small.pkl", tensors, lambda: provenance, VIT)
    return tmp_path / "small.pkl", network, tensors


def test_every_tensor_is_loaded_and_only_the_detectors_own_are_new(converted):
    path, network, tensors = converted
    detector = instantiate(mask_rcnn(network).model)
    checkpointer = StrictCheckpointer(detector)
    checkpointer.load_backbone(str(path))
    state = detector.backbone.bottom_up.state_dict()
    assert set(state) == {f"vit.{name}" for name in tensors}
    for name, array in tensors.items():
        np.testing.assert_array_equal(state[f"vit.{name}"].numpy(), array)
    assert not [key for key in checkpointer.new_keys if ".bottom_up." in key]
    assert [key for key in checkpointer.new_keys if key.startswith("backbone.levels.p2.")]


def test_a_file_that_lacks_a_tensor_is_refused(converted, tmp_path):
    _, network, tensors = converted
    del tensors["blocks.1.attn.qkv.bias"]
    write_backbone("detectron2", tmp_path / "lacks.pkl", tensors, dict, VIT)
    detector = instantiate(mask_rcnn(network).model)
    with pytest.raises(InputError, match=r"vit\.blocks\.1\.attn\.qkv\.bias \(missing\)"):
        StrictCheckpointer(detector).load_backbone(str(tmp_path / "lacks.pkl"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, ()), (2, (0, 1)), (4, (0, 1, 2, 3))])
def test_what_trains_has_a_gradient_and_what_is_frozen_has_none(kind, freeze_at, frozen):
    detector = instantiate(mask_rcnn(KINDS[kind], freeze_at=freeze_at).model).train()
    losses_of(detector).backward()
    for name, parameter in detector.backbone.bottom_up.named_parameters():
        part = name.split(".")[1]
        layer = {"blocks": 1, "norm": 3}.get(part, 0)
        layer += int(name.split(".")[2]) if part == "blocks" else 0
        assert parameter.requires_grad == (layer not in frozen), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert all(p.grad is not None for p in detector.backbone.levels.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_changes_no_gradient(kind):
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = {"checkpointing": checkpointing, "drop_path": 0.3}
        detector = instantiate(mask_rcnn(KINDS[kind], **options).model).train()
        losses_of(detector).backward()
        found.append([p.grad for p in detector.backbone.bottom_up.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_stochastic_depth_grows_with_the_blocks():
    network = build_vit(embed_dim=32, depth=3, num_heads=1, mlp_dim=32, drop_path=0.4)
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in network.vit.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.parametrize("patch", [8, 16])
def test_the_pyramid_is_that_of_vitdet(patch):
    """Its layers by hand, of the levels' own weights: deconvolved twice, once, as it is, and pooled."""
    torch.manual_seed(0)
    network = build_vit(embed_dim=32, depth=1, num_heads=1, mlp_dim=32, patch_size=patch)
    pyramid = SimpleFeaturePyramid(network, out_channels=8).eval()
    images = torch.randn(1, 3, 64, 96)
    found, values = pyramid(images), network(images)["last"]
    strides = {name: shape.stride for name, shape in pyramid.output_shape().items()}
    assert strides == {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    for name, stride in strides.items():
        assert found[name].shape == (1, 8, -(-64 // stride), -(-96 // stride)), name
    pooled = nn.functional.max_pool2d(values, 32 // patch)
    _, one, norm, three, last = pyramid.levels["p5"]
    by_hand = last(three(norm(one(pooled))))
    torch.testing.assert_close(found["p5"], by_hand)
    kinds = [type(layer) for layer in pyramid.levels["p2"]]
    deeper = [nn.ConvTranspose2d, ChannelNorm, nn.GELU] if patch == 16 else []
    tail = [nn.Conv2d, ChannelNorm, nn.Conv2d, ChannelNorm]
    assert kinds == [*deeper, nn.ConvTranspose2d, *tail]
    assert pyramid.size_divisibility == 32


def test_patches_of_no_stride_are_refused_with_the_argument_to_write():
    network = build_vit(embed_dim=32, depth=1, num_heads=1, mlp_dim=32, patch_size=14)
    with pytest.raises(InputError, match="patches of 14: write resample_patch=16"):
        SimpleFeaturePyramid(network)


def test_weights_of_another_network_are_refused_with_the_line_to_write():
    provenance = {"architecture": POSITIONS.to_dict(), "source": "small.pth", "input": {}}
    check_provenance(provenance, mask_rcnn())
    with pytest.raises(
        InputError,
        match=r"holds a vit_32x2_patch16, the config builds a ResNet; write .*L\(build_vit\)",
    ):
        check_provenance(provenance, get_config("moco_1x"))
    for field, value in (("num_heads", 4), ("norm_eps", 1e-5), ("interpolate_antialias", True)):
        other = mask_rcnn()
        other.model.backbone.bottom_up[field] = value
        with pytest.raises(InputError, match=f"the config builds one with {field}={value}"):
            check_provenance(provenance, other)


def test_layers_are_counted_as_vitdets_decay_counts_them():
    """As detectron2's main has it, modeling/backbone/utils.py: blocks from 1, what comes after last."""
    network = build_vit(embed_dim=32, depth=2, num_heads=1, mlp_dim=32, num_registers=4)
    found = {name: network.layer_id(name) for name, _ in network.named_parameters()}
    assert network.num_layers == 4
    for name, layer in (
        *(("vit.pos_embed", 0), ("vit.cls_token", 0), ("vit.reg_token", 0)),
        *(("vit.patch_embed.proj.weight", 0), ("vit.blocks.0.norm1.weight", 1)),
        *(("vit.blocks.1.mlp.fc2.bias", 2), ("vit.norm.weight", 3)),
    ):
        assert found[name] == layer


def test_the_parts_of_a_model_are_named():
    names = [name for name, _ in parts(instantiate(mask_rcnn().model))]
    assert names[:4] == ["embeddings", "block1", "block2", "norm"]
    assert "backbone (without the ViT)" in names


def test_without_timm_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    with pytest.raises(InputError, match=r"a ViT needs timm .*pip install 'ssl-backbones\[vit\]'"):
        build_vit()


def test_what_a_config_leaves_out_is_what_its_constructor_has():
    defaults = {n: p.default for n, p in inspect.signature(build_vit).parameters.items()}
    usual = ViT()
    assert {name: getattr(usual, name) for name in VIT.arguments}.items() <= defaults.items()


@pytest.mark.parametrize(
    "words",
    [
        {"num_heads": 5},
        {"num_heads": 0},
        {"depth": 0},
        {"mlp_dim": 0},
        {"drop_path": 2},
        {"freeze_at": -3},
        {"resample_patch": -1},
        {"out_features": ["block99"]},
        {"interpolate_offset": 0.1, "interpolate_antialias": True},
    ],
)
def test_a_vit_that_cannot_be_is_refused_by_the_argument(words):
    with pytest.raises(InputError, match=f"nothing of this {next(iter(words))}"):
        build_vit(**{"embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_dim": 32} | words)


def test_a_pyramid_is_of_one_map():
    with pytest.raises(InputError, match="this backbone gives res2, res3, res4, res5"):
        SimpleFeaturePyramid(build_convnext(depths=[1, 1, 1, 1], dims=[8, 16, 32, 64]))
