"""Mask R-CNN ConvNeXt-T FPN from supervised ImageNet-1K weights, 3x.

Published: 46.2 box AP, 41.7 mask AP (ConvNeXt, object_detection/README.md, COCO val2017).

    python tools/train_net.py --config-file projects/convnext/configs/convnext_tiny_3x.py --num-gpus 8

Source: ConvNeXt (commit 048efce), object_detection/configs/convnext/
mask_rcnn_convnext_tiny_patch4_window7_mstrain_480-800_adamw_3x_coco_in1k.py.
README.md in the folder above says what Detectron2 has otherwise.
"""

from detectron2.config import LazyCall as L

from ssl_backbones.modeling.convnext import STAGES, build_convnext

from ....configs.moco_1x import dataloader, lr_multiplier, model, train
from ..common import augmentations, optimizer

model.backbone.bottom_up = L(build_convnext)(
    layer_scale_init=1.0, drop_path=0.4, freeze_at=0, out_features=list(STAGES)
)
dataloader.train.mapper.augmentations = augmentations
# 36 epochs of 117,266 images in 7,330 batches of 16, with steps after 27 and 33.
train.max_iter = lr_multiplier.scheduler.num_updates = 36 * 7_330
lr_multiplier.scheduler.milestones = [27 * 7_330, 33 * 7_330]
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter
train.amp.enabled = True
train.init_checkpoint = "ssl://convnext_tiny_imagenet"
train.output_dir = "./output/convnext_tiny_3x"
