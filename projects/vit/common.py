"""ViTDet's Mask R-CNN, images, schedule and optimizer, around a plain ViT.

Source: Detectron2's main (commit 02b5c4e), projects/ViTDet/configs and configs/common.
"""

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L

from ssl_backbones.modeling.convnext import channel_norm
from ssl_backbones.modeling.layer_decay import layer_decayed_params
from ssl_backbones.modeling.vit import SimpleFeaturePyramid, build_vit

from ...configs.moco_1x import dataloader, lr_multiplier, model, train

model.backbone = L(SimpleFeaturePyramid)(
    bottom_up=L(build_vit)(depth=12, drop_path=0.1, freeze_at=0), out_channels=256
)
model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.conv_dims = [256, 256, 256, 256]
model.roi_heads.box_head.fc_dims = [1024]
model.roi_heads.box_head.conv_norm = L(channel_norm)()
model.roi_heads.mask_head.conv_norm = L(channel_norm)()

# Large-scale jittering; boxes are made anew of what the crop leaves of the masks.
dataloader.train.mapper.augmentations = [
    L(T.RandomFlip)(horizontal=True),
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=1024, target_width=1024),
    L(T.FixedSizeCrop)(crop_size=[1024, 1024], pad=False),
]
dataloader.train.mapper.recompute_boxes = True
dataloader.test.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=1024, max_size=1024)
]

# 100 epochs of 118,000 images in batches of 64.
dataloader.train.total_batch_size = train.reference_batch_size = 64
train.max_iter = lr_multiplier.scheduler.num_updates = 184_375
lr_multiplier.scheduler.milestones = [163_889, 177_546]
train.warmup_iters = 250
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter
train.amp.enabled = True
train.ddp.fp16_compression = True

# Learning rate x 0.7 for each layer below the pyramid, to 0.7 ** 13 in the embeddings of 12 blocks.
optimizer = L(torch.optim.AdamW)(
    params=L(layer_decayed_params)(
        base_lr="${..lr}", weight_decay="${..weight_decay}", decay=0.7, decay_biases=True
    ),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=0.1,
)
