"""The recipe of every cell of the transfer study: Mask R-CNN with a ResNet-18 on the embedded scenes.

It is projects/digits/configs/moco_digits.py with a smaller detector. Data, weights, seed and what is frozen
are said on the command line. README.md in the folder above explains.
"""

from detectron2.layers import ShapeSpec

from ...digits.configs.moco_digits import dataloader, lr_multiplier, model, optimizer, train

# As in the recipe: batch norm that trains, and a frozen stem. Blocks of two 3x3 convolutions have no 1x1.
model.backbone.bottom_up.stages.depth = 18
del model.backbone.bottom_up.stages.stride_in_1x1

# A quarter of the channels, two convolutions in place of five: what is compared is the backbone, and the rest
# should take little of the time.
CHANNELS = 64
model.backbone.out_channels = CHANNELS
model.proposal_generator.head.in_channels = CHANNELS
model.roi_heads.box_head.input_shape = ShapeSpec(channels=CHANNELS, height=7, width=7)
model.roi_heads.box_head.conv_dims = [CHANNELS]
model.roi_heads.box_head.fc_dims = [256]
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=256)
model.roi_heads.mask_head.input_shape = ShapeSpec(channels=CHANNELS, width=14, height=14)
model.roi_heads.mask_head.conv_dims = [CHANNELS] * 3

# Three times the ResNet-50's: it is a small network, and the iterations are few.
optimizer.lr = 1e-3

train.init_checkpoint = ""
train.output_dir = "./output/transfer_study/cell"
train.max_iter = 500
# Only the end is compared, and nothing before it is kept.
train.eval_at_start = False
train.best_metric = None
train.checkpointer.period = train.max_iter
