"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs), single scale, 1x.

Published: 38.0 box AP, 34.3 mask AP (MMDetection mask-rcnn_r50-mocov2-pre_fpn_1x_coco, COCO val2017).

    tools/train_net.py --config-file configs/moco_1x.py --num-gpus 8
"""

from .common.data import dataloader
from .common.model import model
from .common.schedule import lr_multiplier, optimizer
from .common.train import train

train.init_checkpoint = "ssl://moco_v2_800ep"
train.output_dir = "./output/moco_1x"
