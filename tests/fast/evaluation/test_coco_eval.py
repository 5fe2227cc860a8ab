"""Average precision by hotcoco, against pycocotools: equal to the last bit."""

import contextlib
import copy
import io

import numpy as np
import pytest
from coco_scenes import coco, scene
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_util
from pycocotools.cocoeval import COCOeval

from ssl_backbones.fast.evaluation import coco_eval as fast_coco_eval
from ssl_backbones.fast.evaluation import detections as run_lengths
from ssl_backbones.fast.evaluation.coco_eval import FastCOCOeval
from ssl_backbones.fast.evaluation.detections import (
    Detections,
    Irregular,
    concatenate,
    first_damaged,
)

FEW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def evaluated(kind, dataset, results, task, change=lambda params: None, packed=False):
    """`kind` after everything that one does with it."""
    truth, results = coco(dataset), copy.deepcopy(results)
    with contextlib.redirect_stdout(io.StringIO()):
        if task == "segm":
            for result in results:
                del result["bbox"]
        found = Detections.pack(results) if packed else truth.loadRes(results)
        evaluation = kind(truth, found, task)
        change(evaluation.params)
        evaluation.evaluate()
        evaluation.accumulate()
        with contextlib.suppress(IndexError):
            # Parameters other than COCO's have no statistics.
            evaluation.summarize()
    return evaluation


def assert_equal(ours, theirs):
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name], strict=True)
    np.testing.assert_array_equal(ours.stats, theirs.stats)
    assert ours.eval["counts"] == theirs.eval["counts"]


def as_they_are(params):
    pass


def without_classes(params):
    params.useCats = 0


def of_some_images(params):
    params.imgIds, params.maxDets = [5, 2, 6, 5], [4, 1, 10]


def of_a_class(params):
    params.catIds = [2]


def unusual(params):
    params.iouThrs, params.recThrs = np.array([0, 0.3, 1]), np.array([0, 0.1, 0.2, 0.4, 0.9])
    params.areaRng, params.areaRngLbl = [[0, 1e10], [50, 1024]], ["all", "some"]


def unsorted_recalls(params):
    params.recThrs = np.array([0.4, 0.1, 0, 0.2, 0.9])


def the_same_limit_twice(params):
    params.maxDets = [1, 10, 10]


BY_HOTCOCO = [as_they_are, without_classes, of_some_images, of_a_class, unusual]
BY_PYCOCOTOOLS = [unsorted_recalls, the_same_limit_twice]


@pytest.mark.parametrize("task", ["bbox", "segm"])
@given(
    seed=st.integers(0, 1000),
    change=st.sampled_from(BY_HOTCOCO + BY_PYCOCOTOOLS),
    packed=st.booleans(),
)
@FEW
def test_everything_is_pycocotools(task, seed, change, packed):
    made = scene(seed)
    ours = evaluated(FastCOCOeval, *made, task, change, packed)
    assert (ours._matched is None) == (change in BY_PYCOCOTOOLS)
    assert_equal(ours, evaluated(COCOeval, *made, task, change))


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_numbers_are_no_accident(task):
    # Were nothing matched, all would be equal too.
    ours = evaluated(FastCOCOeval, *scene(3), task)
    assert 0.05 < ours.stats[0] < 0.95 and ours.stats[1] > ours.stats[2] > 0
    assert (ours.eval["precision"] == -1).any()


def test_an_object_whose_id_is_0_is_never_found():
    dataset, results = scene(3)
    # One that a detection finds as it is, and nothing else is like it.
    first = dataset["annotations"][0]
    first["iscrowd"] = 0
    found = {name: first[name] for name in ("image_id", "category_id", "bbox")}
    results.append({**results[0], **found, "score": 0.99})
    before = evaluated(FastCOCOeval, dataset, results, "bbox")
    assert before._matched is not None
    first["id"] = 0
    ours = evaluated(FastCOCOeval, dataset, results, "bbox")
    assert ours._matched is None
    assert_equal(ours, evaluated(COCOeval, dataset, results, "bbox"))
    assert ours.stats[8] < before.stats[8]


@pytest.mark.parametrize("is_crowd", [0, 1])
def test_boxes_whose_area_underflows_to_0(is_crowd):
    """Their IoU is 0 / 0: pycocotools takes them for found."""
    dataset, results = scene(3)
    dataset["annotations"][0].update(bbox=[0, 0, 1e-160, 1e-165], iscrowd=is_crowd)
    found = {name: dataset["annotations"][0][name] for name in ("image_id", "category_id", "bbox")}
    results.append({**results[0], **found, "score": 0.3})
    ours, theirs = (evaluated(kind, dataset, results, "bbox") for kind in (FastCOCOeval, COCOeval))
    assert ours._matched is None
    ious = theirs.ious[found["image_id"], found["category_id"]]
    assert np.isnan(ious).any()
    assert_equal(ours, theirs)


