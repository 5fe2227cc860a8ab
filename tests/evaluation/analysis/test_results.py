"""Results that COCO's code could not stand are refused in one line."""

import pytest
from coco_scenes import coco, scene

from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.analysis.outcomes import find_outcomes
from ssl_backbones.evaluation.analysis.results import check_results

BOX, MASK = "bbox", "segm"


@pytest.mark.parametrize("task", [BOX, MASK])
def test_usual_results_pass(task):
    dataset, results = scene(3)
    check_results(coco(dataset), results, task)


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        (BOX, {"image_id": 99}, "the image 99, which is not annotated"),
        (BOX, {"image_id": []}, r"the image \[\], which is not annotated"),
        (BOX, {"score": "high"}, "score or a category that is no number"),
        (BOX, {"score": float("nan")}, "score or a category that is no number"),
        (BOX, {"category_id": "dog"}, "score or a category that is no number"),
        (BOX, {"bbox": [1, 2, 3]}, "box that is not four numbers"),
        (BOX, {"bbox": [1, 2, 3, None]}, "box that is not four numbers"),
        (BOX, {"bbox": [1, 2, 3, float("inf")]}, "box that is not four numbers"),
        (MASK, {"segmentation": [[1, 2, 3, 4, 5, 6]]}, "mask that is no compressed RLE"),
        (MASK, {"segmentation": {"size": [40, 60]}}, "mask that is no compressed RLE"),
        (MASK, {"segmentation": {"size": [0, 60], "counts": "00"}}, "no compressed RLE"),
        (MASK, {"segmentation": {"size": [40], "counts": "00"}}, "no compressed RLE"),
    ],
)
def test_a_detection_that_is_none_is_refused(task, change, words):
    dataset, results = scene(3)
    results[4] |= change
    with pytest.raises(InputError, match=f"detection 5 of 60 .*{words}"):
        find_outcomes(coco(dataset), results, task)


@pytest.mark.parametrize("name", ["image_id", "category_id", "score", "segmentation"])
def test_a_detection_that_lacks_something_is_refused(name):
    dataset, results = scene(3)
    del results[0][name]
    with pytest.raises(InputError, match=f"detection 1 of 60 has no {name}"):
        find_outcomes(coco(dataset), results, MASK)


def test_what_is_no_list_of_detections_is_refused():
    truth = coco(scene(3)[0])
    with pytest.raises(InputError, match="no list of detections"):
        find_outcomes(truth, {"annotations": []}, BOX)
    with pytest.raises(InputError, match="detection 1 of 1 is none"):
        find_outcomes(truth, ["dog"], BOX)


@pytest.mark.parametrize("name", ["area", "bbox", "segmentation"])
def test_an_object_that_lacks_something_is_refused(name):
    dataset, results = scene(3)
    del dataset["annotations"][0][name]
    truth = coco(dataset)
    with pytest.raises(InputError, match=f"object 1 of the annotations has no {name}"):
        find_outcomes(truth, results, MASK)


@pytest.mark.parametrize("part", ["images", "annotations", "categories"])
def test_annotations_that_are_none_are_refused(part):
    dataset, results = scene(3)
    truth = coco(dataset)
    del truth.dataset[part]
    with pytest.raises(InputError, match=f"not COCO's: they have no {part}"):
        find_outcomes(truth, results, BOX)


@pytest.mark.parametrize("counts", ["", "not a mask!", "\u00e9", "00", "oooooooooooooooo"])
def test_a_mask_of_nonsense_is_no_crash(counts):
    dataset, results = scene(3)
    results[4]["segmentation"] = {"size": [40, 60], "counts": counts}
    assert len(find_outcomes(coco(dataset), results, MASK).scores) == 60
