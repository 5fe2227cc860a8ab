"""What lies in an image, against pycocotools' own IoUs."""

import numpy as np
import pytest
from coco_scenes import coco, scene

from ssl_backbones.report.analysis.scenes import scenes

TASKS = pytest.mark.parametrize("task", ["bbox", "segm"])


def scenes_of(dataset, results, task):
    return list(scenes(coco(dataset), results, task, [1, 2, 3, 4, 5, 6], [1, 2, 3]))


@TASKS
def test_ious_within_a_class_are_those_of_pycocotools(pycocotools, task):
    dataset, results = scene(3)
    evaluation = pycocotools(dataset, results, task)
    compared = 0
    for one in scenes_of(dataset, results, task):
        for kind in (0, 1):
            theirs = evaluation.ious[one.image + 1, kind + 1]
            annotated = evaluation._gts[one.image + 1, kind + 1]
            regular = [not found["iscrowd"] for found in annotated]
            if not (len(theirs) and any(regular)):
                continue
            ours = one.ious[np.ix_(one.kinds == kind, one.object_kinds == kind)]
            np.testing.assert_array_equal(ours, theirs[:, regular])
            inside = (theirs[:, np.logical_not(regular)] > 0.5).any(axis=1)
            np.testing.assert_array_equal(one.in_crowd[one.kinds == kind], inside)
            compared += inside.sum()
    # Without any in a crowd, that would not have been tested.
    assert compared


@TASKS
def test_objects_and_detections_are_where_they_belong(task):
    dataset, results = scene(3)
    for one in scenes_of(dataset, results, task):
        assert [results[place]["image_id"] for place in one.results] == [one.image + 1] * len(
            one.results
        )
        assert [results[place]["category_id"] - 1 for place in one.results] == one.kinds.tolist()
        assert [results[place]["score"] for place in one.results] == sorted(
            one.scores, reverse=True
        )
        own = [a for a in dataset["annotations"] if a["image_id"] == one.image + 1]
        own = {a["id"]: a["category_id"] - 1 for a in own if not a["iscrowd"]}
        assert dict(zip(one.objects, one.object_kinds.tolist(), strict=True)) == own
        assert one.ious.shape == (len(one.results), len(own))


def test_other_classes_and_images_are_left_out():
    dataset, results = scene(3)
    (one,) = scenes(coco(dataset), results, "bbox", [4], [2])
    assert one.results.tolist() == sorted(
        (n for n, r in enumerate(results) if r["image_id"] == 4 and r["category_id"] == 2),
        key=lambda n: -results[n]["score"],
    )
    assert set(one.kinds) == set(one.object_kinds) == {0}


def test_a_hundred_detections_of_an_image_count():
    dataset, results = scene(3)
    results = [{**results[0], "score": n / 200} for n in range(130)]
    one = scenes_of(dataset, results, "bbox")[results[0]["image_id"] - 1]
    assert one.results.tolist() == list(range(129, 29, -1))


@pytest.mark.parametrize(("min_score", "count"), [(0, 4), (0.5, 3), (0.500001, 1), (0.95, 0)])
def test_what_is_shown(min_score, count):
    dataset, results = scene(3)
    results = [{**results[0], "score": score} for score in (0.5, 0.9, 0.1, 0.5)]
    one = scenes_of(dataset, results, "bbox")[results[0]["image_id"] - 1]
    shown = one.shown(min_score)
    assert shown.results.tolist() == [1, 0, 3, 2][:count]
    assert len(shown.scores) == len(shown.kinds) == len(shown.ious) == len(shown.in_crowd) == count
    assert shown.objects == one.objects


def test_masks_of_another_size_overlap_with_nothing():
    dataset, results = scene(3)
    for result in results:
        result["segmentation"] = {"size": [60, 40], "counts": result["segmentation"]["counts"]}
    for one in scenes_of(dataset, results, "segm"):
        assert (one.ious == 0).all() and not one.in_crowd.any()
