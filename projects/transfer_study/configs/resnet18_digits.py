"""The recipe of every cell of the transfer study: Mask R-CNN with a ResNet-18 on the embedded scenes.

It is projects/digits/configs/moco_digits.py with a smaller detector. A cell says the rest on its command
line: weights, labelled scenes, seed, iterations, and what is frozen. README.md in the folder above explains.
"""

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.layers import ShapeSpec

from ssl_backbones.data import digits_root
from ssl_backbones.modeling.resnet import build_resnet

from ...digits.configs.moco_digits import L, dataloader, lr_multiplier, model, optimizer, train

# Each budget's scenes lie in a folder of their own: transfer_study/50 is transfer_study_50_train and _test.
for folder in (digits_root().parent / "transfer_study").glob("*"):
    for split in ("train", "test"):
        name = f"transfer_study_{folder.name}_{split}"
        if folder.name.isdigit() and name not in DatasetCatalog:
            register_coco_instances(
                name,
                {
                    "thing_classes": [str(digit) for digit in range(10)],
                    "made_by": "python projects/transfer_study/study.py",
                },
                str(folder / "annotations" / f"{split}.json"),
                str(folder / split),
            )

dataloader.train.dataset.names = "transfer_study_400_train"
dataloader.test.dataset.names = "transfer_study_400_test"

# As in the recipe: batch norm that trains, and a frozen stem. Training from scratch sets freeze_at=0.
model.backbone.bottom_up = L(build_resnet)(
    depth=18,
    res2_channels=64,
    norm="SyncBN",
    freeze_at=1,
    out_features=["res2", "res3", "res4", "res5"],
)

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
