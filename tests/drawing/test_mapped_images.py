"""Images as the mapper gives them to the model, turned back into pictures."""

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from ssl_backbones.drawing.mapped_images import draw_mapped_image, to_picture
from ssl_backbones.errors import InputError

RED = (200, 40, 10)


def test_masks_as_arrays_and_images_without_instances():
    tensor = torch.full((3, 400, 400), 100, dtype=torch.uint8)
    instances = Instances((400, 400))
    instances.gt_boxes = Boxes(torch.tensor([[100.0, 100.0, 200.0, 200.0]]))
    instances.gt_classes = torch.tensor([5])
    instances.gt_masks = BitMasks(torch.zeros(1, 400, 400, dtype=torch.bool))
    instances.gt_masks.tensor[0, 120:180, 120:180] = True
    picture = draw_mapped_image({"image": tensor, "instances": instances}, "RGB", [])
    assert (picture[120:180, 120:180] != 100).any(2).all()
    assert (picture[102:118, 110:190] == 100).all()
    assert (draw_mapped_image({"image": tensor}, "RGB", []) == 100).all()


@pytest.mark.parametrize(
    ("channels", "values"),
    [
        ("RGB", (200.4, 40, 10)),
        ("BGR", (10, 40, 200)),
        # Y, U, V of BT.601: 0.299 R + 0.587 G + 0.114 B = 84.42; U = 0.492 (B - Y), V = 0.877 (R - Y)
        ("YUV-BT.601", (84.42 / 255, 0.492 * (10 - 84.42) / 255, 0.877 * (200 - 84.42) / 255)),
    ],
)
def test_tensors_become_pictures(channels, values):
    tensor = torch.tensor(values, dtype=torch.float32)[:, None, None].expand(3, 2, 5)
    picture = to_picture(tensor, channels)
    assert picture.shape == (2, 5, 3) and picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - RED).max() <= 1


def test_grey_and_impossible_values():
    grey = to_picture(torch.tensor([[[7.0, -3.0, 300.0, float("nan")]]]), "L")
    assert grey[0].tolist() == [[7] * 3, [0] * 3, [255] * 3, [0] * 3]
    with pytest.raises(InputError, match="does not fit"):
        to_picture(torch.zeros(1, 2, 2), "RGB")
