"""Keypoint R-CNN R50-FPN from MoCo v2 (800 epochs), normalised as in the MoCo paper, 2x.

    python tools/train_net.py --config-file projects/keypoints/configs/moco_keypoints_2x.py --num-gpus 8

Source: He et al., arXiv:1911.05722, section 4.2 and appendix A.2, on Detectron2's own Keypoint R-CNN.
"""

from detectron2 import model_zoo

from ...moco_fpn.configs.moco_paper_2x import dataloader, lr_multiplier, model, optimizer, train

# One class, keypoint head in place of the mask head, 1500 proposals in training, smooth L1 loss of boxes.
_stock = model_zoo.get_config("common/models/keypoint_rcnn_fpn.py").model
model.roi_heads = _stock.roi_heads
model.proposal_generator = _stock.proposal_generator

_keypoints = model_zoo.get_config("common/data/coco_keypoint.py").dataloader
dataloader.train.dataset.names = _keypoints.train.dataset.names
dataloader.train.dataset.min_keypoints = _keypoints.train.dataset.min_keypoints
dataloader.test.dataset.names = _keypoints.test.dataset.names
for _option in ("use_instance_mask", "use_keypoint", "keypoint_hflip_indices"):
    dataloader.train.mapper[_option] = _keypoints.train.mapper[_option]

train.output_dir = "./output/moco_keypoints_2x"
