"""Which of two runs can be compared, and what is said of those that cannot."""

import pytest

from ssl_backbones.report.comparing import building as tested
from ssl_backbones.report.content import RunContent


def run(name="run", evaluation="inference", facts=(), outcomes=("bbox",), **content):
    of = RunContent(name, name, evaluation=evaluation, facts=dict(facts))
    return tested.Tested(of, outcomes=dict.fromkeys(outcomes), **content)


FIRST = run("first")
AUGMENTED = {"test_time_augmentation": "shorter side 400"}


@pytest.mark.parametrize(
    ("other", "first", "reason"),
    [
        (run(), FIRST, ""),
        (run(outcomes=()), FIRST, "no usable detections"),
        (run(), run("first", outcomes=("segm",)), "first has no usable detections"),
        (run(of_others={"bbox"}), FIRST, "its numbers are not of its detections"),
        (
            run(),
            run("first", of_others={"bbox"}),
            "the numbers of first are not of its detections",
        ),
        (run(of_others={"segm"}), FIRST, ""),
        (run(image_ids=[1]), FIRST, "other test images"),
        (run(evaluation="inference_ema"), FIRST, "another kind of evaluation"),
        (run(facts=AUGMENTED), FIRST, "another kind of evaluation"),
        (run(facts=AUGMENTED), run("first", facts=AUGMENTED), ""),
        (run(facts={"test_time_augmentation": "none"}), FIRST, ""),
    ],
)
def test_why_a_run_is_not_compared(other, first, reason):
    assert tested.why_not_compared(other, first, "bbox") == reason


def test_of_runs_without_a_test_set_nothing_is_said():
    assert tested.set_apart([FIRST, run(facts=AUGMENTED)]) == []
