"""Mask R-CNN R50-FPN of Detectron2's model zoo with weights that nobody trained, and images with objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.structures import Boxes, Instances, PolygonMasks
from torch import nn


def config(
    *,
    norm: str = "FrozenBN",
    freeze_at: int = 2,
    is_fast: bool = False,
    small: bool = False,
    backbone: str = "resnet50",
) -> Any:
    """The zoo's lazy config of the model.

    Args:
        is_fast: with this project's pooler.
        backbone: or "convnext_tiny" or "vit_small" in its place, as this project's recipes put them there.
        small: a ResNet-18 with a few regions and narrow heads, for a test.
    """
    from ssl_backbones.fast.pooling.roi_pooler import FastROIPooler
    from ssl_backbones.modeling.convnext import STAGES, build_convnext
    from ssl_backbones.modeling.vit import SimpleFeaturePyramid, build_vit

    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.bottom_up.freeze_at = freeze_at
    model.backbone.bottom_up.stem.norm = model.backbone.bottom_up.stages.norm = norm
    if is_fast:
        model.roi_heads.box_pooler._target_ = FastROIPooler
        model.roi_heads.mask_pooler._target_ = FastROIPooler
    if small:
        _shrink(model)
    if backbone == "convnext_tiny":
        widths = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]} if small else {}
        model.backbone.bottom_up = L(build_convnext)(**widths, out_features=list(STAGES))
    elif backbone == "vit_small":
        widths = {"embed_dim": 32, "depth": 1, "num_heads": 1, "mlp_dim": 32} if small else {}
        model.backbone = L(SimpleFeaturePyramid)(bottom_up=L(build_vit)(**widths))
    return model


def _shrink(model: Any) -> None:
    stages = model.backbone.bottom_up.stages
    del stages.stride_in_1x1
    stages.depth = 18
    model.proposal_generator.pre_nms_topk = model.proposal_generator.post_nms_topk = (100, 50)
    model.roi_heads.batch_size_per_image = 16
    model.roi_heads.box_head.fc_dims = [32]
    model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=32)
    model.roi_heads.box_predictor.test_topk_per_image = 10
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    model.roi_heads.mask_head.conv_dims = [32, 32]


def build(model: Any, batch: list[dict]) -> nn.Module:
    """The model of a lazy config, its weights the same ones every time.

    Frozen norms get the statistics of `batch`: with those of a new model, activations grow to thousands in a
    ResNet of 50 layers. The predictors' weights are enlarged until scores and masks are as unlike as those of
    a trained model, so that there are instances to find.
    """
    torch.manual_seed(0)
    built = instantiate(model)
    hooks = [
        module.register_forward_pre_hook(_take_statistics)
        for module in built.modules()
        if isinstance(module, FrozenBatchNorm2d)
    ]
    with torch.no_grad():
        built.backbone(built.preprocess_image(batch).tensor)
        built.roi_heads.box_predictor.cls_score.weight.mul_(4)
        built.roi_heads.mask_head.predictor.weight.mul_(300)
    for hook in hooks:
        hook.remove()
    return built


def _take_statistics(norm: FrozenBatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def images(count: int, height: int, width: int, objects: int = 8) -> list[dict]:
    """A batch in Detectron2's format: noise, and rectangles as objects."""
    random = np.random.default_rng(0)
    batch = []
    for _ in range(count):
        coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, height // 16, width // 16)))
        image = nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        sides = np.minimum(np.exp(random.normal(4, 0.7, (objects, 2))), (width / 2, height / 2))
        corners = random.uniform(0, (width, height) - sides)
        boxes = np.concatenate([corners, corners + sides], axis=1)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(boxes).float())
        instances.gt_classes = torch.from_numpy(random.integers(80, size=objects))
        instances.gt_masks = PolygonMasks([[box[[0, 1, 2, 1, 2, 3, 0, 3]]] for box in boxes])
        batch.append(
            {
                "image": image.byte(),
                "height": height,
                "width": width,
                "instances": instances,
            }
        )
    return batch
