"""Mask R-CNN R50-FPN from SwAV (800 epochs), multi-scale, 2x.

Published: 41.3 box AP, 37.3 mask AP (MMDetection mask-rcnn_r50-swav-pre_fpn_ms-2x_coco, COCO val2017).

    tools/train_net.py --config-file configs/swav_ms2x.py --num-gpus 8
"""

from .moco_ms2x import dataloader, lr_multiplier, model, optimizer, train

train.init_checkpoint = "ssl://swav_800ep"
train.output_dir = "./output/swav_ms2x"
