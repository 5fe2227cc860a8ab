"""How images come out, by hand."""

import numpy as np
import pytest

from ssl_backbones.report.analysis.analysis import image_outcome
from ssl_backbones.report.analysis.scenes import Scene

NAMES = ["cat", "dog", "<script>"]


def outcome(ious, kinds, object_kinds, in_crowd=()):
    ious = np.array(ious, float).reshape(len(kinds), len(object_kinds))
    crowd = np.isin(np.arange(len(kinds)), in_crowd)
    places, scores = np.arange(len(kinds)), np.linspace(0.9, 0.6, len(kinds))
    objects = list(range(len(object_kinds)))
    kinds, object_kinds = np.array(kinds, int), np.array(object_kinds, int)
    scene = Scene(0, places, scores, kinds, objects, object_kinds, ious, crowd)
    return image_outcome(scene, "image 7", NAMES)


def test_all_found():
    found = outcome([[0.9, 0], [0, 0.7]], [0, 2], [0, 2])
    assert (found.image_id, found.score, found.errors) == ("image 7", 1, ())
    assert found.mean_iou == pytest.approx(0.8)
    assert found.classes == ("cat", "<script>")


def test_some_found():
    # One of three objects, by one of two detections: F1 is 2 / (2 + 1 + 2).
    found = outcome([[0.9, 0, 0], [0.6, 0, 0]], [0, 0], [0, 0, 1])
    assert found.score == pytest.approx(2 / 5)
    assert found.mean_iou == 0.9
    assert found.errors == ("Dupe", "Miss")
    assert found.classes == ("cat", "dog")


def test_an_object_that_was_taken_for_another_class_is_not_missed():
    found = outcome([[0.9]], [1], [0])
    assert (found.score, found.mean_iou, found.errors) == (0, 0, ("Cls",))
    assert found.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("kinds", "object_kinds", "in_crowd", "score", "errors"),
    [
        ([], [], [], None, ()),
        # Nothing counts of what lies in a crowd.
        ([0], [], [0], None, ()),
        ([], [1], [], 0, ("Miss",)),
        ([1], [], [], 0, ("Bkg",)),
    ],
)
def test_nothing_there_or_nothing_found(kinds, object_kinds, in_crowd, score, errors):
    found = outcome([], kinds, object_kinds, in_crowd)
    assert (found.score, found.mean_iou, found.errors) == (score, 0, errors)


def test_what_lies_in_a_crowd_may_still_find_an_object():
    assert outcome([[0.9]], [0], [0], in_crowd=[0]).score == 1
