"""Every key of a Detectron2 yaml config for a C4 detector: ours that holds it, or why none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from fidelity_checking import ABSENT

SHARED = {
    "MODEL.BACKBONE.FREEZE_AT": "model.backbone.freeze_at",
    "MODEL.PIXEL_MEAN": "model.pixel_mean",
    "MODEL.PIXEL_STD": "model.pixel_std",
    "MODEL.ANCHOR_GENERATOR.SIZES": "model.proposal_generator.anchor_generator.sizes",
    "MODEL.ANCHOR_GENERATOR.OFFSET": "model.proposal_generator.anchor_generator.offset",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": "model.proposal_generator.min_box_size",
    "MODEL.RPN.IN_FEATURES": "model.proposal_generator.in_features",
    "MODEL.RPN.IOU_THRESHOLDS": "model.proposal_generator.anchor_matcher.thresholds",
    "MODEL.RPN.IOU_LABELS": "model.proposal_generator.anchor_matcher.labels",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "model.proposal_generator.batch_size_per_image",
    "MODEL.RPN.POSITIVE_FRACTION": "model.proposal_generator.positive_fraction",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "model.proposal_generator.box_reg_loss_type",
    "MODEL.RPN.BBOX_REG_WEIGHTS": "model.proposal_generator.box2box_transform.weights",
    "MODEL.RPN.BOUNDARY_THRESH": "model.proposal_generator.anchor_boundary_thresh",
    "MODEL.RPN.SMOOTH_L1_BETA": "model.proposal_generator.smooth_l1_beta",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": "model.proposal_generator.pre_nms_topk.0",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "model.proposal_generator.pre_nms_topk.1",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "model.proposal_generator.post_nms_topk.0",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "model.proposal_generator.post_nms_topk.1",
    "MODEL.RPN.NMS_THRESH": "model.proposal_generator.nms_thresh",
    "MODEL.RPN.CONV_DIMS": "model.proposal_generator.head.conv_dims",
    "MODEL.ROI_HEADS.NUM_CLASSES": "model.roi_heads.num_classes",
    "MODEL.ROI_HEADS.IN_FEATURES": "model.roi_heads.in_features",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": "model.roi_heads.proposal_matcher.thresholds",
    "MODEL.ROI_HEADS.IOU_LABELS": "model.roi_heads.proposal_matcher.labels",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "model.roi_heads.batch_size_per_image",
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": "model.roi_heads.positive_fraction",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.roi_heads.box_predictor.test_score_thresh",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.roi_heads.box_predictor.test_nms_thresh",
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": "model.roi_heads.proposal_append_gt",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "model.roi_heads.box_predictor.box_reg_loss_type",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": "model.roi_heads.box_predictor.loss_weight",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": "model.roi_heads.box_predictor.box2box_transform.weights",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": "model.roi_heads.box_predictor.smooth_l1_beta",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": "model.roi_heads.pooler.output_size",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": "model.roi_heads.pooler.sampling_ratio",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "model.roi_heads.pooler.pooler_type",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": "model.roi_heads.box_predictor.cls_agnostic_bbox_reg",
    "MODEL.RESNETS.DEPTH": "model.backbone.stages.depth",
    "MODEL.RESNETS.OUT_FEATURES": "model.backbone.out_features",
    "MODEL.RESNETS.NORM": "model.backbone.stages.norm",
    "MODEL.RESNETS.STRIDE_IN_1X1": "model.backbone.stages.stride_in_1x1",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "model.backbone.stem.out_channels",
    "INPUT.MIN_SIZE_TRAIN": "dataloader.train.mapper.augmentations.0.short_edge_length",
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "dataloader.train.mapper.augmentations.0.sample_style",
    "INPUT.MAX_SIZE_TRAIN": "dataloader.train.mapper.augmentations.0.max_size",
    "INPUT.MIN_SIZE_TEST": "dataloader.test.mapper.augmentations.0.short_edge_length",
    "INPUT.MAX_SIZE_TEST": "dataloader.test.mapper.augmentations.0.max_size",
    "INPUT.FORMAT": "dataloader.train.mapper.image_format",
    "INPUT.MASK_FORMAT": "dataloader.train.mapper.instance_mask_format",
    "MODEL.MASK_ON": "dataloader.train.mapper.use_instance_mask",
    "MODEL.KEYPOINT_ON": "dataloader.train.mapper.use_keypoint",
    "DATASETS.TRAIN": "dataloader.train.dataset.names",
    "DATASETS.TEST": "dataloader.test.dataset.names",
    "DATALOADER.ASPECT_RATIO_GROUPING": "dataloader.train.aspect_ratio_grouping",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": "dataloader.train.dataset.filter_empty",
    "SOLVER.IMS_PER_BATCH": "dataloader.train.total_batch_size",
    "SOLVER.BASE_LR": "optimizer.lr",
    "SOLVER.MOMENTUM": "optimizer.momentum",
    "SOLVER.NESTEROV": "optimizer.nesterov",
    "SOLVER.WEIGHT_DECAY": "optimizer.weight_decay",
    "SOLVER.WEIGHT_DECAY_NORM": "optimizer.params.weight_decay_norm",
    "SOLVER.WEIGHT_DECAY_BIAS": "optimizer.params.weight_decay_bias",
    "SOLVER.BIAS_LR_FACTOR": "optimizer.params.bias_lr_factor",
    "SOLVER.MAX_ITER": "train.max_iter",
    "SOLVER.STEPS": "lr_multiplier.scheduler.milestones",
    "SOLVER.WARMUP_FACTOR": "lr_multiplier.warmup_factor",
    "SOLVER.WARMUP_ITERS": "train.warmup_iters",
    "SOLVER.WARMUP_METHOD": "lr_multiplier.warmup_method",
    "SOLVER.AMP.ENABLED": "train.amp.enabled",
    "SEED": "train.seed",
    "TEST.EVAL_PERIOD": "train.eval_period",
    "TEST.DETECTIONS_PER_IMAGE": "model.roi_heads.box_predictor.test_topk_per_image",
    "TEST.AUG.ENABLED": "train.tta.enabled",
    "TEST.PRECISE_BN.ENABLED": "train.precise_bn.enabled",
    "TEST.AUG.MIN_SIZES": "train.tta.min_sizes",
    "TEST.AUG.MAX_SIZE": "train.tta.max_size",
    "TEST.AUG.FLIP": "train.tta.flip",
    "TEST.PRECISE_BN.NUM_ITER": "train.precise_bn.num_iter",
}
"""Keys of Detectron2's and ours with the same value; a tuple's items are compared in turn."""

Expected = Callable[[Any, CfgNode], Any]


def named(ours: dict[Any, Any]) -> Expected:
    """What ours must be for each value of theirs; nothing of ours is like another one."""
    return lambda theirs, _: ours.get(theirs, f"nothing like {theirs!r}")


def of_masks(expected: Expected) -> Expected:
    """As `expected` where there are masks; without them ours has no mask head."""
    return lambda theirs, cfg: expected(theirs, cfg) if cfg.MODEL.MASK_ON else ABSENT


_RESNET = "detectron2.modeling.backbone.resnet"
_RPN = "detectron2.modeling.proposal_generator.rpn"
_MASK_HEAD = "detectron2.modeling.roi_heads.mask_head"

TRANSLATED: dict[str, tuple[str, Expected]] = {
    "MODEL.META_ARCHITECTURE": (
        "model._target_",
        named({"GeneralizedRCNN": "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN"}),
    ),
    "MODEL.WEIGHTS": ("weights", named({"See Instructions": "ssl://moco_v2_800ep"})),
    "MODEL.LOAD_PROPOSALS": ("dataloader.train.dataset.proposal_files", named({False: None})),
    "MODEL.BACKBONE.NAME": (
        "model.backbone._target_",
        named({"build_resnet_backbone": "detectron2.modeling.backbone.resnet.ResNet"}),
    ),
    # What a call does not say has its default: one group.
    "MODEL.RESNETS.NUM_GROUPS": ("model.backbone.stages.num_groups", named({1: ABSENT})),
    # Of res5, the fourth stage: 8 times res2's.
    "MODEL.RESNETS.WIDTH_PER_GROUP": (
        "model.roi_heads.res5.bottleneck_channels",
        lambda width, cfg: 8 * width * cfg.MODEL.RESNETS.NUM_GROUPS,
    ),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": (
        "model.roi_heads.res5.out_channels",
        lambda channels, _: 8 * channels,
    ),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": (
        "model.roi_heads.res5.block_class",
        lambda stages, _: "DeformBottleneckBlock" if any(stages) else f"{_RESNET}.BottleneckBlock",
    ),
    "MODEL.PROPOSAL_GENERATOR.NAME": (
        "model.proposal_generator._target_",
        named({"RPN": f"{_RPN}.RPN"}),
    ),
    "MODEL.RPN.HEAD_NAME": (
        "model.proposal_generator.head._target_",
        named({"StandardRPNHead": f"{_RPN}.StandardRPNHead"}),
    ),
    "MODEL.RPN.LOSS_WEIGHT": ("model.proposal_generator.loss_weight", lambda weight, _: weight),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": (
        "model.proposal_generator.loss_weight",
        lambda weight, cfg: weight * cfg.MODEL.RPN.LOSS_WEIGHT,
    ),
    "MODEL.ANCHOR_GENERATOR.NAME": (
        "model.proposal_generator.anchor_generator._target_",
        named(
            {
                "DefaultAnchorGenerator": "detectron2.modeling.anchor_generator.DefaultAnchorGenerator"
            }
        ),
    ),
    # One list for all levels, of which C4 has one.
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": (
        "model.proposal_generator.anchor_generator.aspect_ratios",
        lambda ratios, _: ratios[0] if len(ratios) == 1 else ratios,
    ),
    "MODEL.ROI_HEADS.NAME": (
        "model.roi_heads._target_",
        named({"Res5ROIHeadsExtraNorm": "ssl_backbones.modeling.extra_norm.Res5ROIHeadsExtraNorm"}),
    ),
    "MODEL.ROI_MASK_HEAD.NAME": (
        "model.roi_heads.mask_head._target_",
        of_masks(named({"MaskRCNNConvUpsampleHead": f"{_MASK_HEAD}.MaskRCNNConvUpsampleHead"})),
    ),
    # The last of conv_dims is the deconvolution's.
    "MODEL.ROI_MASK_HEAD.NUM_CONV": (
        "model.roi_heads.mask_head.conv_dims",
        of_masks(lambda number, cfg: [cfg.MODEL.ROI_MASK_HEAD.CONV_DIM] * (number + 1)),
    ),
    "MODEL.ROI_MASK_HEAD.CONV_DIM": (
        "model.roi_heads.mask_head.conv_dims",
        of_masks(lambda channels, cfg: [channels] * (cfg.MODEL.ROI_MASK_HEAD.NUM_CONV + 1)),
    ),
    "MODEL.ROI_MASK_HEAD.NORM": (
        "model.roi_heads.mask_head.conv_norm",
        of_masks(lambda norm, _: norm),
    ),
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": (
        "model.roi_heads.mask_head.num_classes",
        of_masks(lambda one, cfg: 1 if one else cfg.MODEL.ROI_HEADS.NUM_CLASSES),
    ),
    "INPUT.RANDOM_FLIP": (
        "dataloader.train.mapper.augmentations.1._target_",
        named({"horizontal": "detectron2.data.transforms.augmentation_impl.RandomFlip"}),
    ),
    # Besides resizing and the flip.
    "INPUT.CROP.ENABLED": ("dataloader.train.mapper.augmentations.2", named({False: ABSENT})),
    "DATALOADER.SAMPLER_TRAIN": ("dataloader.train.sampler", named({"TrainingSampler": None})),
    "SOLVER.LR_SCHEDULER_NAME": (
        "lr_multiplier.scheduler._target_",
        named({"WarmupMultiStepLR": "fvcore.common.param_scheduler.MultiStepParamScheduler"}),
    ),
    "SOLVER.GAMMA": (
        "lr_multiplier.scheduler.values",
        lambda gamma, cfg: [round(gamma**step, 10) for step in range(len(cfg.SOLVER.STEPS) + 1)],
    ),
    "SOLVER.REFERENCE_WORLD_SIZE": ("train.scale_lr", named({0: None})),
    "SOLVER.CLIP_GRADIENTS.ENABLED": ("train.clip", named({False: {"norm": None, "value": None}})),
}
"""Keys of Detectron2's that say it otherwise: our key, and the value that it must have."""

