"""Mask R-CNN R50-FPN on a frozen ResNet from MoCo v2 (800 epochs), single scale, 1x.

    python tools/train_net.py --config-file projects/frozen/configs/moco_frozen_1x.py --num-gpus 8

configs/moco_1x.py in all but what trains; README.md in the folder above says what "frozen" means here.
"""

from ....configs.moco_1x import dataloader, lr_multiplier, model, optimizer, train

# Stem and res2..res5.
model.backbone.bottom_up.freeze_at = 5
# Affine and running statistics of the pretraining, in training as in testing.
model.backbone.bottom_up.stem.norm = "FrozenBN"
model.backbone.bottom_up.stages.norm = "FrozenBN"

train.output_dir = "./output/moco_frozen_1x"
