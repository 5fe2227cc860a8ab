"""Mask R-CNN R50-FPN from SwAV (800 epochs), single scale, 1x.

Published: 39.1 box AP, 35.7 mask AP (MMDetection mask-rcnn_r50-swav-pre_fpn_1x_coco, COCO val2017).

    tools/train_net.py --config-file configs/swav_1x.py --num-gpus 8
"""

from .moco_1x import dataloader, lr_multiplier, model, optimizer, train

train.init_checkpoint = "ssl://swav_800ep"
train.output_dir = "./output/swav_1x"