def test_masks_of_another_size_match_nothing():
    dataset, results = scene(3)
    for result in results:
        result["segmentation"] = {"size": [60, 40], "counts": result["segmentation"]["counts"]}
    ours = evaluated(FastCOCOeval, dataset, results, "segm")
    assert ours._matched is not None
    assert_equal(ours, evaluated(COCOeval, dataset, results, "segm"))
    assert ours.stats[0] == 0


EMPTY_RUN = {"size": [40, 60], "counts": [10, 5, 0, 5, 2380]}


def empty_runs(dataset, results):
    rle = mask_util.frPyObjects(EMPTY_RUN, *EMPTY_RUN["size"])
    results[4]["segmentation"] = {**rle, "counts": rle["counts"].decode()}


def empty_runs_of_an_object(dataset, results):
    dataset["annotations"][0]["segmentation"] = EMPTY_RUN


def ids_with_gaps(dataset, results):
    renamed = {1: "one", 2: "b", 3: "three", 4: "-4", 5: "z", 6: "a"}
    for one in (*dataset["annotations"], *results):
        one["image_id"], one["category_id"] = renamed[one["image_id"]], one["category_id"] - 3
    for image in dataset["images"]:
        image["id"] = renamed[image["id"]]
    for kind in dataset["categories"]:
        kind["id"] -= 3


def test_ids_of_any_kind_are_evaluated_by_hotcoco():
    dataset, results = scene(3)
    ids_with_gaps(dataset, results)
    ours = evaluated(FastCOCOeval, dataset, results, "segm", packed=True)
    assert ours._matched is not None
    assert_equal(ours, evaluated(COCOeval, dataset, results, "segm"))


def empty_runs_on_both_sides(dataset, results):
    """pycocotools finds no common pixel in two masks that are the same."""
    counts = {"size": [40, 60], "counts": [1000, 0, 0, 400, 1000]}
    rle = mask_util.frPyObjects(counts, 40, 60)
    first = dataset["annotations"][0]
    first.update(segmentation=counts, iscrowd=0, area=400)
    found = {name: first[name] for name in ("image_id", "category_id")}
    mask = {**rle, "counts": rle["counts"].decode()}
    results.append({**results[0], **found, "segmentation": mask, "score": 0.99})


@pytest.mark.parametrize("change", [empty_runs, empty_runs_of_an_object, empty_runs_on_both_sides])
def test_masks_with_empty_runs_are_left_to_pycocotools(change):
    dataset, results = scene(3)
    change(dataset, results)
    ours = evaluated(FastCOCOeval, dataset, results, "segm", packed=True)
    assert ours._matched is None
    assert_equal(ours, evaluated(COCOeval, dataset, results, "segm"))


def test_boxes_whose_area_overflows_are_left_to_pycocotools():
    dataset, results = scene(3)
    dataset["annotations"][0].update(bbox=[0, 0, 1e160, 1e160], iscrowd=0)
    found = {name: dataset["annotations"][0][name] for name in ("image_id", "category_id", "bbox")}
    results.append({**results[0], **found, "score": 0.3})
    ours, theirs = (evaluated(kind, dataset, results, "bbox") for kind in (FastCOCOeval, COCOeval))
    assert ours._matched is None
    assert_equal(ours, theirs)


def test_recalls_that_are_changed_before_the_accumulation():
    ours, theirs = (evaluated(kind, *scene(3), "bbox") for kind in (FastCOCOeval, COCOeval))
    for one in (ours, theirs):
        one.params.recThrs = np.array([0, 0.25, 0.5])
        one.accumulate()
    assert ours.eval["precision"].shape[1] == 3
    np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"])


def refusal(kind, dataset, results):
    try:
        evaluated(kind, dataset, results, "segm")
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("polygons", [[], [[]], [[1, 2, 9, 9]], [[1, 2]]])
def test_polygons_that_pycocotools_refuses_are_refused(polygons):
    dataset, results = scene(3)
    dataset["annotations"][0].update(segmentation=polygons, iscrowd=0)
    words = refusal(COCOeval, dataset, results)
    assert words is not None and refusal(FastCOCOeval, dataset, results) == words


def the_same_id_twice(dataset, results):
    dataset["annotations"][1]["id"] = dataset["annotations"][0]["id"]


def a_crowd_of_two(dataset, results):
    dataset["annotations"][0]["iscrowd"] = 2


def a_score_that_is_no_number(dataset, results):
    results[4]["score"] = float("nan")


