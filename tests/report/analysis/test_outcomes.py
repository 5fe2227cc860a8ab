"""What became of each detection, against pycocotools' own record of it."""

import numpy as np
import pytest
from coco_scenes import coco, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.fast.evaluation.coco_eval import FALSE, IGNORED, TRUE
from ssl_backbones.report.analysis.outcomes import find_outcomes

FEW = settings(max_examples=15, deadline=None)
TASKS = pytest.mark.parametrize("task", ["bbox", "segm"])


def rows(outcomes):
    """Result, class, image id and codes of each detection."""
    kinds = np.repeat(outcomes.category_ids, np.diff(outcomes.starts))
    images = np.array(outcomes.image_ids)[outcomes.images]
    return {
        (int(result), int(kind), int(image), tuple(codes.tolist()))
        for result, kind, image, codes in zip(
            outcomes.results, kinds, images, outcomes.codes, strict=True
        )
    }


def rows_of_pycocotools(evaluation):
    expected = set()
    for one in evaluation.evalImgs:
        if one is None or one["aRng"] != [0, 1e10]:
            continue
        for place, number in enumerate(one["dtIds"]):
            codes = [
                IGNORED if ignored else TRUE if matched else FALSE
                for matched, ignored in zip(
                    one["dtMatches"][:, place], one["dtIgnore"][:, place], strict=True
                )
            ]
            expected.add((number - 1, one["category_id"], one["image_id"], tuple(codes)))
    return expected


@TASKS
@given(
    seed=st.integers(0, 1000), with_hotcoco=st.booleans(), chosen=st.sampled_from([None, [2, 5]])
)
@FEW
def test_outcomes_are_those_of_pycocotools(pycocotools, task, seed, with_hotcoco, chosen):
    dataset, results = scene(seed)
    # As several processes may write them.
    results.sort(key=lambda found: found["image_id"] * 5 % 7)
    with pytest.MonkeyPatch.context() as patch:
        if not with_hotcoco:
            name = "ssl_backbones.fast.evaluation.coco_eval.hotcoco_or_none"
            patch.setattr(name, lambda: None)
        outcomes = find_outcomes(coco(dataset), results, task, chosen)
    evaluation = pycocotools(dataset, results, task, chosen)
    expected = rows_of_pycocotools(evaluation)
    assert rows(outcomes) == expected and len(outcomes.scores) == len(expected) > 0
    assert outcomes.image_ids == (chosen or [1, 2, 3, 4, 5, 6])


@TASKS
def test_everything_occurs(task):
    # Were one of the codes missing, the comparison above would say less.
    assert set(np.unique(find_outcomes(coco(scene(3)[0]), scene(3)[1], task).codes)) == {0, 1, 2}


def test_the_order_is_that_of_classes_and_scores():
    dataset, results = scene(3)
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    assert outcomes.category_ids == [1, 2, 3]
    for start, end in zip(outcomes.starts, outcomes.starts[1:], strict=False):
        own = outcomes.results[start:end]
        assert (np.diff(outcomes.scores[start:end]) <= 0).all()
        np.testing.assert_array_equal(
            [results[i]["score"] for i in own], outcomes.scores[start:end]
        )
    assert outcomes.starts[0] == 0 and outcomes.starts[-1] == len(results)


def test_a_hundred_detections_of_an_image_and_class_count():
    dataset, results = scene(3)
    results = [{**results[0], "score": 1 - n / 1000} for n in range(130)]
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    assert sorted(outcomes.results) == list(range(100))


def test_objects_to_be_found_by_class_and_image():
    dataset, _ = scene(3)
    expected = np.zeros((3, 6))
    for found in dataset["annotations"]:
        expected[found["category_id"] - 1, found["image_id"] - 1] += not found["iscrowd"]
    np.testing.assert_array_equal(find_outcomes(coco(dataset), [], "segm").objects, expected)
    assert any(found["iscrowd"] for found in dataset["annotations"])


@TASKS
def test_a_detector_that_found_nothing(task):
    outcomes = find_outcomes(coco(scene(3)[0]), [], task)
    assert outcomes.codes.shape == (0, 10) and outcomes.starts.tolist() == [0, 0, 0, 0]


def test_ids_are_numbers_of_python_and_may_be_text():
    dataset, results = scene(3)
    for one in (*dataset["annotations"], *results):
        one["image_id"] = f"image {one['image_id']}"
    for image in dataset["images"]:
        image["id"] = f"image {image['id']}"
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    assert {type(one) for one in outcomes.image_ids} == {str}
    assert {type(one) for one in outcomes.category_ids} == {int}
    numbered = find_outcomes(coco(scene(3)[0]), scene(3)[1], "bbox")
    np.testing.assert_array_equal(outcomes.codes, numbered.codes)
