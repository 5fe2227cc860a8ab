"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs), multi-scale, 2x.

Published: 40.8 box AP, 36.8 mask AP (MMDetection mask-rcnn_r50-mocov2-pre_fpn_ms-2x_coco, COCO val2017).

    tools/train_net.py --config-file configs/moco_ms2x.py --num-gpus 8
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .moco_1x import dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/moco_ms2x"

# 2 x 90,000 iterations: the steps at 2/3 and 8/9 become 120,000 and 160,000.
train.max_iter = 180_000
lr_multiplier.scheduler.milestones = [120_000, 160_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = 500 / train.max_iter

# The short side is drawn uniformly from 640..800.
dataloader.train.mapper.augmentations[0] = L(T.ResizeShortestEdge)(
    short_edge_length=(640, 800), sample_style="range", max_size=1333
)
