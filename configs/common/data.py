"""COCO instance segmentation, read as the self-supervised ResNets were trained: RGB, ImageNet statistics."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L

from ssl_backbones.fast.annotations.packed_dataset import packed_detection_dataset
from ssl_backbones.fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ssl_backbones.fast.mapping.mapper import FastDatasetMapper

# The one place that says how images reach the network; model.py reads it as well. Mean and standard
# deviation are those of ImageNet on a 0-255 scale, as in every torchvision-style pretraining.
input_convention = dict(
    format="RGB",
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader

# Each gives what Detectron2's own part gives, in a fraction of the time: docs/speed.md. Detectron2's own:
#   dataloader.train.dataset._target_=detectron2.data.get_detection_dataset_dicts
#   dataloader.train.mapper._target_=detectron2.data.DatasetMapper
#   dataloader.evaluator._target_=detectron2.evaluation.COCOEvaluator
for _split in (dataloader.train, dataloader.test):
    _split.dataset._target_ = packed_detection_dataset
    _split.mapper._target_ = FastDatasetMapper
dataloader.evaluator._target_ = FastCOCOEvaluator

dataloader.train.mapper.image_format = input_convention["format"]
dataloader.test.mapper.image_format = input_convention["format"]

# Single scale. Detectron2's own default samples six scales from 640 to 800 already in its 1x.
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
    L(T.RandomFlip)(horizontal=True),
]
