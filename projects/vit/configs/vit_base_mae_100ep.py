"""Mask R-CNN on a plain ViT-B/16 from MAE's weights (ImageNet-1K, no labels), 100 epochs.

Published for ViTDet-B, which has windows and relative positions besides: 51.6 box AP, 45.9 mask AP
(Detectron2's main, projects/ViTDet/README.md, COCO val2017).

    python tools/train_net.py --config-file projects/vit/configs/vit_base_mae_100ep.py --num-gpus 8

Source: Detectron2's main (commit 02b5c4e), projects/ViTDet/configs/COCO/mask_rcnn_vitdet_b_100ep.py.
README.md in the folder above says what is otherwise here.
"""

from ..common import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.embed_dim = 768
model.backbone.bottom_up.num_heads = 12
model.backbone.bottom_up.mlp_dim = 3072
train.init_checkpoint = "ssl://mae_vit_base"
train.output_dir = "./output/vit_base_mae_100ep"
