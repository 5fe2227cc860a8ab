"""The four recipes, as instantiated, against MMDetection's selfsup_pretrain and Detectron2's schedules.

Every expected number stands here by hand, with its source; none is read from the configs.
"""

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from detectron2.solver import LRMultiplier

from ssl_backbones import config_file, get_config
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.schedule import lr_multiplier

NAMES = ("moco_1x", "moco_ms2x", "swav_1x", "swav_ms2x")
RGB_MEAN, RGB_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def cfg(name):
    return get_config(name)


@pytest.fixture(scope="module")
def model(cfg):
    return instantiate(cfg.model)


def schedule(cfg, max_iter):
    """Learning rate at iteration i, from the scheduler that Detectron2's own hook would build."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optimizer.lr)
    scheduler = LRMultiplier(optimizer, lr_multiplier(cfg), max_iter)

    def rate(iteration):
        scheduler.last_epoch = iteration
        return scheduler.get_lr()[0]

    return rate


def test_weights_are_the_published_800_epoch_ones(cfg, name):
    expected = {"moco": "ssl://moco_v2_800ep", "swav": "ssl://swav_800ep"}
    assert cfg.train.init_checkpoint == expected[name.split("_")[0]]


def test_length_and_steps(cfg, name):
    # 1x: 90k iterations with steps at 60k and 80k; 2x: 180k with steps at 120k and 160k (Detectron2's
    # coco_schedule, MMDetection's epochs 8 and 11 of 12, 16 and 22 of 24).
    times = 2 if name.endswith("2x") else 1
    assert cfg.train.max_iter == 90_000 * times
    rate = schedule(cfg, cfg.train.max_iter)
    first, second = 60_000 * times, 80_000 * times
    assert rate(first - 1) == pytest.approx(0.02)
    assert rate(first) == pytest.approx(0.002)
    assert rate(second - 1) == pytest.approx(0.002)
    assert rate(second) == pytest.approx(0.0002)
    assert rate(cfg.train.max_iter - 1) == pytest.approx(0.0002)


@pytest.mark.parametrize("max_iter", [None, 5_000, 200])
def test_warmup_takes_500_iterations_from_a_thousandth(name, max_iter):
    cfg = get_config(name)
    cfg.train.max_iter = max_iter or cfg.train.max_iter
    rate = schedule(cfg, cfg.train.max_iter)
    # MMDetection: LinearLR from 0.001 over 500 iterations; half way is 0.02 * (0.001 + 0.999 / 2).
    assert rate(0) == pytest.approx(0.00002)
    assert rate(150) == pytest.approx(0.02 * (0.001 + 0.999 * 0.3))
    if cfg.train.max_iter > 500:
        assert rate(250) == pytest.approx(0.01001)
        assert rate(500) == pytest.approx(0.02)


def test_stock_detectron2_reads_the_same_schedule(cfg):
    """Without our trainer, `warmup_length` as written already means 500 iterations."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=cfg.optimizer.lr)
    stock = LRMultiplier(optimizer, instantiate(cfg.lr_multiplier), cfg.train.max_iter)
    ours = schedule(
        get_config("moco_1x") if cfg.train.max_iter == 90_000 else cfg, cfg.train.max_iter
    )
    for iteration in (0, 100, 499, 500, 70_000, 85_000):
        stock.last_epoch = iteration
        assert stock.get_lr()[0] == pytest.approx(ours(iteration), rel=1e-12)


def test_optimizer(cfg, model):
    settings = cfg.optimizer.copy()
    settings.params.model = model
    optimizer = instantiate(settings)
    assert isinstance(optimizer, torch.optim.SGD)
    trained = {p for p in model.parameters() if p.requires_grad}
    assert {p for group in optimizer.param_groups for p in group["params"]} == trained
    for group in optimizer.param_groups:
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 1e-4)
        assert not group["nesterov"]


def test_batch_of_16(cfg):
    assert cfg.dataloader.train.total_batch_size == 16


