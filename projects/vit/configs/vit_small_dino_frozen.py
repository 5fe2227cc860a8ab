"""Mask R-CNN on a frozen ViT-S/16 from DINO's weights: pyramid, RPN and heads train alone, 100 epochs.

Nobody has published this recipe: it is vit_small_dino_100ep in all but what trains.

    python tools/train_net.py --config-file projects/vit/configs/vit_small_dino_frozen.py --num-gpus 8
"""

from .vit_small_dino_100ep import dataloader, lr_multiplier, model, optimizer, train

# Embeddings, 12 blocks and the norm. None is left out by chance: the features are those of the whole network.
model.backbone.bottom_up.freeze_at = 14
model.backbone.bottom_up.drop_path = 0.0
train.output_dir = "./output/vit_small_dino_frozen"
