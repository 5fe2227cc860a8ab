"""What came out of a comparison: real run folders in miniature, numbers against pycocotools."""

import math
import re

import pytest
from run_folders import average_precisions, detections, truth_of, write_run

from ssl_backbones.data.digits.digits_dataset import write_digits
from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.metrics import write_metrics
from ssl_backbones.report.page.comparison_page import format_comparison_page
from ssl_backbones.report.reading.ground_truth import GroundTruths
from ssl_backbones.studies.comparison import compare, sentences, tables

FOUND = {"good": 0.9, "good-shuffled": 0.3, "twin": 0.9}


@pytest.fixture(scope="module")
def truths(module_folder):
    write_digits(module_folder / "digits", num_train=1, num_test=40, size=64, seed=0)
    annotations = module_folder / "digits" / "annotations" / "test.json"
    return GroundTruths(annotations, module_folder / "digits" / "test")


@pytest.fixture(scope="module")
def truth(truths, module_folder):
    return truth_of(module_folder / "digits")


@pytest.fixture(scope="module")
def folders(truth, module_folder):
    """Of three arms with three seeds; the third finds what the first does with each seed."""
    made = {}
    for arm, share in FOUND.items():
        for seed in range(3):
            folder = module_folder / "cells" / f"{arm}_{seed}"
            write_run(folder, truth, detections(truth, found=share, seed=seed))
            made[arm, seed] = folder
    return made


@pytest.fixture(scope="module")
def found(folders, truths):
    return compare(folders, {"good-shuffled": "good"}, truths=truths, resamples=100)


def test_values_are_pycocotools(found, truth):
    assert (found.arms, found.seeds, found.images) == (list(FOUND), [0, 1, 2], 40)
    for task, of_task in found.tasks.items():
        for i, share in enumerate(FOUND.values()):
            for seed in range(3):
                expected = average_precisions(
                    truth, detections(truth, found=share, seed=seed), task
                )
                assert of_task.values[i, seed] == pytest.approx(expected["AP"], abs=1e-9)
            low, high = of_task.intervals[i]
            assert low < of_task.values[i].mean() < high


def test_what_is_far_apart_is_told_apart_and_what_is_equal_is_not(found):
    pairs = {(pair.first, pair.second): pair for pair in found.tasks["bbox"].pairs}
    assert len(pairs) == 3
    assert pairs["good", "good-shuffled"].verdict == "better"
    assert pairs["good-shuffled", "twin"].verdict == "worse"
    same = pairs["good", "twin"]
    assert same.value == 0 and same.verdict == "not told apart"


def test_sentences_and_tables_say_it(found):
    told = sentences(found)
    assert len(told) == 3 * 2 + 1
    assert told[0].startswith("box AP: good is better than good-shuffled (+")
    assert (
        told[-1]
        == "The control good-shuffled is told to be worse than good, by box AP and mask AP."
    )
    arms, pairs, metrics = tables(found)
    assert len(arms.rows) == 6 and len(pairs.rows) == 6
    assert arms.rows[0][0] == "good" and arms.rows[0][4].count(",") == 2
    assert ("box AP50" in {row[0] for row in metrics.rows}) and metrics.columns[1:] == tuple(FOUND)


def test_the_page_says_it_and_loads_nothing(found):
    told = sentences(found)
    page = format_comparison_page("<street>", {"arms": "3"}, told, tables(found), found.runs)
    for sentence in told:
        assert f"<li>{sentence}</li>" in page
    assert "&lt;street&gt;" in page and "<street>" not in page
    # A curve for each arm in the panel of the loss, and everything within the file.
    assert page.count("<svg") > 2 and "total loss" in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)


def test_a_control_that_is_not_seen_is_said(folders, truths):
    two = {key: folder for key, folder in folders.items() if key[0] in ("good", "twin")}
    found = compare(two, {"twin": "good"}, truths=truths, resamples=50)
    assert "says nothing of smaller differences" in sentences(found)[-1]


def test_a_control_that_is_better_than_what_it_controls_is_said(folders, truths):
    found = compare(folders, {"good": "good-shuffled"}, truths=truths, resamples=50)
    assert sentences(found)[-1].startswith(
        "The control good is told to be better than good-shuffled, by box AP and mask AP: what those "
    )


def test_a_seed_that_an_arm_lacks_counts_for_none(folders, truths):
    some = {key: folder for key, folder in folders.items() if key != ("twin", 1)}
    found = compare(some, {}, truths=truths, resamples=20)
    assert found.seeds == [0, 2] and not found.tasks["bbox"].pairs
    assert sentences(found) == ["No verdict: 2 of at least 3 seeds are done with every arm."]
    assert len(tables(found)) == 2
    alone = {key: folder for key, folder in folders.items() if key[0] == "good"}
    assert sentences(compare(alone, {}, truths=truths, resamples=20)) == [
        "No verdict: one arm alone is done."
    ]
    none = {key: f for key, f in folders.items() if key[1] == (0 if key[0] == "good" else 1)}
    with pytest.raises(InputError, match="no seed is done with every arm"):
        compare(none, {}, truths=truths)


def test_a_run_that_found_nothing_counts_as_0_and_takes_no_task_away(
    folders, truths, truth, tmp_path
):
    write_run(tmp_path / "run", truth, detections(truth))
    inference = tmp_path / "run" / "inference"
    (inference / "coco_instances_results.json").write_text("[]")
    facts = {"images": 40, "images_in_dataset": 40, "fingerprint": "f" * 64}
    metrics = {"bbox": dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), math.nan)}
    write_metrics(metrics, str(inference / "metrics.json"), "digits_test", facts)
    found = compare({**folders, ("twin", 0): tmp_path / "run"}, {}, truths=truths, resamples=20)
    assert list(found.tasks) == ["bbox", "segm"]
    assert found.tasks["segm"].values[2, 0] == 0


def test_runs_of_two_recipes_are_not_compared(folders, truths, truth, tmp_path):
    write_run(tmp_path / "run", truth, detections(truth), "optimizer.lr=0.03")
    with pytest.raises(InputError, match=r"of another recipe than .*: optimizer\.lr differs"):
        compare({**folders, ("twin", 0): tmp_path / "run"}, {}, truths=truths)


def test_a_folder_without_detections_is_named(folders, truths, tmp_path, truth):
    write_run(tmp_path / "run", truth, detections(truth))
    (tmp_path / "run" / "inference" / "coco_instances_results.json").unlink()
    with pytest.raises(InputError, match="has no detections: remove it"):
        compare({**folders, ("good", 0): tmp_path / "run"}, {}, truths=truths)
