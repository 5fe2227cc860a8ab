"""TIDE's errors against TIDE's own library, and by hand."""

import json

import numpy as np
import pytest
import tide_reference
from coco_scenes import coco, scene

from ssl_backbones.report.analysis.error_types import TYPES, find_scene_errors, summarize_errors
from ssl_backbones.report.analysis.scenes import Scene, scenes

RECORD = json.loads(tide_reference.FILE.read_text())
TASKS = pytest.mark.parametrize("task", ["bbox", "segm"])


def assert_equal(dataset, results, task, tide):
    truth = coco(dataset)
    classes = sorted(truth.cats)
    whole = list(scenes(truth, results, task, sorted(truth.imgs), classes))
    summaries = summarize_errors(whole, len(classes))
    for name, gain in tide["gains"].items():
        assert summaries[name].gain == pytest.approx(gain, abs=1e-9), name
    assert {name: summaries[name].count for name in tide["counts"]} == tide["counts"]
    types, missed = one_by_one(whole)
    assert [types.get(place) for place in range(len(results))] == tide["types"]
    assert sorted(missed) == tide["missed"]


def one_by_one(whole):
    """The type of each detection that is an error, by its place among the results; the missed objects."""
    types, missed = {}, []
    for one in whole:
        errors = find_scene_errors(one)
        for place, kind in zip(one.results.tolist(), errors.types.tolist(), strict=True):
            if kind >= 0:
                types[place] = TYPES[kind]
        missed += [one.objects[place] for place in np.flatnonzero(errors.missed)]
    return types, missed


@TASKS
@pytest.mark.parametrize("number", range(len(RECORD["scenes"])))
def test_the_numbers_that_tidecv_gave(task, number):
    made = RECORD["scenes"][number]
    assert_equal(made["dataset"], made["results"], task, made["tide"][task])


def test_the_record_is_of_the_whole_definition():
    tides = [made["tide"][task] for made in RECORD["scenes"] for task in ("bbox", "segm")]
    for name in (*TYPES, "Miss"):
        assert any(tide["counts"][name] and tide["gains"][name] > 0 for tide in tides), name
    assert any(
        one["iscrowd"] for made in RECORD["scenes"] for one in made["dataset"]["annotations"]
    )


@TASKS
@pytest.mark.parametrize("make", [scene, tide_reference.confused_scene])
def test_the_numbers_that_tidecv_gives(task, make):
    pytest.importorskip("tidecv")
    for seed in range(20):
        dataset, results = make(seed)
        tide = tide_reference.tide_numbers(dataset, results, task)
        assert_equal(dataset, results, task, tide)


def by_hand(ious, kinds, object_kinds):
    """A scene with these IoUs, its detections in the order of their scores."""
    count = len(kinds)
    return Scene(
        image=0,
        results=np.arange(count),
        scores=np.linspace(0.9, 0.1, count),
        kinds=np.array(kinds),
        objects=[10 + n for n in range(len(object_kinds))],
        object_kinds=np.array(object_kinds),
        ious=np.array(ious, float).reshape(count, len(object_kinds)),
        in_crowd=np.zeros(count, bool),
    )


# Two objects, of the classes 0 and 1. The first detection finds the first object.
@pytest.mark.parametrize(
    ("ious", "kind", "name", "is_missed"),
    [
        ([0.0, 0.6], 0, "Cls", False),
        ([0.0, 0.3], 1, "Loc", False),
        # Not even near enough to be mended.
        ([0.0, 0.3], 0, "Both", True),
        ([0.7, 0.0], 0, "Dupe", True),
        ([0.05, 0.1], 0, "Bkg", True),
        ([0.0, 0.1], 1, "Loc", False),
        # What is badly placed on an object that was found mends nothing.
        ([0.4, 0.0], 0, "Loc", True),
        ([0.6, 0.0], 1, "Cls", True),
    ],
)
def test_one_error_of_each_type(ious, kind, name, is_missed):
    errors = find_scene_errors(by_hand([[0.8, 0.0], ious], [0, kind], [0, 1]))
    assert errors.matches.tolist() == [0, -1]
    assert errors.types.tolist() == [-1, TYPES.index(name)]
    assert errors.missed.tolist() == [False, is_missed]


def test_only_the_best_detection_of_an_object_is_mended():
    errors = find_scene_errors(by_hand([[0.3], [0.4], [0.6]], [0, 0, 1], [0]))
    assert [TYPES[kind] for kind in errors.types] == ["Loc", "Loc", "Cls"]
    assert errors.mended.tolist() == [0, -1, -1]
    assert not errors.missed.any()


def test_gains_by_hand():
    # Of four objects of one class two are found, at ranks 1 and 3: precision is 1 up to recall 0.25, then
    # 2/3 up to 0.5. On 101 recalls: 26 times 1, 25 times 2/3.
    scene = by_hand(
        [[0.9, 0, 0, 0], [0, 0, 0, 0], [0, 0.9, 0, 0], [0, 0, 0.3, 0]], [0, 0, 0, 0], [0, 0, 0, 0]
    )
    before = 26 + 25 * 2 / 3
    found = summarize_errors([scene], 1)
    gains = {name: summary.gain * 1.01 for name, summary in found.items()}
    # Without the false one at rank 2, precision is 1 up to 0.5.
    assert gains["Bkg"] == pytest.approx(51 - before)
    # The one that is badly placed finds the third object at rank 4, where precision is 3/4.
    assert gains["Loc"] == pytest.approx(26 + 50 * 3 / 4 - before)
    # Were the missed fourth object not there, recall would reach 2/3 in steps of 1/3.
    assert gains["Miss"] == pytest.approx(34 + 33 * 2 / 3 - before)
    assert gains["FalsePos"] == pytest.approx(51 - before)
    assert gains["FalseNeg"] == pytest.approx(51 + 50 * 2 / 3 - before)
    assert gains["Cls"] == gains["Both"] == gains["Dupe"] == 0
    counts = {name: summary.count for name, summary in found.items()}
    assert counts == {"Cls": 0, "Loc": 1, "Both": 0, "Dupe": 0, "Bkg": 1, "Miss": 1} | {
        "FalsePos": 2,
        "FalseNeg": 2,
    }
    assert one_by_one([scene]) == ({1: "Bkg", 3: "Loc"}, [13])


def test_what_lies_in_a_crowd_is_no_false_positive():
    scene = by_hand([[0.9], [0.0], [0.0]], [0, 0, 0], [0])
    scene = scene._replace(in_crowd=np.array([True, True, False]))
    found = summarize_errors([scene], 1)
    assert found["FalsePos"].count == 1
    # TIDE still counts it among the errors, though it costs nothing.
    assert found["Bkg"].count == 2


def test_nothing_there_and_nothing_found_costs_nothing():
    assert all(summary == (0, 0) for summary in map(tuple_of, summarize_errors([], 3).values()))


def tuple_of(summary):
    return summary.count, summary.gain
