"""The recipe of every cell of the study on photographs: Mask R-CNN R50-FPN at a size that two cores train.

It is projects/digits/configs/moco_digits.py for larger pictures, two at a time. Data, weights and seed are
said on the command line. README.md in the folder above explains.
"""

from detectron2.config import LazyCall as L
from detectron2.data.transforms import RandomFlip

from ...digits.configs.moco_digits import dataloader, lr_multiplier, model, optimizer, train

# A fifth of COCO's 800 x 1333: a person is then some 120 pixels high.
for _split in (dataloader.train, dataloader.test):
    _split.mapper.augmentations[0].short_edge_length = 160
    _split.mapper.augmentations[0].max_size = 267
# Left and right are alike in a photograph, unlike in a digit.
dataloader.train.mapper.augmentations.append(L(RandomFlip)(horizontal=True))

dataloader.train.total_batch_size = 2
train.reference_batch_size = 2

# Nothing is frozen, whatever the weights, so that arms differ in these alone.
model.backbone.bottom_up.freeze_at = 0

train.init_checkpoint = ""
train.output_dir = "./output/photographs/cell"
train.max_iter = 500
# Only the end is compared, and nothing before it is kept.
train.eval_at_start = False
train.best_metric = None
train.checkpointer.period = train.max_iter
