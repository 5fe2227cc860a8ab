"""COCO instance segmentation, read as the self-supervised ResNets were trained: RGB, ImageNet statistics."""

import detectron2.data.transforms as T
from detectron2 import model_zoo
from detectron2.config import LazyCall as L

# The one place that says how images reach the network; model.py reads it as well. Mean and standard
# deviation are those of ImageNet on a 0-255 scale, as in every torchvision-style pretraining.
input_convention = dict(
    format="RGB",
    pixel_mean=[123.675, 116.28, 103.53],
    pixel_std=[58.395, 57.12, 57.375],
)

dataloader = model_zoo.get_config("common/data/coco.py").dataloader

dataloader.train.mapper.image_format = input_convention["format"]
dataloader.test.mapper.image_format = input_convention["format"]

# Single scale. Detectron2's own default samples six scales from 640 to 800 already in its 1x.
dataloader.train.mapper.augmentations = [
    L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
    L(T.RandomFlip)(horizontal=True),
]
