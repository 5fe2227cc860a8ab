"""Mask R-CNN R50-FPN from MoCo v2 (800 epochs), normalised as in the MoCo paper, 1x.

    python tools/train_net.py --config-file projects/moco_fpn/configs/moco_paper_1x.py --num-gpus 8

Source: He et al., arXiv:1911.05722, sections 4.2 and 4.2.2. What the paper does not say is Detectron2's
default; README.md in the folder above lists it.
"""

from ....configs.moco_1x import dataloader, lr_multiplier, model, optimizer, train

# "We fine-tune all layers end-to-end", "with BN that is trained (and synchronized across GPUs)".
model.backbone.bottom_up.freeze_at = 0
# "We also use BN in the newly initialized layers (e.g., FPN)": wherever Detectron2 can have one. The stock
# box head is fully connected, and the RPN's takes no norm.
model.backbone.norm = "SyncBN"
model.roi_heads.mask_head.conv_norm = "SyncBN"

# "The image scale is in [640, 800] pixels": in steps of 32, as MoCo's C4 files have it.
dataloader.train.mapper.augmentations[0].short_edge_length = [640, 672, 704, 736, 768, 800]
dataloader.train.mapper.augmentations[0].sample_style = "choice"

# Detectron2's defaults: no weight decay on norm parameters, warm-up of 1,000 iterations.
optimizer.params.weight_decay_norm = 0.0
train.warmup_iters = 1000
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter

# As MoCo's C4 files and Detectron2's own SyncBN configs; the paper does not say.
train.precise_bn.enabled = True
train.eval_period = 0
train.output_dir = "./output/moco_paper_1x"
