"""Confusion matrices and how images come out, counted by hand."""

import numpy as np
import pytest
from coco_scenes import coco, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.report.analysis.analysis import confusion_matrix, image_outcome
from ssl_backbones.report.analysis.scenes import Scene, scenes

NAMES = ["cat", "dog", "<script>"]


def by_hand(ious, kinds, object_kinds, in_crowd=()):
    ious = np.array(ious, float).reshape(len(kinds), len(object_kinds))
    crowd = np.isin(np.arange(len(kinds)), in_crowd)
    places, scores = np.arange(len(kinds)), np.linspace(0.9, 0.6, len(kinds))
    objects = list(range(len(object_kinds)))
    kinds, object_kinds = np.array(kinds, int), np.array(object_kinds, int)
    return Scene(0, places, scores, kinds, objects, object_kinds, ious, crowd)


def test_by_hand():
    ious = [
        [0.9, 0.0, 0.0],  # right
        [0.8, 0.0, 0.0],  # the same object again
        [0.0, 0.5, 0.0],  # another class
        [0.0, 0.0, 0.49],  # not near enough
        [0.0, 0.0, 0.0],  # in a crowd
    ]
    matrix = confusion_matrix([by_hand(ious, [0, 0, 0, 1, 1], [0, 1, 1], in_crowd=[4])], 2)
    assert matrix.tolist() == [
        [1, 0, 0],
        [1, 0, 1],
        [1, 1, 0],
    ]


def test_the_nearest_pair_comes_first_whatever_its_class_and_score():
    # The first detection, of the better score and the wrong class, is not as near.
    matrix = confusion_matrix([by_hand([[0, 0.6], [0, 0.9]], [0, 1], [0, 1])], 2)
    assert matrix.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    # Of equal IoUs, that of the better score.
    matrix = confusion_matrix([by_hand([[0.9], [0.9]], [1, 0], [0])], 2)
    assert matrix.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_what_lies_in_a_crowd_may_still_find_an_object():
    matrix = confusion_matrix([by_hand([[0.9]], [0], [0], in_crowd=[0])], 1)
    assert matrix.tolist() == [[1, 0], [0, 0]]


def test_images_without_anything():
    nothing = by_hand([], [], [])
    assert confusion_matrix([nothing], 2).tolist() == np.zeros((3, 3)).tolist()
    assert confusion_matrix([by_hand([], [], [1])], 2)[1].tolist() == [0, 0, 1]
    assert confusion_matrix([by_hand([], [1], [])], 2)[2].tolist() == [0, 1, 0]


@given(seed=st.integers(0, 1000), min_score=st.sampled_from([0, 0.5, 1]))
@settings(max_examples=15, deadline=None)
def test_every_object_and_detection_is_counted_once(seed, min_score):
    dataset, results = scene(seed, classes=4)
    shown = [
        one.shown(min_score)
        for one in scenes(coco(dataset), results, "bbox", range(1, 7), range(1, 5))
    ]
    matrix = confusion_matrix(shown, 4)
    objects = [one["category_id"] for one in dataset["annotations"] if not one["iscrowd"]]
    np.testing.assert_array_equal(matrix[:4].sum(axis=1), np.bincount(objects, minlength=5)[1:])
    scored = [one["category_id"] for one in results if one["score"] >= min_score]
    # Some lie in crowds, and count for nothing.
    assert (matrix[:, :4].sum(axis=0) <= np.bincount(scored, minlength=5)[1:]).all()
    kinds = np.concatenate([one.kinds for one in shown])
    assert sorted(kinds + 1) == sorted(scored)


# ---- how images come out


def outcome(ious, kinds, object_kinds, in_crowd=()):
    return image_outcome(by_hand(ious, kinds, object_kinds, in_crowd), "image 7", NAMES)


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


def test_what_lies_in_a_crowd_may_still_count_as_found():
    assert outcome([[0.9]], [0], [0], in_crowd=[0]).score == 1
