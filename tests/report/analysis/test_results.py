"""Results that COCO's code could not stand are refused in one line."""

import re
import subprocess
import sys
from pathlib import Path

import coco_scenes
import numpy as np
import pytest
from coco_scenes import coco, scene

from ssl_backbones.errors import InputError
from ssl_backbones.report.analysis.outcomes import find_outcomes
from ssl_backbones.report.analysis.results import check_results

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
        (BOX, {"score": 10**400}, "score or a category that is no number"),
        (BOX, {"bbox": [1, 2, 3]}, "box that is not four numbers"),
        (BOX, {"bbox": [1, 2, 3, None]}, "box that is not four numbers"),
        (BOX, {"bbox": [1, 2, 3, float("inf")]}, "box that is not four numbers"),
        (MASK, {"segmentation": [[1, 2, 3, 4, 5, 6]]}, "mask that is no compressed RLE"),
        (MASK, {"segmentation": {"size": [40, 60]}}, "mask that is no compressed RLE"),
        (MASK, {"segmentation": {"size": [0, 60], "counts": "00"}}, "no compressed RLE"),
        (MASK, {"segmentation": {"size": [40], "counts": "00"}}, "no compressed RLE"),
        (MASK, {"segmentation": {"size": [2**16, 2**16], "counts": "00"}}, "no compressed RLE"),
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


@pytest.mark.parametrize("counts", ["", "\u00e9", "\ud800", [2400], None])
def test_counts_that_are_no_text_of_characters_are_refused(counts):
    dataset, results = scene(3)
    results[4]["segmentation"] = {"size": [40, 60], "counts": counts}
    with pytest.raises(InputError, match="detection 5 of 60 has a mask that is no compressed RLE"):
        find_outcomes(coco(dataset), results, MASK)


@pytest.mark.parametrize("counts", ["0Xo0", "0P[2P", "not a mask!", "00", "oooooooooooooooo"])
def test_a_mask_that_does_not_fill_its_image_is_refused(counts):
    dataset, results = scene(3)
    results[4]["segmentation"]["counts"] = counts
    words = "detection 5 of 60 has a mask whose runs do not fill its 40 x 60 pixels"
    with pytest.raises(InputError, match=words):
        check_results(coco(dataset), results, MASK)
    # Nothing looks at masks where boxes are compared.
    assert len(find_outcomes(coco(dataset), results, BOX).scores) == 60


HANGING = """
from coco_scenes import coco, scene
from ssl_backbones.errors import InputError
from ssl_backbones.report.analysis.analysis import examine

dataset, results = scene(3)
for found in results:
    # Runs of 0 and 1000 pixels, and 1400 that are not there.
    found["segmentation"]["counts"] = "0Xo0"
try:
    examine(coco(dataset), results, "segm", min_score=0.5, class_names={})
except InputError as error:
    print(error)
"""


def test_masks_that_pycocotools_compares_without_end_are_refused():
    # Only a process of its own can be ended within pycocotools.
    command = [sys.executable, "-c", HANGING]
    folder = Path(coco_scenes.__file__).parent
    ran = subprocess.run(
        command, cwd=folder, timeout=100, capture_output=True, text=True, check=True
    )
    assert "detection 1 of 60 has a mask whose runs do not fill" in ran.stdout


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ({"size": [40, 60], "counts": [0, 1000]}, "whose runs do not fill its 40 x 60 pixels"),
        ({"size": [40, 60], "counts": "0Xo0"}, "whose runs do not fill its 40 x 60 pixels"),
        ({"size": [40, 60], "counts": [-100, 2500]}, "that is neither polygons nor an RLE"),
        ({"size": [40, 60], "counts": ""}, "that is neither polygons nor an RLE"),
        ({"size": [40, 0], "counts": []}, "that is neither polygons nor an RLE"),
        ({"size": [2**16, 2**16], "counts": [2**32]}, "that is neither polygons nor an RLE"),
        ({"counts": [2400]}, "that is neither polygons nor an RLE"),
        (None, "that is neither polygons nor an RLE"),
        ([], "that is neither polygons nor an RLE"),
        ([1, 2, 3, 4, 5, 6], "that is neither polygons nor an RLE"),
        ([[1, 2, 3, 4]], "that is neither polygons nor an RLE"),
        ([[1, 2, 3, 4, 5, float("nan")]], "that is neither polygons nor an RLE"),
        ([["dog"] * 6], "that is neither polygons nor an RLE"),
        ([[[1]] * 3 + [2] * 3], "that is neither polygons nor an RLE"),
    ],
)
def test_a_damaged_mask_of_an_object_is_refused(mask, words):
    dataset, results = scene(3)
    dataset["annotations"][2]["segmentation"] = mask
    with pytest.raises(InputError, match=f"object 3 of the annotations has a mask {words}"):
        check_results(coco(dataset), results, MASK)
    find_outcomes(coco(dataset), results, BOX)


@pytest.mark.parametrize("counts", [[2400], [0, 2400], "0P[2"])
def test_a_mask_of_an_object_may_be_either_rle(counts):
    dataset, results = scene(3)
    dataset["annotations"][2]["segmentation"] = {"size": [40, 60], "counts": counts}
    check_results(coco(dataset), results, MASK)


def test_runs_are_compared_with_the_same_annotations_one_after_another(monkeypatch):
    # Without hotcoco, pycocotools replaces the masks of objects by what it made of them.
    name = "ssl_backbones.fast.evaluation.coco_eval.hotcoco_or_none"
    monkeypatch.setattr(name, lambda: None)
    dataset, results = scene(3)
    truth = coco(dataset)
    first, second = (find_outcomes(truth, results, MASK) for _ in range(2))
    assert truth.dataset["annotations"] != dataset["annotations"]
    np.testing.assert_array_equal(first.codes, second.codes)


@pytest.mark.parametrize("kind", ["1", 1.5, None])
@pytest.mark.parametrize("where", ["annotations", "categories"])
def test_a_category_of_the_annotations_that_is_no_integer_is_refused(where, kind):
    dataset, results = scene(3)
    dataset[where][0]["category_id" if where == "annotations" else "id"] = kind
    words = re.escape(f"the category id {kind!r} of the annotations is no integer")
    with pytest.raises(InputError, match=words):
        find_outcomes(coco(dataset), results, BOX)


@pytest.mark.parametrize("task", [BOX, MASK])
def test_ids_of_images_that_are_partly_text_are_refused(task):
    dataset, results = scene(3)
    dataset["images"][2]["id"] = "3"
    with pytest.raises(InputError, match="images are neither all numbers nor all texts"):
        find_outcomes(coco(dataset), [r for r in results if r["image_id"] != 3], task)
