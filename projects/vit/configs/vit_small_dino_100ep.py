"""Mask R-CNN on a plain ViT-S/16 from DINO's weights (ImageNet-1K, no labels), 100 epochs.

Nobody has published this recipe: it is vit_base_mae_100ep, which is made after ViTDet-B, of another network.

    python tools/train_net.py --config-file projects/vit/configs/vit_small_dino_100ep.py --num-gpus 8
"""

from ..common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.embed_dim = 384
model.backbone.bottom_up.num_heads = 6
model.backbone.bottom_up.mlp_dim = 1536
# As DINO's own code interpolates its positions.
model.backbone.bottom_up.interpolate_offset = 0.1
train.init_checkpoint = "ssl://dino_vit_small"
train.output_dir = "./output/vit_small_dino_100ep"
