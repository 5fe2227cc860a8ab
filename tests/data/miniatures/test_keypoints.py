"""Key points of shapes whose points are known, and of digits in a mirror."""

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

from ssl_backbones.data.digits import CELLS
from ssl_backbones.data.miniatures.keypoints import HIDDEN, NAMES, NOT_LABELLED, VISIBLE, keypoints


def canvas(height=20, width=30):
    return np.zeros((height * CELLS, width * CELLS), dtype=bool)


def rectangle(left, top, right, bottom):
    mask = canvas()
    mask[top * CELLS : bottom * CELLS, left * CELLS : right * CELLS] = True
    return mask


def points(values):
    return dict(zip(NAMES, np.reshape(values, (-1, 3)).tolist(), strict=True))


def test_names_are_cocos():
    assert COCO_PERSON_KEYPOINT_NAMES == NAMES


def test_points_of_a_bar():
    """16 pixels high, so that the eight heights are every second pixel from the first but one cell."""
    found = points(keypoints(rectangle(5, 2, 9, 18), []))
    assert found["nose"] == [5, 2, VISIBLE]
    assert found["left_eye"] == [8, 2, VISIBLE] and found["right_eye"] == [5, 2, VISIBLE]
    assert found["left_ear"][1] - found["left_eye"][1] == 2
    assert found["right_ankle"] == [5, 16, VISIBLE]


def test_what_another_digit_touches_is_hidden_and_what_is_not_there_not_labelled():
    bar, beside = rectangle(5, 2, 9, 18), rectangle(9, 2, 12, 10)
    found = points(keypoints(bar, [beside, rectangle(20, 2, 22, 18)]))
    assert found["left_eye"][2] == HIDDEN and found["right_eye"][2] == VISIBLE
    assert found["left_ankle"][2] == VISIBLE  # below what touches it
    above = rectangle(4, 0, 6, 2)
    assert points(keypoints(bar, [above]))["nose"][2] == HIDDEN
    broken = rectangle(5, 2, 9, 8) | rectangle(5, 12, 9, 18)
    found = points(keypoints(broken, []))
    assert found["left_elbow"] == found["right_elbow"] == [0, 0, NOT_LABELLED]


def test_at_the_edge_of_the_picture_nothing_hides():
    found = points(keypoints(rectangle(0, 0, 30, 20), []))
    assert {visibility for *_, visibility in found.values()} == {VISIBLE}


@pytest.mark.parametrize("number", range(4))
def test_a_mirrored_digit_has_left_and_right_exchanged_as_detectron2_does(
    number, taken, miniatures
):
    scene = taken("train", 6)[number].scene
    masks = scene.masks
    flip = dict(MetadataCatalog.get("keypoints_coco_2017_train").keypoint_flip_map)
    flip |= {right: left for left, right in flip.items()}
    width = scene.image.shape[1]
    found = points(keypoints(masks[0], masks[1:]))
    mirrored = points(keypoints(masks[0][:, ::-1], [mask[:, ::-1] for mask in masks[1:]]))
    for name in NAMES[1:]:
        x, y, visibility = found[name]
        expected = [width - 1 - x, y, visibility] if visibility else [0, 0, 0]
        assert mirrored[flip[name]] == expected
