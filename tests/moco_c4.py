"""MoCo's C4 detectors as its own code builds them: its yaml files' values over Detectron2's defaults.

Source: https://github.com/facebookresearch/moco, detection/configs, commit 7397dfe, typed from there.
"""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import build_model
from torch import nn

_BASE = """
MODEL.META_ARCHITECTURE GeneralizedRCNN
MODEL.RPN.PRE_NMS_TOPK_TEST 6000
MODEL.RPN.POST_NMS_TOPK_TEST 1000
MODEL.BACKBONE.FREEZE_AT 0
MODEL.RESNETS.NORM naiveSyncBN
TEST.PRECISE_BN.ENABLED True
SOLVER.IMS_PER_BATCH 16
SOLVER.BASE_LR 0.02
MODEL.PIXEL_MEAN [123.675,116.280,103.530]
MODEL.PIXEL_STD [58.395,57.120,57.375]
MODEL.RESNETS.STRIDE_IN_1X1 False
INPUT.FORMAT RGB
INPUT.MIN_SIZE_TEST 800
"""
"""Base-RCNN-C4-BN.yaml, and what both *_moco.yaml say; ROI_HEADS.NAME is in `build`."""

_COCO = """
MODEL.MASK_ON True
INPUT.MIN_SIZE_TRAIN (640,672,704,736,768,800)
DATASETS.TRAIN ('coco_2017_train',)
DATASETS.TEST ('coco_2017_val',)
SOLVER.STEPS (120000,160000)
SOLVER.MAX_ITER 180000
"""
"""coco_R_50_C4_2x.yaml."""

_VOC = """
MODEL.MASK_ON False
MODEL.ROI_HEADS.NUM_CLASSES 20
INPUT.MIN_SIZE_TRAIN (480,512,544,576,608,640,672,704,736,768,800)
DATASETS.TRAIN ('voc_2007_trainval','voc_2012_trainval')
DATASETS.TEST ('voc_2007_test',)
SOLVER.STEPS (18000,22000)
SOLVER.MAX_ITER 24000
SOLVER.WARMUP_ITERS 100
"""
"""pascal_voc_R_50_C4_24k.yaml."""


def moco_config(dataset: str) -> CfgNode:
    """Detectron2's config of MoCo's run on "coco" (2x) or "voc" (24k), on the CPU."""
    cfg = get_cfg()
    for line in (_BASE + {"coco": _COCO, "voc": _VOC}[dataset]).split("\n"):
        if line:
            cfg.merge_from_list(line.split(" "))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def build(cfg: CfgNode) -> nn.Module:
    """Detectron2's own C4 detector, and the norm that MoCo's `Res5ROIHeadsExtraNorm` puts after res5."""
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    model = build_model(cfg)
    res5 = model.roi_heads.res5
    res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, res5[-1].out_channels))
    return model
