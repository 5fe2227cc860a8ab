"""Mask R-CNN R50-FPN from random weights, multi-scale, 2x: a control.

Published: none of exactly this recipe. Nearest: 32.8 box AP, 29.9 mask AP (PixPro's README, 1x, SyncBN).

    tools/train_net.py --config-file configs/scratch_ms2x.py --num-gpus 8
"""

from .moco_ms2x import dataloader, lr_multiplier, model, optimizer, train

train.init_checkpoint = ""
# A random stem has to learn.
model.backbone.bottom_up.freeze_at = 0
train.output_dir = "./output/scratch_ms2x"
