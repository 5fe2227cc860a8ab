"""What the recipes of ConvNeXt's detectors share: how images are augmented, and the optimizer.

Source: ConvNeXt, object_detection/configs/convnext (commit 048efce).
"""

import detectron2.data.transforms as T
import torch
from detectron2.config import LazyCall as L

from ssl_backbones.data.augmentations import OneOf
from ssl_backbones.modeling.layer_decay import layer_decayed_params


def _resize(short_edge_length):
    return L(T.ResizeShortestEdge)(
        short_edge_length=short_edge_length, sample_style="choice", max_size=1333
    )


# Half of the images are resized; of the others a part is, about as DETR and Sparse R-CNN have it.
augmentations = [
    L(T.RandomFlip)(horizontal=True, prob=0.5),
    L(OneOf)(
        choices=[
            [_resize(list(range(480, 801, 32)))],
            [
                _resize([400, 500, 600]),
                L(T.RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
                _resize(list(range(480, 801, 32))),
            ],
        ]
    ),
]

# Learning rate x 0.95 for each layer below the heads, to 0.95 ** 7 in the stem.
optimizer = L(torch.optim.AdamW)(
    params=L(layer_decayed_params)(base_lr="${..lr}", weight_decay="${..weight_decay}", decay=0.95),
    lr=1e-4,
    betas=[0.9, 0.999],
    weight_decay=0.05,
)