def test_backbone_norm_is_sync_bn_with_affine_and_running_statistics(cfg, model):
    resnet = model.backbone.bottom_up
    norms = [m for m in resnet.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 52  # 53 of a ResNet-50, less the frozen stem's
    for norm in norms:
        assert type(norm) is torch.nn.SyncBatchNorm
        assert norm.affine and norm.weight.requires_grad and norm.track_running_stats
        assert norm.momentum == 0.1 and norm.eps == 1e-5
    outside = [m for n, m in model.named_modules() if not n.startswith("backbone.bottom_up")]
    assert not any(isinstance(m, torch.nn.modules.batchnorm._NormBase) for m in outside)


def test_only_the_stem_is_frozen(model):
    # frozen_stages=0 in MMDetection: conv1 and its norm, in eval mode; all four stages train.
    resnet = model.backbone.bottom_up
    assert isinstance(resnet.stem.conv1.norm, FrozenBatchNorm2d)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.bottom_up.stem.conv1.weight"}


def test_moco_papers_freeze_at_0_is_one_override():
    cfg = load_config("moco_1x", ["model.backbone.bottom_up.freeze_at=0"])
    assert all(p.requires_grad for p in instantiate(cfg.model).parameters())


def test_strides_stand_in_the_3x3_convolutions(model):
    for stage in ("res3", "res4", "res5"):
        block = getattr(model.backbone.bottom_up, stage)[0]
        assert block.conv1.stride == (1, 1) and block.conv2.stride == (2, 2)


def test_input_is_rgb_with_imagenet_statistics_everywhere(cfg, model):
    assert model.input_format == "RGB"
    assert model.pixel_mean.flatten().tolist() == pytest.approx(RGB_MEAN)
    assert model.pixel_std.flatten().tolist() == pytest.approx(RGB_STD)
    for split in ("train", "test"):
        assert instantiate(cfg.dataloader[split].mapper).image_format == "RGB"


def test_train_scales(cfg, name):
    mapper = instantiate(cfg.dataloader.train.mapper)
    resize, flip = mapper.augmentations.augs
    image = np.zeros((480, 640, 3), np.uint8)
    heights = {resize.get_transform(image).new_h for _ in range(3000)}
    if name.endswith("1x"):
        assert heights == {800}
    else:
        # MMDetection's RandomResize between (1333, 640) and (1333, 800): every whole number between.
        assert heights == set(range(640, 801))
    wide = resize.get_transform(np.zeros((300, 1000, 3), np.uint8))
    assert wide.new_w == 1333
    assert flip.horizontal and not flip.vertical and flip.prob == 0.5
    assert mapper.use_instance_mask


def test_test_scale(cfg):
    (resize,) = instantiate(cfg.dataloader.test.mapper).augmentations.augs
    transform = resize.get_transform(np.zeros((480, 640, 3), np.uint8))
    assert (transform.new_h, transform.new_w) == (800, 1067)
    assert resize.get_transform(np.zeros((300, 1000, 3), np.uint8)).new_w == 1333


def test_data_are_coco_2017(cfg):
    assert cfg.dataloader.train.dataset.names == "coco_2017_train"
    assert cfg.dataloader.test.dataset.names == "coco_2017_val"


def test_heads_are_the_stock_mask_rcnn_ones(model):
    # MMDetection configs/_base_/models/mask-rcnn_r50_fpn.py, side by side.
    rpn, roi = model.proposal_generator, model.roi_heads
    assert rpn.anchor_generator.num_anchors == [3] * 5
    widths = [float(c[1, 2] - c[1, 0]) for c in rpn.anchor_generator.cell_anchors]
    assert widths == [32, 64, 128, 256, 512]
    assert rpn.anchor_matcher.thresholds[1:-1] == [0.3, 0.7]
    assert (rpn.batch_size_per_image, rpn.positive_fraction) == (256, 0.5)
    assert (rpn.pre_nms_topk[True], rpn.pre_nms_topk[False]) == (2000, 1000)
    assert (rpn.post_nms_topk[True], rpn.post_nms_topk[False]) == (1000, 1000)
    assert rpn.nms_thresh == 0.7 and rpn.min_box_size == 0
    assert (rpn.smooth_l1_beta, roi.box_predictor.smooth_l1_beta) == (0.0, 0.0)  # L1
    assert (roi.batch_size_per_image, roi.positive_fraction, roi.num_classes) == (512, 0.25, 80)
    assert roi.proposal_matcher.thresholds[1:-1] == [0.5] and roi.proposal_append_gt
    assert roi.box_predictor.box2box_transform.weights == (
        10,
        10,
        5,
        5,
    )  # target_stds 0.1, 0.1, 0.2, 0.2
    assert (roi.box_predictor.test_score_thresh, roi.box_predictor.test_nms_thresh) == (0.05, 0.5)
    assert roi.box_predictor.test_topk_per_image == 100
    assert roi.box_pooler.output_size == (7, 7) and roi.mask_pooler.output_size == (14, 14)
    for pooler in (roi.box_pooler, roi.mask_pooler):
        assert [p.sampling_ratio for p in pooler.level_poolers] == [0] * 4
        assert all(p.aligned for p in pooler.level_poolers)
    assert [fc.out_features for fc in (roi.box_head.fc1, roi.box_head.fc2)] == [1024, 1024]
    assert sum("mask_fcn" in n and "weight" in n for n, _ in roi.mask_head.named_parameters()) == 4


@pytest.mark.parametrize("key", ["model", "dataloader", "optimizer", "lr_multiplier", "train"])
def test_each_part_loads_alone(name, key):
    """No interpolation across top-level keys: other projects import one part of a recipe."""
    part = LazyConfig.load(str(config_file(name)), key)
    assert instantiate(part) is not None if key == "model" else part
