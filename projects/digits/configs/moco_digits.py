"""The MoCo recipe on the embedded digits scenes: minutes on two CPU cores instead of hours on eight GPUs.

Expected: see projects/digits/README.md, which holds the figures and how they vary.

    python tools/train_net.py --config-file projects/digits/configs/moco_digits.py

What makes the recipe is untouched: RGB with ImageNet statistics, stride in the 3x3 convolutions, batch norm
with running statistics in the backbone, frozen stem, res2..res5 training, single scale.
"""

import torch
from detectron2.config import LazyCall as L
from fvcore.common.param_scheduler import CosineParamScheduler

import ssl_backbones.data  # registers digits_train and digits_test
from ssl_backbones.fast.pooling.roi_pooler import FastROIPooler

from ....configs.moco_1x import dataloader, lr_multiplier, model, optimizer, train

# The embedded dataset and its ten classes.
dataloader.train.dataset.names = "digits_train"
dataloader.test.dataset.names = "digits_test"
model.roi_heads.num_classes = 10

# Scenes are 96x96: their own size in place of COCO's 800.
for _split in (dataloader.train, dataloader.test):
    _split.mapper.augmentations[0].short_edge_length = 96
    _split.mapper.augmentations[0].max_size = 96
# No horizontal flip: a mirrored digit is no digit.
del dataloader.train.mapper.augmentations[1]

# Four scenes hold about a dozen digits, enough for a step that takes a second.
dataloader.train.total_batch_size = 4
train.reference_batch_size = 4
# Both cores are busy with the network, and a scene is decoded in a millisecond.
dataloader.train.num_workers = 0
dataloader.test.num_workers = 0

# A scene holds at most four digits: fewer proposals, regions and detections lose nothing
# and save most of the time.
model.proposal_generator.batch_size_per_image = 64
model.proposal_generator.pre_nms_topk = (200, 200)
model.proposal_generator.post_nms_topk = (60, 60)
model.roi_heads.batch_size_per_image = 32
model.roi_heads.box_predictor.test_topk_per_image = 20

# FPN and heads start from random weights and have hundreds of steps, not 90,000: normalised, and with a step
# size of its own for each weight, they learn in that time; with SGD and no norm the masks learn nothing.
model.backbone.norm = "GN"
model.roi_heads.box_head.conv_dims = [256]
model.roi_heads.box_head.conv_norm = "GN"
model.roi_heads.mask_head.conv_norm = "GN"
optimizer._target_ = torch.optim.AdamW
del optimizer.momentum
optimizer.lr = 3e-4
optimizer.weight_decay = 0.01
# One pass over all weights in place of ten: a tenth of a step's time.
optimizer.fused = True

# The same regions pooled on the CPU in a tenth of the time.
model.roi_heads.box_pooler._target_ = FastROIPooler
model.roi_heads.mask_pooler._target_ = FastROIPooler

# No plateau to wait for: warm up a little, then fall to nothing along a cosine.
lr_multiplier.scheduler = L(CosineParamScheduler)(start_value=1.0, end_value=0.01)
train.max_iter = 700
train.warmup_iters = 20

train.init_checkpoint = "./output/quickstart/moco_v2_digits.pkl"
train.output_dir = "./output/quickstart/moco_digits"
train.device = "cpu"
train.seed = 0
# One evaluation before the first step, to compare with, and one after the last.
train.eval_at_start = True
train.eval_period = 0
train.checkpointer.period = train.max_iter
train.log_period = 10
