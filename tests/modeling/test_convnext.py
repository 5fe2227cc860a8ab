"""A ConvNeXt in a detector: what is loaded, frozen, trained and said where the two do not go together."""

import sys

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from ssl_backbones import get_config
from ssl_backbones.conversion.families.convnext import CONVNEXT, ConvNeXt
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.provenance import check_provenance
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.convnext import ChannelNorm, build_convnext
from ssl_backbones.modeling.freezing import parts

timm = pytest.importorskip("timm")

WIDTHS = {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]}
SMALL = ConvNeXt("small", (1, 1, 2, 1), (8, 16, 32, 64), grn=False, layer_scale=True)


def mask_rcnn(**options):
    """The MoCo recipe's model on a small ConvNeXt, as the line that the converter prints puts it there."""
    config = get_config("moco_1x")
    line = CONVNEXT.config_line(SMALL.to_dict())
    namespace = {"model": config.model, "L": LazyCall, "build_convnext": build_convnext}
    exec(line, namespace)
    config.model.backbone.bottom_up.update(options)
    return config


@pytest.fixture
def converted(tmp_path):
    random = np.random.default_rng(0)
    tensors = {n: random.normal(0, 0.2, s).astype(np.float32) for n, s in SMALL.shapes.items()}
    provenance = {"architecture": SMALL.to_dict(), "source": "small.pth", "input": {}}
    write_backbone("detectron2", tmp_path / "small.pkl", tensors, lambda: provenance, CONVNEXT)
    return tmp_path / "small.pkl", tensors


def test_every_tensor_is_loaded_and_only_the_detectors_own_are_new(converted):
    path, tensors = converted
    detector = instantiate(mask_rcnn().model)
    checkpointer = StrictCheckpointer(detector)
    checkpointer.load_backbone(str(path))
    state = detector.backbone.bottom_up.state_dict()
    for name, array in tensors.items():
        np.testing.assert_array_equal(state[f"convnext.{name}"].numpy(), array)
    new = [key for key in checkpointer.new_keys if key.startswith("backbone.bottom_up.")]
    assert new and all(".output_norms." in key for key in new)


def test_a_file_that_lacks_a_tensor_is_refused(converted, tmp_path):
    _, tensors = converted
    del tensors["stages.2.blocks.1.gamma"]
    write_backbone("detectron2", tmp_path / "lacks.pkl", tensors, dict, CONVNEXT)
    detector = instantiate(mask_rcnn().model)
    with pytest.raises(InputError, match=r"convnext\.stages\.2\.blocks\.1\.gamma \(missing\)"):
        StrictCheckpointer(detector).load_backbone(str(tmp_path / "lacks.pkl"))


@pytest.mark.parametrize("freeze_at", [0, 2, 5])
def test_what_trains_has_a_gradient_and_what_is_frozen_has_none(freeze_at):
    detector = instantiate(mask_rcnn(freeze_at=freeze_at).model).train()
    objects = Instances((64, 96))
    objects.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 50.0, 60.0]]))
    objects.gt_classes = torch.tensor([1])
    objects.gt_masks = PolygonMasks([[np.array([8.0, 8, 50, 8, 50, 60, 8, 60])]])
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    with EventStorage():
        losses = detector([{"image": image, "instances": objects, "height": 64, "width": 96}])
    sum(losses.values()).backward()
    bottom_up = detector.backbone.bottom_up
    frozen = [bottom_up.convnext["stem"], *bottom_up.convnext["stages"]][:freeze_at]
    held = {id(p) for part in frozen for p in part.parameters()}
    for name, parameter in bottom_up.named_parameters():
        assert parameter.requires_grad == (id(parameter) not in held), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_outputs_are_normed_over_channels_and_have_an_fpns_strides():
    network = build_convnext(**WIDTHS, out_features=["res3", "res5"])
    found = network(torch.randn(1, 3, 64, 96))
    assert {name: tuple(t.shape[1:]) for name, t in found.items()} == {
        "res3": (16, 8, 12),
        "res5": (64, 2, 3),
    }
    shapes = network.output_shape()
    assert [(shape.channels, shape.stride) for shape in shapes.values()] == [(16, 8), (64, 32)]
    # Of a new norm each place has mean 0 and variance 1.
    torch.testing.assert_close(found["res3"].mean(1), torch.zeros(1, 8, 12), atol=1e-5, rtol=0)
    values = torch.randn(2, 8, 3, 4)
    by_torch = torch.nn.functional.layer_norm(values.permute(0, 2, 3, 1), (8,), eps=1e-6)
    torch.testing.assert_close(ChannelNorm(8)(values), by_torch.permute(0, 3, 1, 2))


def test_weights_of_another_network_are_refused_with_the_line_to_write():
    provenance = {"architecture": SMALL.to_dict(), "source": "small.pth", "input": {}}
    check_provenance(provenance, mask_rcnn())
    resnet = get_config("moco_1x")
    with pytest.raises(
        InputError, match=r"holds a small, the config builds a ResNet; write .*L\(build_convnext\)"
    ):
        check_provenance(provenance, resnet)
    other = mask_rcnn()
    other.model.backbone.bottom_up.depths = [1, 1, 1, 1]
    with pytest.raises(InputError, match=r"with depths=\[1, 1, 2, 1\], the config builds one with"):
        check_provenance(provenance, other)
    with pytest.raises(InputError, match="holds a resnet50, the config builds a ConvNeXt"):
        check_provenance({"architecture": {"name": "resnet50", "depth": 50}}, mask_rcnn())


def test_the_parts_of_a_model_are_named():
    detector = instantiate(mask_rcnn().model)
    names = [name for name, _ in parts(detector)]
    assert names[:6] == ["stem", "res2", "res3", "res4", "res5", "output norms"]
    assert "backbone (without the ConvNeXt)" in names


def test_without_timm_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.models.convnext", None)
    with pytest.raises(
        InputError, match=r"a ConvNeXt needs timm .*pip install 'ssl-backbones\[vit\]'"
    ):
        build_convnext(**WIDTHS)


def test_checkpointing_changes_no_loss_and_no_gradient(monkeypatch):
    """With stochastic depth, and with a stage that is frozen; and each block is really run twice."""
    found, calls = [], []
    forward = timm.models.convnext.ConvNeXtBlock.forward
    monkeypatch.setattr(
        timm.models.convnext.ConvNeXtBlock,
        "forward",
        lambda self, x: calls.append(self) or forward(self, x),
    )
    for checkpointing in (False, True):
        calls.clear()
        torch.manual_seed(0)
        network = build_convnext(
            **WIDTHS, drop_path=0.5, freeze_at=2, checkpointing=checkpointing
        ).train()
        maps = network(torch.rand(2, 3, 64, 96))
        loss = sum(values.square().mean() + values[:, 0].mean() for values in maps.values())
        loss.backward()
        found.append([loss, *(p.grad for p in network.parameters() if p.requires_grad)])
        # The stages have 5 blocks; that of the first, which is frozen, needs no second run.
        assert len(calls) == (9 if checkpointing else 5)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
