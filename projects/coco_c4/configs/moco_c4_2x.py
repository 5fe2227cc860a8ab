"""Mask R-CNN R50-C4 from MoCo v2 (800 epochs), as MoCo's own code fine-tunes it on COCO, 2x.

    python tools/train_net.py --config-file projects/coco_c4/configs/moco_c4_2x.py --num-gpus 8

Source: detection/configs/coco_R_50_C4_2x_moco.yaml of https://github.com/facebookresearch/moco (7397dfe).
"""

from .moco_c4_1x import dataloader, lr_multiplier, model, optimizer, train

# 2 x 90,000 iterations: the steps at 2/3 and 8/9 become 120,000 and 160,000.
train.max_iter = 180_000
lr_multiplier.scheduler.milestones = [120_000, 160_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter
train.output_dir = "./output/moco_c4_2x"