def a_run_too_many(dataset, results):
    # One that pycocotools survives.
    results[4]["segmentation"] = {"size": [40, 60], "counts": [2390, 10, 5]}
    rle = mask_util.frPyObjects(results[4]["segmentation"], 40, 60)
    results[4]["segmentation"] = {**rle, "counts": rle["counts"].decode()}


@pytest.mark.parametrize(
    "spoil",
    [the_same_id_twice, a_crowd_of_two, a_score_that_is_no_number, a_run_too_many],
)
def test_what_is_irregular_is_left_to_pycocotools(spoil):
    dataset, results = scene(3)
    spoil(dataset, results)
    ours = evaluated(FastCOCOeval, dataset, results, "segm", packed=True)
    assert ours._matched is None
    assert_equal(ours, evaluated(COCOeval, dataset, results, "segm"))


def test_without_hotcoco_it_is_pycocotools(monkeypatch):
    monkeypatch.setattr(fast_coco_eval, "optional", lambda name, purpose: None)
    ours = evaluated(FastCOCOeval, *scene(3), "bbox", packed=True)
    assert ours._matched is None
    assert_equal(ours, evaluated(COCOeval, *scene(3), "bbox"))


def test_a_process_forked_from_one_that_has_evaluated_waits_for_no_thread(forked):
    evaluated(FastCOCOeval, *scene(3), "bbox")

    def body(rank):
        ours = evaluated(FastCOCOeval, *scene(3), "bbox")
        return ours._matched is None, ours.stats.tolist()

    (found,) = forked(1, body)
    assert found == (True, evaluated(COCOeval, *scene(3), "bbox").stats.tolist())


@pytest.mark.parametrize("packed", [False, True])
def test_outcomes_by_image_are_made_when_they_are_asked_for(packed):
    ours = evaluated(FastCOCOeval, *scene(3), "segm", packed=packed)
    theirs = evaluated(COCOeval, *scene(3), "segm")
    assert len(ours.evalImgs) == len(theirs.evalImgs)
    for one, other in zip(ours.evalImgs, theirs.evalImgs, strict=True):
        assert repr(one) == repr(other)
    # What was accumulated before is still there.
    assert_equal(ours, theirs)


def test_other_parameters_after_the_evaluation():
    ours, theirs = (evaluated(kind, *scene(3), "bbox") for kind in (FastCOCOeval, COCOeval))
    for evaluation in (ours, theirs):
        with contextlib.redirect_stdout(io.StringIO()):
            fewer = copy.deepcopy(evaluation.params)
            fewer.imgIds, fewer.maxDets = [2, 3], [1, 100]
            evaluation.accumulate(fewer)
    np.testing.assert_array_equal(ours.eval["precision"], theirs.eval["precision"], strict=True)


def test_images_that_are_not_annotated_are_refused_as_by_pycocotools():
    dataset, results = scene(3)
    results[0]["image_id"] = 99
    for packed in (False, True):
        with pytest.raises(AssertionError, match="Results do not correspond to current coco set"):
            evaluated(FastCOCOeval, dataset, results, "bbox", packed=packed)


def test_packing_loses_nothing():
    _, results = scene(3)
    assert list(Detections.pack(results).results()) == results
    boxes = [{k: v for k, v in one.items() if k != "segmentation"} for one in results]
    assert list(Detections.pack(results, ["bbox"]).results()) == boxes
    parts = [Detections.pack(results[:5]), Detections.pack([]), Detections.pack(results[5:])]
    assert list(concatenate(parts).results()) == results
    assert list(concatenate([Detections.pack([])]).results()) == []


def test_one_kernel_reads_the_masks_of_whole_and_of_joined_detections():
    _, results = scene(3)
    whole = Detections.pack(results)
    for found in (whole, concatenate([whole.part(0, 5), whole.part(5, len(results))])):
        assert first_damaged(found.masks) is None
    assert len(run_lengths._compiled().signatures) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda result: result.update(keypoints=[1.0]),
        lambda result: result.pop("segmentation"),
        lambda result: result.update(segmentation=[[1.0, 2, 3, 4, 5, 6]]),
        lambda result: result.update(bbox=[1, 2, 3]),
        lambda result: result.update(score="high"),
        lambda result: result.update(category_id="dog"),
    ],
)
def test_what_arrays_cannot_hold_is_said(change):
    _, results = scene(3)
    change(results[1])
    with pytest.raises(Irregular):
        Detections.pack(results)


def test_boxes_with_and_without_masks_are_no_whole():
    _, results = scene(3)
    with pytest.raises(Irregular):
        concatenate([Detections.pack(results), Detections.pack(results, ["bbox"])])
