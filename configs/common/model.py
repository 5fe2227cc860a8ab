"""Mask R-CNN R50-FPN as Detectron2's model zoo has it, with a backbone that fits self-supervised weights.

Source: MMDetection configs/selfsup_pretrain (SyncBN with running statistics, frozen_stages=0, pytorch
style) on the stock heads.
"""

from detectron2 import model_zoo

from .data import input_convention

model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model

model.input_format = input_convention.format
model.pixel_mean = input_convention.pixel_mean
model.pixel_std = input_convention.pixel_std

# torchvision-style ResNets stride in the 3x3 convolution; Detectron2's default is MSRA's 1x1.
model.backbone.bottom_up.stages.stride_in_1x1 = False

# Statistics over all GPUs, trainable affine, running statistics updated. The trainer replaces it by rule
# where it cannot work (one process: BN; several CPU processes: naiveSyncBN) and says so in the log.
model.backbone.bottom_up.stem.norm = "SyncBN"
model.backbone.bottom_up.stages.norm = "SyncBN"

# frozen_stages=0 in MMDetection: the stem does not train, res2..res5 do. The MoCo paper trains everything:
# model.backbone.bottom_up.freeze_at=0
model.backbone.bottom_up.freeze_at = 1
