"""MoCo's C4 heads, against Detectron2's own with the norm put after res5 by hand."""

import pytest
import torch
from commands import project_config
from detectron2.config import instantiate
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from moco_c4 import build, moco_config

from ssl_backbones.modeling.extra_norm import Res5ROIHeadsExtraNorm

CONFIG = "projects/coco_c4/configs/moco_c4_1x.py"


@pytest.fixture(scope="module")
def expected():
    """MoCo's Mask R-CNN with plain BN, and running statistics that are not those of a start."""
    torch.manual_seed(0)
    cfg = moco_config("coco")
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    model = build(cfg)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "norm.bias")):
            tensor.normal_(std=0.1)
    return cfg, model


def of_lazy_config(cfg):
    lazy = project_config(CONFIG).model
    lazy.roi_heads.batch_size_per_image = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    for node in (lazy.backbone.stem, lazy.backbone.stages, lazy.roi_heads.res5, lazy.roi_heads):
        assert node.norm == "naiveSyncBN"
        node.norm = "BN"
    return instantiate(lazy)


def of_yaml_config(cfg):
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeadsExtraNorm"
    return build_model(cfg)


@pytest.fixture(scope="module", params=[of_lazy_config, of_yaml_config])
def model(request, expected):
    cfg, stock = expected
    model = request.param(cfg)
    assert type(model.roi_heads) is Res5ROIHeadsExtraNorm
    model.load_state_dict(stock.state_dict(), strict=True)
    return model


@pytest.fixture(scope="module")
def images():
    """Two images of unlike sizes with two objects each."""
    torch.manual_seed(1)
    found = []
    for height, width in ((64, 96), (80, 64)):
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor([[4.0, 6.0, 40.0, 50.0], [20.0, 10.0, 60.0, 60.0]]))
        instances.gt_classes = torch.tensor([3, 70])
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[0, 6:50, 4:40] = masks[1, 10:60, 20:60] = True
        instances.gt_masks = BitMasks(masks)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        found.append({"image": image, "instances": instances, "height": height, "width": width})
    return found


def losses(model, images):
    model.train()
    torch.manual_seed(2)
    with EventStorage():
        found = model(images)
    sum(found.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found, gradients


def test_training_computes_what_mocos_class_computes(expected, model, images):
    stock, stock_gradients = losses(expected[1], images)
    ours, gradients = losses(model, images)
    assert set(ours) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    for name, value in stock.items():
        assert torch.equal(ours[name], value), name
    for name, gradient in stock_gradients.items():
        assert torch.equal(gradients[name], gradient), name
    # It is at work: the loss depends on it.
    assert gradients["roi_heads.res5.norm.weight"].abs().sum() > 0


def test_inference_computes_what_mocos_class_computes(expected, model, images):
    outputs = []
    for each in (expected[1], model):
        each.eval()
        each.roi_heads.box_predictor.test_score_thresh = 0.0
        each.roi_heads.box_predictor.test_topk_per_image = 5
        with torch.no_grad():
            outputs.append([found["instances"].get_fields() for found in each(images)])
    for stock, ours in zip(*outputs, strict=True):
        assert len(ours["scores"]) == 5
        for name in ("scores", "pred_classes", "pred_masks"):
            assert torch.equal(ours[name], stock[name]), name
        assert torch.equal(ours["pred_boxes"].tensor, stock["pred_boxes"].tensor)


def test_the_norm_stands_after_the_blocks_and_is_new():
    """A toy res5: what the norm gives is the norm of what Detectron2's heads give."""
    torch.manual_seed(0)
    lazy = project_config(CONFIG).model.roi_heads
    lazy.norm = lazy.res5.norm = "BN"
    lazy.res5.in_channels, lazy.res5.bottleneck_channels, lazy.res5.out_channels = 8, 4, 16
    heads = instantiate(lazy).train()
    assert [name for name, _ in heads.res5.named_children()] == ["0", "1", "2", "norm"]
    x = torch.randn(6, 8, 14, 14)
    features = heads.res5(x)
    assert features.shape == (6, 16, 7, 7)
    # After a ReLU no feature would be below 0; normalised, each channel has mean 0 and variance 1.
    torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        features.var((0, 2, 3), unbiased=False), torch.ones(16), atol=1e-2, rtol=0
    )
