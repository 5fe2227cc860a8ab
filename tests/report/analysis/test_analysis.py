"""What a report says of a run, against pycocotools."""

import json

import numpy as np
import pytest
from coco_scenes import coco, scene

from ssl_backbones.errors import InputError
from ssl_backbones.report.analysis.analysis import examine
from ssl_backbones.report.analysis.findings import ERROR_TYPES
from ssl_backbones.report.analysis.outcomes import find_outcomes

NAMES = {1: "cat", 2: "<script>", 3: "none"}
TASKS = pytest.mark.parametrize("task", ["bbox", "segm"])


def analysed(dataset, results, task="bbox", **options):
    options = {"min_score": 0.5, "class_names": NAMES} | options
    return examine(coco(dataset), results, task, **options)[1]


@TASKS
@pytest.mark.parametrize("chosen", [None, [2, 3, 5]])
def test_average_precision_is_that_of_pycocotools(pycocotools, task, chosen):
    dataset, results = scene(3)
    ours = analysed(dataset, results, task, image_ids=chosen)
    theirs = pycocotools(dataset, results, task, chosen)
    assert list(ours.by_size.values()) == [
        None if value == -1 else 100 * value for value in theirs.stats[:6]
    ]
    assert list(ours.by_size) == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    precision = theirs.eval["precision"][..., 0, 2]
    for kind, row in enumerate(ours.classes):
        own = precision[:, :, kind]
        if (own == -1).all():
            assert row.ap is None and row.ap50 is None
        else:
            assert row.ap == 100 * own.ravel().mean() and row.ap50 == 100 * own[0].mean()
    means = precision[:, :, [0, 1]].mean(axis=2)
    np.testing.assert_array_equal(list(ours.precision.values()), means)
    thresholds = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert list(ours.precision) == thresholds
    assert ours.recalls == np.linspace(0, 1, 101).tolist()


def test_classes_and_counts():
    dataset, results = scene(3)
    ours = analysed(dataset, results)
    objects = [one for one in dataset["annotations"] if not one["iscrowd"]]
    shown = [one for one in results if one["score"] >= 0.5]
    for number, row in enumerate(ours.classes, start=1):
        assert row.name == NAMES[number]
        assert row.objects == sum(one["category_id"] == number for one in objects)
        assert row.detections == sum(one["category_id"] == number for one in shown)
    assert ours.class_names == list(NAMES.values())
    assert ours.counts == {
        "images": 6,
        "images without objects": 1,
        "objects": len(objects),
        "crowds": len(dataset["annotations"]) - len(objects),
        "detections": len(results),
        "detections shown": len(shown),
    }
    assert np.shape(ours.confusion) == (4, 4)
    assert np.sum(ours.confusion[:3]) == len(objects)
    assert list(ours.errors) == [*ERROR_TYPES, "FalsePos", "FalseNeg"]
    assert [one.image_id for one in ours.images] == [1, 2, 3, 4, 5, 6]


def test_a_score_above_all_shows_nothing():
    dataset, results = scene(3)
    ours = analysed(dataset, results, min_score=1.1)
    assert ours.counts["detections shown"] == 0 < ours.counts["detections"]
    assert {one.score for one in ours.images} == {0, None}
    # What is not shown still counts for AP and its errors.
    assert ours.errors == analysed(dataset, results).errors
    assert ours.by_size == analysed(dataset, results).by_size


@TASKS
@pytest.mark.parametrize("chosen", [None, [2, 3, 5]])
def test_the_outcomes_are_those_that_are_found_alone(task, chosen):
    dataset, results = scene(3)
    options = {"min_score": 0.5, "class_names": NAMES, "image_ids": chosen}
    outcomes, _ = examine(coco(dataset), results, task, **options)
    alone = find_outcomes(coco(dataset), results, task, chosen)
    for ours, expected in zip(outcomes, alone, strict=True):
        np.testing.assert_array_equal(ours, expected, strict=isinstance(ours, np.ndarray))


def test_errors_are_of_all_detections_and_those_of_images_of_the_shown_ones():
    dataset, results = scene(3)
    # All of them far from any object.
    results = [{**found, "bbox": [0, 0, 0.5, 0.5]} for found in results]
    few = sum(found["score"] >= 0.7 for found in results)
    ours = analysed(dataset, results, min_score=0.7)
    assert ours.errors["FalsePos"].count == len(results) > few == ours.counts["detections shown"]
    assert ours.errors["Bkg"].count == len(results)
    nothing = analysed(dataset, results, min_score=1)
    assert nothing.errors == ours.errors
    assert {name for one in nothing.images for name in one.errors} == {"Miss"}


def test_a_class_without_a_name_is_called_by_its_id():
    dataset, results = scene(3)
    assert analysed(dataset, results, class_names={2: "dog"}).class_names == ["1", "dog", "3"]


@TASKS
def test_nothing_found(task):
    ours = analysed(scene(3)[0], [], task)
    assert [ours.by_size[name] for name in ("AP", "AP50", "AP75")] == [0, 0, 0]
    assert ours.errors["Miss"].count == ours.errors["FalseNeg"].count == ours.counts["objects"]
    assert {one.errors for one in ours.images} == {("Miss",), ()}


@pytest.mark.parametrize("results", [scene(3)[1], []])
def test_nothing_there(results):
    ours = analysed({**scene(3)[0], "annotations": []}, results)
    assert set(ours.by_size.values()) == {None}
    assert ours.precision == {}
    assert {row.ap for row in ours.classes} == {None}


def test_everything_can_be_written_as_json():
    dataset, results = scene(3)
    ours = analysed(dataset, results)
    for part in (ours.recalls, ours.precision, ours.by_size, ours.confusion, ours.counts):
        json.dumps(part)
    json.dumps([vars(row) for row in (*ours.classes, *ours.images, *ours.errors.values())])


def test_results_of_other_images_are_refused():
    dataset, results = scene(3)
    results[0]["image_id"] = 99
    with pytest.raises(InputError, match="not annotated"):
        analysed(dataset, results)
