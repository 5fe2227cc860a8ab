"""Mask R-CNN with a ResNet-18 on the embedded scenes: a whole detector in a fraction of a second a step."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from ssl_backbones import get_config
from ssl_backbones.modeling.resnet import build_resnet

_recipe = get_config("moco_1x")
dataloader, lr_multiplier, model, optimizer, train = (
    _recipe[name] for name in ("dataloader", "lr_multiplier", "model", "optimizer", "train")
)

dataloader.train.dataset.names = "digits_train"
dataloader.test.dataset.names = "digits_test"
for _split in (dataloader.train, dataloader.test):
    _split.num_workers = 0
    _split.mapper.augmentations[0].short_edge_length = 64
# Two sizes: augmentation draws random numbers, and batches have images of unlike sizes.
dataloader.train.mapper.augmentations[0].short_edge_length = [56, 64]
dataloader.train.mapper.augmentations[0].sample_style = "choice"
dataloader.train.total_batch_size = 2
train.reference_batch_size = 2

model.backbone.bottom_up = L(build_resnet)(
    depth=18,
    res2_channels=64,
    norm="BN",
    freeze_at=0,
    out_features=["res2", "res3", "res4", "res5"],
)
model.backbone.out_channels = 32
model.proposal_generator.head.in_channels = 32
model.proposal_generator.batch_size_per_image = 16
model.proposal_generator.pre_nms_topk = (100, 50)
model.proposal_generator.post_nms_topk = (20, 10)
model.roi_heads.num_classes = 10
model.roi_heads.batch_size_per_image = 8
model.roi_heads.box_head.input_shape = ShapeSpec(channels=32, height=7, width=7)
model.roi_heads.box_head.fc_dims = [32]
model.roi_heads.box_predictor.input_shape = ShapeSpec(channels=32)
model.roi_heads.box_predictor.test_topk_per_image = 5
# A detector that has hardly trained is sure of nothing; there must be something to evaluate.
model.roi_heads.box_predictor.test_score_thresh = 0.0
model.roi_heads.mask_head.input_shape = ShapeSpec(channels=32, width=14, height=14)
model.roi_heads.mask_head.conv_dims = [32, 32]

train.init_checkpoint = ""
train.device = "cpu"
train.seed = 7
train.max_iter = 12
train.warmup_iters = 4
train.eval_period = 6
train.log_period = 1
train.checkpointer = dict(period=4, max_to_keep=2)
