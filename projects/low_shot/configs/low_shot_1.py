"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs) on 1 % of COCO, fold 0 of five.

    python tools/train_net.py --config-file projects/low_shot/configs/low_shot_1.py --num-gpus 8

The recipe is configs/moco_1x.py's, its schedule included: README.md in the folder above has the sources.
tools/evaluate_backbone.py runs all folds of all shares.
"""

from ....configs.moco_1x import dataloader, lr_multiplier, model, optimizer, train
from ..lists import register

register()

dataloader.train.dataset.names = "coco_low_shot_1_fold0_train"
train.output_dir = "./output/low_shot_1"

# What counts is the end. A checkpoint is there to go on with alone, and of twenty runs takes room.
train.eval_period = 0
train.best_metric = None
train.checkpointer.max_to_keep = 1
