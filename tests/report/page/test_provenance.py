"""What a record says of weights and machine, whole, odd and empty."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_report import RECORD

from ssl_backbones.report.page import page_tables as provenance


def test_the_proof_is_told_with_its_controls():
    proof = provenance.proof_of(RECORD)
    assert proof.stages == [("res2", "2.8e-15", "0")]
    assert proof.tolerances == ("1e-10", "1e-05")
    assert proof.controls == [
        ("BGR statistics", "0.94"),
        ("stride in the 1x1", "0.79"),
        ("the file's other network", "0.81"),
    ]
    assert proof.margin == "7.3e+04"


def test_weights_environment_and_starts():
    rows = dict(provenance.weights_rows(RECORD))
    assert rows["method"] == "moco" and rows["architecture"] == "resnet50"
    assert rows["input: pixel mean"] == "123.675, 116.28, 103.53"
    packaged = {"weights": {"package": "imgsim 0.1.2: imgsim/model.pth", "license": "MIT"}}
    assert provenance.weights_rows(packaged) == [
        ("published in", "imgsim 0.1.2: imgsim/model.pth"),
        ("licence", "MIT"),
    ]
    machine = dict(provenance.environment_rows(RECORD))
    assert machine["torch"] == "2.14.1" and machine["GPUs"] == "none"
    code = machine["code of ssl_backbones"]
    assert code == "commit ab3181a with changes that are not committed"
    assert provenance.packages(RECORD) == "torch==2.14.1\nnumpy==2.4.6"
    first, second = provenance.starts(RECORD)
    assert first[:3] == ("2026-11-25", "0", "vm") and first[3].startswith("train '<script>")
    assert second == ("2026-11-26", "400", "vm", "train")


def all_of(record):
    return [
        provenance.weights_rows(record),
        provenance.proof_of(record),
        provenance.environment_rows(record),
        provenance.packages(record),
        provenance.starts(record),
        provenance.command_line(record),
    ]


def test_nothing_is_known_of_an_empty_record():
    assert all_of({}) == [[], None, [], "", [], ""]


def paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


# The reader of run folders sees to it that the outermost are what they should be.
INNER = [path for path in paths(RECORD) if len(path) > 1]


@given(st.sampled_from(INNER), st.sampled_from([None, 3, "x", [1], {}, {"a": [{}]}, True]))
def test_odd_values_are_shown_or_left_out_but_raise_nothing(path, value):
    record = copy.deepcopy(RECORD)
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    json.dumps([rows for rows in all_of(record) if isinstance(rows, list | str)])


@pytest.mark.parametrize("starts", [[], [{}]])
def test_starts_that_say_nothing(starts):
    expected = [("not recorded", "not recorded", "not recorded", "")] if starts else []
    assert provenance.starts({"starts": starts}) == expected
