"""Mask R-CNN ConvNeXt-V2-T FPN from self-supervised weights (FCMAE on ImageNet-1K), 3x.

Nobody has published this recipe: it is convnext_tiny_3x, which was made for supervised weights, from FCMAE's.
ConvNeXt-V2's own detectors begin with weights that were fine-tuned with labels.

    python tools/train_net.py --config-file projects/convnext/configs/convnext_tiny_ssl_3x.py --num-gpus 8
"""

from .convnext_tiny_3x import dataloader, lr_multiplier, model, optimizer, train

# Version 2 normalises responses, and has no layer scale for it.
model.backbone.bottom_up.grn = True
model.backbone.bottom_up.layer_scale = False
train.init_checkpoint = "ssl://convnextv2_tiny_fcmae"
train.output_dir = "./output/convnext_tiny_ssl_3x"
