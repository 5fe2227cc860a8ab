"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs), normalised as in the MoCo paper, 2x.

    python tools/train_net.py --config-file projects/moco_fpn/configs/moco_paper_2x.py --num-gpus 8

Source: He et al., arXiv:1911.05722, sections 4.2 and 4.2.2.
"""

from .moco_paper_1x import dataloader, lr_multiplier, model, optimizer, train

# 2 x 90,000 iterations: the steps at 2/3 and 8/9 become 120,000 and 160,000.
train.max_iter = 180_000
lr_multiplier.scheduler.milestones = [120_000, 160_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter
train.output_dir = "./output/moco_paper_2x"
