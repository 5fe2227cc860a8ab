"""Faster R-CNN R50-C4 from MoCo v2 (800 epochs) on VOC trainval07+12, tested on test2007, 24,000 iterations.

Published: AP 57.4, AP50 82.5, AP75 64.0, means of five runs (MoCo's detection/README.md).

    python tools/train_net.py --config-file projects/voc_c4/configs/moco_voc_c4_24k.py --num-gpus 8

Source: detection/configs/pascal_voc_R_50_C4_24k_moco.yaml of https://github.com/facebookresearch/moco (commit
7397dfe) over Detectron2's own defaults.
"""

from detectron2.config import LazyCall as L
from detectron2.evaluation import PascalVOCDetectionEvaluator

from ...coco_c4.configs.moco_c4_1x import dataloader, lr_multiplier, model, optimizer, train

# Boxes alone, of 20 classes.
del model.roi_heads.mask_head
model.roi_heads.num_classes = 20
dataloader.train.mapper.use_instance_mask = False

dataloader.train.dataset.names = ["voc_2007_trainval", "voc_2012_trainval"]
dataloader.test.dataset.names = "voc_2007_test"
dataloader.evaluator = L(PascalVOCDetectionEvaluator)(dataset_name="${..test.dataset.names}")

# Short side 480..800 in steps of 32.
dataloader.train.mapper.augmentations[0].short_edge_length = list(range(480, 801, 32))

# Steps after 3/4 and 11/12 of the run.
train.max_iter = 24_000
train.warmup_iters = 100
lr_multiplier.scheduler.milestones = [18_000, 22_000]
lr_multiplier.scheduler.num_updates = train.max_iter
lr_multiplier.warmup_length = train.warmup_iters / train.max_iter
train.output_dir = "./output/moco_voc_c4_24k"