_REASONS = {
    "where or how fast a run is, not what it computes": """
        VERSION OUTPUT_DIR CUDNN_BENCHMARK VIS_PERIOD GLOBAL.HACK MODEL.DEVICE DATALOADER.NUM_WORKERS
        SOLVER.CHECKPOINT_PERIOD FLOAT32_PRECISION""",
    "of an FPN, which the backbone compared has not": """
        MODEL.FPN.IN_FEATURES MODEL.FPN.OUT_CHANNELS MODEL.FPN.NORM MODEL.FPN.FUSE_TYPE""",
    "of precomputed proposals, and MODEL.LOAD_PROPOSALS is compared": """
        DATASETS.PROPOSAL_FILES_TRAIN DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
        DATASETS.PROPOSAL_FILES_TEST DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST""",
    "of rotated anchors, and MODEL.ANCHOR_GENERATOR.NAME is compared": """
        MODEL.ANCHOR_GENERATOR.ANGLES""",
    "of a box head, and the heads compared have res5 for it": """
        MODEL.ROI_BOX_HEAD.NAME MODEL.ROI_BOX_HEAD.NUM_FC MODEL.ROI_BOX_HEAD.FC_DIM
        MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_BOX_HEAD.CONV_DIM MODEL.ROI_BOX_HEAD.NORM
        MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES""",
    "of cascade heads, and MODEL.ROI_HEADS.NAME is compared": """
        MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS MODEL.ROI_BOX_CASCADE_HEAD.IOUS""",
    "of a mask pooler, and the heads compared pool once for boxes and masks": """
        MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO
        MODEL.ROI_MASK_HEAD.POOLER_TYPE""",
    "of key points, and MODEL.KEYPOINT_ON is compared": """
        MODEL.ROI_KEYPOINT_HEAD.NAME MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION
        MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS
        MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS
        MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE
        TEST.KEYPOINT_OKS_SIGMAS""",
    "of another detector, and MODEL.META_ARCHITECTURE is compared": """
        MODEL.SEM_SEG_HEAD.NAME MODEL.SEM_SEG_HEAD.IN_FEATURES MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        MODEL.SEM_SEG_HEAD.NUM_CLASSES MODEL.SEM_SEG_HEAD.CONVS_DIM
        MODEL.SEM_SEG_HEAD.COMMON_STRIDE MODEL.SEM_SEG_HEAD.NORM MODEL.SEM_SEG_HEAD.LOSS_WEIGHT
        MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT MODEL.PANOPTIC_FPN.COMBINE.ENABLED
        MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT
        MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH
        MODEL.RETINANET.NUM_CLASSES MODEL.RETINANET.IN_FEATURES MODEL.RETINANET.NUM_CONVS
        MODEL.RETINANET.IOU_THRESHOLDS MODEL.RETINANET.IOU_LABELS MODEL.RETINANET.PRIOR_PROB
        MODEL.RETINANET.SCORE_THRESH_TEST MODEL.RETINANET.TOPK_CANDIDATES_TEST
        MODEL.RETINANET.NMS_THRESH_TEST MODEL.RETINANET.BBOX_REG_WEIGHTS
        MODEL.RETINANET.FOCAL_LOSS_GAMMA MODEL.RETINANET.FOCAL_LOSS_ALPHA
        MODEL.RETINANET.SMOOTH_L1_LOSS_BETA MODEL.RETINANET.BBOX_REG_LOSS_TYPE
        MODEL.RETINANET.NORM""",
    "of res5 in a backbone, and here it is in heads that do not read it": """
        MODEL.RESNETS.RES5_DILATION""",
    "of deformable convolutions, and MODEL.RESNETS.DEFORM_ON_PER_STAGE is compared": """
        MODEL.RESNETS.DEFORM_MODULATED MODEL.RESNETS.DEFORM_NUM_GROUPS""",
    "of cropping, and INPUT.CROP.ENABLED is compared": "INPUT.CROP.TYPE INPUT.CROP.SIZE",
    "of another sampler, and DATALOADER.SAMPLER_TRAIN is compared": """
        DATALOADER.REPEAT_THRESHOLD DATALOADER.REPEAT_SQRT""",
    "of clipping, and SOLVER.CLIP_GRADIENTS.ENABLED is compared": """
        SOLVER.CLIP_GRADIENTS.CLIP_TYPE SOLVER.CLIP_GRADIENTS.CLIP_VALUE
        SOLVER.CLIP_GRADIENTS.NORM_TYPE""",
    "of a test of Detectron2 itself": "TEST.EXPECTED_RESULTS",
    "younger than Detectron2 0.6, whose code it does not change where it is at its default": """
        MODEL.ROI_BOX_HEAD.USE_FED_LOSS MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE
        MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES
        SOLVER.BASE_LR_END SOLVER.NUM_DECAYS SOLVER.RESCALE_INTERVAL""",
}
NOT_COMPARED = {key: reason for reason, keys in _REASONS.items() for key in keys.split()}
"""Keys of Detectron2's with why no field of ours is compared with them."""
