"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs) on 10 % of COCO, fold 0 of five.

python tools/train_net.py --config-file projects/low_shot/configs/low_shot_10.py --num-gpus 8
"""

from .low_shot_1 import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "coco_low_shot_10_fold0_train"
train.output_dir = "./output/low_shot_10"
