"""Metrics in files: what goes in comes out."""

import json

import pytest

from ssl_backbones.evaluation.metrics import flatten, read_metrics, write_classes, write_metrics

NAN = float("nan")
RESULTS = {"bbox": {"AP": 1 / 3, "APl": NAN, "AP-one": NAN, "AP-a/b": 2.0}, "segm": {"AP": 0.5}}


def test_nan_becomes_null(tmp_path):
    write_metrics({"bbox": {"AP": 1.5, "APl": NAN, "AP-one": NAN}}, str(tmp_path / "m.json"))
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "dataset": "",
        "bbox": {"AP": 1.5, "APl": None, "per_class": {"one": None}},
    }


def test_what_was_written_is_read_to_the_last_bit(tmp_path):
    path = str(tmp_path / "m.json")
    write_metrics(RESULTS, path, "some_test", {"images": 3})
    results, facts = read_metrics(path)
    # repr, since NaN equals nothing
    assert repr(results) == repr(RESULTS)
    assert facts == {"dataset": "some_test", "images": 3}


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_what_holds_no_metrics_is_a_value_error(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ValueError):
        read_metrics(str(tmp_path / "m.json"))


def test_a_class_is_a_row(tmp_path):
    write_classes(RESULTS | {"mask": {"AP-a/b": 3.25}}, str(tmp_path / "c.csv"))
    text = (tmp_path / "c.csv").read_text()
    assert text == "class,bbox/AP,mask/AP\none,,\na/b,2.000,3.250\n"


def test_flatten_takes_what_is_no_dict_as_well():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}
