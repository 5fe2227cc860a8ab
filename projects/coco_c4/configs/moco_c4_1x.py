"""Mask R-CNN R50-C4 from MoCo v2 (800 epochs), as MoCo's own code fine-tunes it on COCO, 1x.

    python tools/train_net.py --config-file projects/coco_c4/configs/moco_c4_1x.py --num-gpus 8

Source: detection/configs of https://github.com/facebookresearch/moco (commit 7397dfe) over Detectron2's own
defaults. It publishes the 2x; the 1x is the same with Detectron2's 1x schedule, as in the paper's Table 5c.
"""

from detectron2 import model_zoo

from ssl_backbones.modeling.extra_norm import Res5ROIHeadsExtraNorm

from ....configs.common.data import dataloader
from ....configs.common.data import input_convention as _input
from ....configs.common.schedule import lr_multiplier, optimizer
from ....configs.common.train import train

# Base-RCNN-C4-BN.yaml: its proposals at test, 6000 and 1000, are Detectron2's for C4.
model = model_zoo.get_config("common/models/mask_rcnn_c4.py").model
model.input_format = _input.format
model.pixel_mean = _input.pixel_mean
model.pixel_std = _input.pixel_std

# "SyncBN seems to cause larger variance for unknown reasons", says Base-RCNN-C4-BN.yaml.
NORM = "naiveSyncBN"
model.backbone.stem.norm = NORM
model.backbone.freeze_at = 0
for _stages in (model.backbone.stages, model.roi_heads.res5):
    _stages.norm = NORM
    _stages.stride_in_1x1 = False
model.roi_heads._target_ = Res5ROIHeadsExtraNorm
model.roi_heads.norm = NORM

# Short side 640..800 in steps of 32.
dataloader.train.mapper.augmentations[0].short_edge_length = [640, 672, 704, 736, 768, 800]
dataloader.train.mapper.augmentations[0].sample_style = "choice"

# Detectron2's defaults: no weight decay on norm parameters, warm-up of 1,000 iterations.
optimizer.params.weight_decay_norm = 0.0
train.warmup_iters = 1000
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter

train.precise_bn.enabled = True
# MoCo's code evaluates once, at the end.
train.eval_period = 0
train.init_checkpoint = "ssl://moco_v2_800ep"
train.output_dir = "./output/moco_c4_1x"
