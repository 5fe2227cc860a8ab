"""Annotation files: the same records, metadata, log and errors as Detectron2's own function gives."""

from __future__ import annotations

import gc
import itertools
import json
import logging
from pathlib import Path

import pytest
from coco_files import contents, plain, written
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json as stock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_backbones.fast.acceleration import WITHOUT, optional
from ssl_backbones.fast.annotations import coco_json
from ssl_backbones.fast.annotations.coco_json import load_coco_json, parse_json, read_records

_names = itertools.count()


class Outcome:
    """All that a reader leaves behind: what it returned or raised, set and logged."""

    def __init__(self, reader, path: Path, name: str = "set", root="images", **more):
        name = f"{name}_{next(_names)}"
        messages = logging.Handler(logging.WARNING)
        lines = []
        messages.emit = lambda record: lines.append((record.name, record.getMessage().strip()))
        logger = logging.getLogger("detectron2")
        logger.addHandler(messages)
        try:
            self.returned = reader(str(path), root, name, **more)
        except Exception as error:
            self.returned = type(error), str(error)
        finally:
            logger.removeHandler(messages)
        self.lines = [(who, " ".join(line.split())) for who, line in lines]
        self.metadata = {
            k: v for k, v in MetadataCatalog.get(name).as_dict().items() if k != "name"
        }
        MetadataCatalog.remove(name)

    def __eq__(self, other: Outcome) -> bool:
        # As text, 1 and 1.0 differ, and so does the order of keys.
        return all(repr(vars(self)[key]) == repr(vars(other)[key]) for key in vars(self))

    def __repr__(self) -> str:
        return f"{self.returned} {self.lines} {self.metadata}"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=contents())
def test_any_file_gives_what_detectron2_makes_of_it(tmp_path, content):
    path = written(tmp_path / "some.json", content)
    assert Outcome(load_coco_json, path) == Outcome(stock, path)
    read_records(str(path), "images")  # by the fast way: nothing in it is unusual


def changed(**changes) -> dict:
    """The plain file with the first of its annotations changed."""
    content = plain()
    content["annotations"][0].update(changes)
    return content


def without(*place: str | int) -> dict:
    """The plain file with one thing taken out."""
    content = inner = plain()
    *way, last = place
    for key in way:
        inner = inner[key]
    del inner[last]
    return content


UNUSUAL = {
    "keypoints": changed(keypoints=[1, 2, 2]),
    "null for keypoints": changed(keypoints=None),
    "ignored": changed(ignore=1),
    "an empty box": changed(bbox=[]),
    "no box at all": changed(bbox=None),
    "an unknown category": changed(category_id=99),
    "an id twice": changed(id=2),
    "an odd id": changed(id="x"),
    "run lengths without counts": changed(segmentation={"size": [4, 3]}),
    "a polygon of nothing": changed(segmentation=[1, 2]),
    "a number that is no JSON": changed(bbox=[float("nan"), 1, 1, 1]),
    "categories by name": {**plain(), "categories": [{"id": "a", "name": "a"}]},
    "a category twice": {
        **plain(),
        "categories": [{"id": 3, "name": "other"}, *plain()["categories"]],
    },
    "no categories": {**plain(), "categories": []},
    "a list": [1],
    "images of two kinds of id": {**plain(), "images": [*plain()["images"], {"id": "a"}]},
    **{
        f"without {place}": without(*place)
        for place in (
            ("images",),
            ("annotations",),
            ("categories",),
            ("images", 0, "id"),
            ("images", 0, "width"),
            ("images", 0, "file_name"),
            ("annotations", 0, "category_id"),
            ("annotations", 0, "id"),
            ("annotations", 0, "image_id"),
            ("annotations", 0, "bbox"),
            ("categories", 0, "name"),
        )
    },
}


@pytest.mark.parametrize("content", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_ends_as_with_detectron2(tmp_path, content):
    path = written(tmp_path / "some.json", content)
    assert Outcome(load_coco_json, path) == Outcome(stock, path)


def test_an_image_that_stands_there_twice_is_merged_as_detectron2_does(tmp_path):
    content = plain()
    content["images"].append({"id": 10, "file_name": "again.jpg", "height": 9, "width": 9})
    path = written(tmp_path / "some.json", content)
    assert Outcome(load_coco_json, path) == Outcome(stock, path)


@pytest.mark.parametrize("name", ["minival.json", "other.json"])
def test_files_of_one_name_may_repeat_annotation_ids(tmp_path, name):
    content = plain()
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    path = written(tmp_path / name, content)
    ours = Outcome(load_coco_json, path)
    assert ours == Outcome(stock, path)
    assert isinstance(ours.returned, list) == (name == "minival.json")


def test_names_with_coco_are_not_warned_of_gaps(tmp_path):
    path = written(tmp_path / "some.json", plain())
    for name, warned in (("coco_x", 0), ("mine", 1)):
        ours = Outcome(load_coco_json, path, name)
        assert ours == Outcome(stock, path, name) and len(ours.lines) == warned


def test_extra_keys_and_no_name_are_detectron2s(tmp_path):
    path = written(tmp_path / "some.json", plain())
    for more in ({"dataset_name": None}, {"extra_annotation_keys": ["area"]}):
        arguments = {
            "json_file": str(path),
            "image_root": tmp_path,
            "dataset_name": "extra",
            **more,
        }
        assert repr(load_coco_json(**arguments)) == repr(stock(**arguments))
    assert "area" in load_coco_json(**arguments)[0]["annotations"][0]


def test_without_msgspec_the_result_is_the_same(tmp_path, monkeypatch, caplog):
    path = written(tmp_path / "some.json", plain())
    with_it = Outcome(load_coco_json, path)
    monkeypatch.setenv(WITHOUT, "msgspec")
    optional.cache_clear()
    try:
        assert Outcome(load_coco_json, path) == with_it
        assert parse_json(b'{"a": [1, 2.0]}') == {"a": [1, 2.0]}
        assert caplog.text.count("for want of msgspec") == 1
    finally:
        optional.cache_clear()


@pytest.mark.parametrize(
    ("encoding", "fast"), [("UTF-8", True), ("utf8", True), ("ISO-8859-1", False)]
)
def test_the_locale_decides_how_detectron2_reads_letters(tmp_path, monkeypatch, encoding, fast):
    monkeypatch.setattr(coco_json.locale, "getpreferredencoding", lambda _: encoding)
    content = plain()
    content["images"][0]["file_name"] = "é.jpg"
    path = tmp_path / "some.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    if fast:
        assert read_records(str(path), "")[0][2]["file_name"] == "é.jpg"
    else:
        with pytest.raises(coco_json.UnusualError, match="encoding"):
            read_records(str(path), "")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, ascii_only=st.booleans())
def test_the_fast_parser_reads_as_pythons_does(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return
    assert repr(parse_json(data)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "text", ["NaN", "[1e400]", '"\\ud800"', "-0", "123456789012345678901234567890", '{"a":1,"a":2}']
)
def test_the_edges_of_json_are_pythons(text):
    assert repr(parse_json(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["", "[1,]", "{", "01", '"\t"', "[1] 2"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text.encode())


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), coco_json.collector_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
