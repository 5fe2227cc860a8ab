"""What is said of a metric, from intervals made by hand."""

import pytest

from ssl_backbones.report.analysis.bootstrap import Resampled
from ssl_backbones.report.analysis.findings import Interval
from ssl_backbones.report.comparing.verdicts import format_verdict, verdicts
from ssl_backbones.report.content import Deviation, RunContent

VALUE = Interval(50, 48, 52)
COMPARED = {"bbox": "", "segm": ""}
ENOUGH = {"images": 30, "resamples": 100}


def resampled(difference, share=0.5):
    return {"bbox": Resampled({"AP": VALUE}, {"AP": difference}, {"AP": share})}


def verdict(difference, reasons=COMPARED, enough=ENOUGH, **run):
    run = RunContent("run", "run", metrics={"bbox/AP": 50.0}, **run)
    return verdicts(run, resampled(difference), reasons, **enough)["bbox/AP"]


@pytest.mark.parametrize(
    ("difference", "word"),
    [
        (Interval(1, 0.1, 2), "higher"),
        (Interval(-1, -2, -0.1), "lower"),
        (Interval(1, -0.1, 2), "no difference shown"),
        (Interval(1, 0, 2), "no difference shown"),
        (Interval(-1, -2, 0), "no difference shown"),
        (Interval(0, 0, 0), "no difference shown"),
        (None, "the reference"),
    ],
)
def test_a_difference_is_shown_where_the_interval_is_on_one_side_of_0(difference, word):
    found = verdict(difference)
    assert (found.value, found.interval, found.difference) == (50, VALUE, difference)
    assert found.word == format_verdict(found) == word


@pytest.mark.parametrize("difference", [Interval(2, 1, 3), Interval(-2, -3, -1), Interval(0, 0, 0)])
@pytest.mark.parametrize(
    ("enough", "word"),
    [
        ({"images": 29, "resamples": 100}, "too few images to say"),
        ({"images": 30, "resamples": 99}, "too few resamples to say"),
        ({"images": 1, "resamples": 1}, "too few images to say"),
    ],
)
def test_of_too_little_nothing_is_said_but_the_interval(difference, enough, word):
    found = verdict(difference, enough=enough)
    assert found.word == format_verdict(found) == word
    assert (found.interval, found.difference) == (VALUE, difference)
    assert verdict(None, enough=enough).word == "the reference"


def test_what_is_not_compared_has_no_difference():
    found = verdict(Interval(9, 8, 10), {"bbox": "other test images", "segm": ""})
    assert (found.difference, found.share_higher) == (None, None)
    assert found.interval == VALUE
    assert format_verdict(found) == "not compared: other test images"


def test_without_objects_there_is_nothing_to_compare():
    nothing = {"bbox": Resampled({"AP": None}, {"AP": None}, {"AP": None})}
    run = RunContent("run", "run", metrics={"bbox/AP": None})
    found = verdicts(run, nothing, COMPARED, **ENOUGH)["bbox/AP"]
    assert (found.value, found.interval) == (None, None)
    assert format_verdict(found) == "not compared: no objects to find"


def test_of_a_metric_that_the_run_has_not_nothing_is_said():
    assert verdicts(RunContent("run", "run"), resampled(None), COMPARED, **ENOUGH) == {}


def test_the_published_number_and_why_it_is_not_of_the_same():
    run = {
        "published_recipe": "swav_ms2x",
        "dataset": "coco_2017_val",
        "record": {"recipe": {"train.max_iter": 180_000}},
        "curves": {"lr": [(179_999, 0.0002)]},
    }
    found = verdict(None, **run)
    assert (found.published, found.published_note) == (41.3, "")
    assert found.published_source == (
        "MMDetection configs/selfsup_pretrain, mask-rcnn_r50-swav-pre_fpn_ms-2x_coco, COCO val2017"
    )
    deviations = [Deviation("optimizer.lr", 0.02, 0.01)]
    found = verdict(None, deviations=deviations, **run)
    assert found.published_note == "not the same recipe: 1 field differs"
    assert verdict(None).published is None and verdict(None).published_source == ""
