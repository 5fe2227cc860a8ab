"""The published fields in our terms: what a row's value follows from in MMDetection's or Detectron2's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode

from ssl_backbones.fidelity import Row

GPUS = 8  # auto_scale_lr.base_batch_size by batch_size
ITERATIONS_OF_AN_EPOCH = 7330  # 117,266 images with objects in batches of 16
STAGES = ("stem", "res2", "res3", "res4", "res5")


class Facts:
    """Facts of a config by their keys, which remember what was asked for.

    Attributes:
        values: key to (SOURCE:LINE, value).
        asked: the keys whose values were asked for.
        places: the SOURCE:LINE of those, and of the calls that were asked whether they lack something.
    """

    def __init__(self, values: dict[str, tuple[str, Any]]):
        self.values = values
        self.asked: set[str] = set()
        self.places: set[str] = set()

    def __call__(self, key: str) -> Any:
        place, value = self.values[key]
        self.asked.add(key)
        self.places.add(place)
        return value

    def lacks(self, key: str, beside: str) -> bool:
        """Whether there is no `key`, in the call that the fact `beside` is an argument of."""
        self.places.add(self.values[beside][0])
        return not any(f"{other}.".startswith(f"{key}.") for other in self.values)


def in_our_terms(row: Row, facts: Facts) -> Any:
    """The published value of a row from MMDetection.

    Raises:
        KeyError: nothing is known of the field, or a fact that it follows from is missing.
    """
    return _FIELDS[row.field](facts)


def _resize(facts: Facts, pipeline: str) -> dict[str, Any]:
    kind, sizes = facts(f"{pipeline}.type"), facts(f"{pipeline}.scale")
    result = {"_target_": "detectron2.data.transforms.augmentation_impl.ResizeShortestEdge"}
    if kind == "Resize":
        return {**result, "short_edge_length": sizes[1], "max_size": sizes[0]}
    if kind != "RandomResize" or sizes[0][0] != sizes[1][0]:
        return {}
    (long, low), (_, high) = sizes
    return {**result, "short_edge_length": [low, high], "sample_style": "range", "max_size": long}


def _norms(facts: Facts) -> dict[str, str]:
    trained = {"SyncBN": "SyncBatchNorm"}[facts(f"{_BACKBONE}.norm_cfg.type")]
    if facts(f"{_BACKBONE}.norm_eval"):
        trained = f"{trained} in evaluation mode"
    return {s: "FrozenBatchNorm2d" if s in _frozen(facts) else trained for s in STAGES}


def _frozen(facts: Facts) -> list[str]:
    return list(STAGES[: facts(f"{_BACKBONE}.frozen_stages") + 1])


def _decay_of_norms(facts: Facts) -> Any:
    is_common = facts.lacks("optim_wrapper.paramwise_cfg", f"{_SGD}.type")
    return facts(f"{_SGD}.weight_decay") if is_common else "apart"


def _rate(iteration: int) -> Callable[[Facts], float]:
    def rate(facts: Facts) -> float:
        # MMEngine's LinearLR (param_scheduler.py, 01857d8) has the whole rate in its last iteration.
        last = facts("param_scheduler.0.end") - facts("param_scheduler.0.begin") - 1
        first = facts("param_scheduler.0.start_factor")
        factor = first + (1 - first) * min(iteration / last, 1)
        return round(facts(f"{_SGD}.lr") * factor, 8)

    return rate


def _inverses(key: str) -> Callable[[Facts], list[float]]:
    return lambda facts: [1 / value for value in facts(key)]


def _without(value: Any, absent: str, beside: str) -> Callable[[Facts], Any]:
    """`value` where there is no fact `absent` in the call of the fact `beside`."""
    return lambda facts: value if facts.lacks(absent, beside) else "there is one"


def _same(*keys: str) -> Callable[[Facts], Any]:
    def same(facts: Facts) -> Any:
        values = [facts(key) for key in keys]
        return values[0] if values[1:] == values[:-1] else values

    return same


def _word(key: str, **ours: Any) -> Callable[[Facts], Any]:
    return lambda facts: ours.get(str(facts(key)), f"nothing like {facts(key)!r}")


_BACKBONE = "model.backbone"
_SGD = "optim_wrapper.optimizer"
_BOX = "model.roi_head.bbox_head"
_MASK = "model.roi_head.mask_head"
_RPN_CFG = "model.train_cfg.rpn"
_BOX_CFG = "model.train_cfg.rcnn"
_ANCHORS = "model.rpn_head.anchor_generator"
_RESIZE = "train_pipeline.2"
_FLIP = "train_pipeline.3"
_FILTER = "train_dataloader.dataset.filter_cfg"
_WEIGHTS = {
    "./mocov2_r50_800ep_pretrain.pth": "ssl://moco_v2_800ep",
    "./swav_800ep_pretrain.pth.tar": "ssl://swav_800ep",
    "torchvision://resnet50": "ssl://supervised_imagenet",
}

_FIELDS: dict[str, Callable[[Facts], Any]] = {
    "weights": lambda f: _WEIGHTS[f(f"{_BACKBONE}.init_cfg.checkpoint")],
    "norm of the backbone": _same(f"{_BACKBONE}.norm_cfg.type"),
    "norm layers as built": lambda f: _norms(f),
    "eps of the norm layers, as built": _same("build_norm_layer.eps"),
    # Detectron2's freeze_at counts the stem as 1.
    "frozen": lambda f: len(_frozen(f)),
    "frozen as built": _frozen,
    "depth": _same(f"{_BACKBONE}.depth"),
    "stride in the 1x1 convolution": _word(f"{_BACKBONE}.style", pytorch=False, caffe=True),
    "channel order": lambda f: "RGB" if f("model.data_preprocessor.bgr_to_rgb") else "BGR",
    "mean of the pixels": _same("model.data_preprocessor.mean"),
    "standard deviation of the pixels": _same("model.data_preprocessor.std"),
    "size in training": lambda f: _resize(f, _RESIZE),
    # MMDetection's direction is horizontal where none is given.
    "flip in training": lambda f: (
        f(f"{_FLIP}.type") == "RandomFlip" and f.lacks(f"{_FLIP}.direction", f"{_FLIP}.type")
    ),
    "probability of the flip": _same(f"{_FLIP}.prob"),
    "size in testing": lambda f: _resize(f, "test_pipeline.1"),
    "training images": lambda f: _dataset(f("train_dataloader.dataset.ann_file")),
    "images without an object are left out": _same(f"{_FILTER}.filter_empty_gt"),
    "test images": lambda f: _dataset(f("val_dataloader.dataset.ann_file")),
    "batch": lambda f: GPUS * f("train_dataloader.batch_size"),
    "images grouped by aspect ratio": _word(
        "train_dataloader.batch_sampler.type", AspectRatioBatchSampler=True
    ),
    "learning rate": _same(f"{_SGD}.lr"),
    "momentum": _same(f"{_SGD}.momentum"),
    "Nesterov's momentum": _without(False, f"{_SGD}.nesterov", f"{_SGD}.type"),
    "weight decay": _same(f"{_SGD}.weight_decay"),
    "weight decay of norm parameters": _decay_of_norms,
    "weight decay as built": _decay_of_norms,
    "warm-up, iterations": _same("param_scheduler.0.end"),
    "warm-up, first factor": _same("param_scheduler.0.start_factor"),
    "warm-up, shape": _word("param_scheduler.0.type", LinearLR="linear"),
    "learning rate in iteration 0, as built": _rate(0),
    "learning rate in iteration 250, as built": _rate(250),
    "learning rate in iteration 500, as built": _rate(500),
    "factors of the learning rate": lambda f: [
        round(f("param_scheduler.1.gamma") ** step, 10)
        for step in range(len(f("param_scheduler.1.milestones")) + 1)
    ],
    "iterations": lambda f: ITERATIONS_OF_AN_EPOCH * f("train_cfg.max_epochs"),
    "steps": lambda f: [ITERATIONS_OF_AN_EPOCH * n for n in f("param_scheduler.1.milestones")],
    "precise BN": _without(
        {"enabled": False, "num_iter": 200}, "custom_hooks", f"{_BACKBONE}.norm_cfg.type"
    ),
    "iterations between evaluations": lambda f: (
        ITERATIONS_OF_AN_EPOCH * f("train_cfg.val_interval")
    ),
    "channels of the FPN": _same("model.neck.out_channels"),
    "norm of the FPN": _without("", "model.neck.norm_cfg", "model.neck.type"),
    "levels of the FPN": _same(f"{_ANCHORS}.strides"),
    "sizes of the anchors": lambda f: [
        [scale * stride for scale in f(f"{_ANCHORS}.scales")] for stride in f(f"{_ANCHORS}.strides")
    ],
    "aspect ratios of the anchors": _same(f"{_ANCHORS}.ratios"),
    "RPN, IoU of negatives and positives": lambda f: [
        f(f"{_RPN_CFG}.assigner.neg_iou_thr"),
        f(f"{_RPN_CFG}.assigner.pos_iou_thr"),
    ],
    "RPN, an object claims its best anchor": _same(f"{_RPN_CFG}.assigner.match_low_quality"),
    "RPN, anchors of a loss": _same(f"{_RPN_CFG}.sampler.num"),
    "RPN, positives among them": _same(f"{_RPN_CFG}.sampler.pos_fraction"),
    "RPN, weights of the box deltas": _inverses("model.rpn_head.bbox_coder.target_stds"),
    "RPN, proposals of a level before NMS, in training and testing": lambda f: [
        f("model.train_cfg.rpn_proposal.nms_pre"),
        f("model.test_cfg.rpn.nms_pre"),
    ],
    "RPN, proposals after NMS, in training and testing": lambda f: [
        f("model.train_cfg.rpn_proposal.max_per_img"),
        f("model.test_cfg.rpn.max_per_img"),
    ],
    "RPN, IoU of NMS": _same(
        "model.train_cfg.rpn_proposal.nms.iou_threshold", "model.test_cfg.rpn.nms.iou_threshold"
    ),
    "RPN, smallest proposal": _same(
        "model.train_cfg.rpn_proposal.min_bbox_size", "model.test_cfg.rpn.min_bbox_size"
    ),
    "RPN, box loss is L1": _word("model.rpn_head.loss_bbox.type", L1Loss=0),
    "RPN, least overlap of the anchor that an object claims": lambda f: (
        f"min_pos_iou={f(f'{_RPN_CFG}.assigner.min_pos_iou')}"
    ),
    "RPN, what its losses are divided by": _without(
        "the anchors that were sampled",
        "model.rpn_head.loss_cls.reduction",
        "model.rpn_head.loss_cls.type",
    ),
    "classes": _same(f"{_BOX}.num_classes", f"{_MASK}.num_classes"),
    "box head, IoU of positives": lambda f: [
        _same(*(f"{_BOX_CFG}.assigner.{kind}_iou_thr" for kind in ("pos", "neg")))(f)
    ],
    "box head, an object claims its best proposal": _same(f"{_BOX_CFG}.assigner.match_low_quality"),
    "box head, proposals of a loss": _same(f"{_BOX_CFG}.sampler.num"),
    "box head, positives among them": _same(f"{_BOX_CFG}.sampler.pos_fraction"),
    "box head, objects are added to the proposals": _same(
        f"{_BOX_CFG}.sampler.add_gt_as_proposals"
    ),
    "box head, pooled size": _same("model.roi_head.bbox_roi_extractor.roi_layer.output_size"),
    "mask head, pooled size": _same("model.roi_head.mask_roi_extractor.roi_layer.output_size"),
    "sampling ratio of the pooling": _same(
        *(
            f"model.roi_head.{kind}_roi_extractor.roi_layer.sampling_ratio"
            for kind in ("bbox", "mask")
        )
    ),
    "strides of the pooled levels": _inverses("model.roi_head.bbox_roi_extractor.featmap_strides"),
    "box head, convolutions": _word(f"{_BOX}.type", Shared2FCBBoxHead=[]),
    "box head, fully connected layers": lambda f: (
        {"Shared2FCBBoxHead": 2}[f(f"{_BOX}.type")] * [f(f"{_BOX}.fc_out_channels")]
    ),
    "box head, weights of the box deltas": _inverses(f"{_BOX}.bbox_coder.target_stds"),
    "box head, box loss is L1": _word(f"{_BOX}.loss_bbox.type", L1Loss=0),
    "box head, boxes for each class": _same(f"{_BOX}.reg_class_agnostic"),
    "mask head, convolutions and the deconvolution": lambda f: (
        (f(f"{_MASK}.num_convs") + 1) * [f(f"{_MASK}.conv_out_channels")]
    ),
    "norm of the heads": _without("", f"{_BOX}.norm_cfg", f"{_BOX}.type"),
    "least score": _same("model.test_cfg.rcnn.score_thr"),
    "IoU of NMS": _same("model.test_cfg.rcnn.nms.iou_threshold"),
    "detections of an image": _same("model.test_cfg.rcnn.max_per_img"),
    "new layers start from": _without(
        "MMDetection's initialisation", "model.neck.init_cfg", "model.neck.type"
    ),
    "order of the images": lambda f: (
        "shuffled every epoch" if f("train_dataloader.sampler.shuffle") else "as listed"
    ),
    "images with a side under 32 pixels": lambda f: (
        f"left out (min_size={f(f'{_FILTER}.min_size')})"
    ),
}


def _dataset(file: str) -> str:
    split = file.removeprefix("annotations/instances_").removesuffix("2017.json")
    return f"coco_2017_{split}"


IN_DETECTRON2S_TERMS: dict[str, Callable[[Any, CfgNode], Any]] = {
    "weights": lambda name, _: {"See Instructions": "ssl://moco_v2_800ep"}.get(name),
    "mask head": lambda is_on, _: "one" if is_on else None,
    "frozen as built": lambda freeze_at, _: list(STAGES[:freeze_at]),
    "heads with a norm after res5": lambda name, _: f"ssl_backbones.modeling.extra_norm.{name}",
    "flip in training": lambda direction, _: direction == "horizontal",
    "sampler of the images": lambda name, _: {"TrainingSampler": None}.get(name, name),
    "factors of the learning rate": lambda gamma, _: [1, gamma, round(gamma**2, 10)],
    "box head, convolutions": lambda number, cfg: [cfg.MODEL.ROI_BOX_HEAD.CONV_DIM] * number,
    "box head, fully connected layers": lambda number, cfg: (
        [cfg.MODEL.ROI_BOX_HEAD.FC_DIM] * number
    ),
    "mixed precision": lambda is_on, _: {"enabled": is_on, "dtype": "fp16"},
    "clipping of gradients": lambda is_on, _: "some" if is_on else {"norm": None, "value": None},
    "test-time augmentation": lambda is_on, cfg: {
        "enabled": is_on,
        "min_sizes": cfg.TEST.AUG.MIN_SIZES,
        "max_size": cfg.TEST.AUG.MAX_SIZE,
        "flip": cfg.TEST.AUG.FLIP,
    },
    "scaling of the learning rate with the batch": lambda size, _: {0: None}.get(size, size),
}
"""By their fields, what rows must have for a value of Detectron2's yaml configs and the whole config."""
