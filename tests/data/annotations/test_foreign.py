"""Other tools' files are named with the export to choose; COCO's own and unknown ones are not."""

import gzip
import io
import json
import pickle
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_backbones.data.annotations.foreign import foreign_format

REGION = {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}}
VIA_IMAGE = {"filename": "a.jpg", "size": 99, "regions": [REGION], "file_attributes": {}}
COORDINATES = {"x": 5, "y": 6, "width": 4, "height": 4}
CATEGORIES = [{"id": 1, "name": "cat"}]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.json", "{}")
    return buffer.getvalue()


# What each tool writes, in its smallest form, and words of the answer.
JSON = {
    "via_project": (
        {"_via_settings": {}, "_via_img_metadata": {}},
        "Export Annotations (COCO format)",
    ),
    "via_export": ({"a.jpg99": VIA_IMAGE}, "Export Annotations (COCO format)"),
    "via_1": ({"a.jpg99": {**VIA_IMAGE, "regions": {"0": REGION}}}, "VIA"),
    "createml": (
        [
            {"image": "empty.jpg", "annotations": []},
            {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": COORDINATES}]},
        ],
        "CreateML",
    ),
    "labelbox_list": ([{"ID": "x", "Labeled Data": "http://h/a.jpg", "Label": {}}], "LabelBox"),
    "labelbox_one_line": ({"data_row": {"id": "x"}, "projects": {}}, "LabelBox"),
    "labelme": ({"shapes": [], "imagePath": "a.jpg", "imageData": None}, "give their folder"),
    "label_studio": ([{"id": 1, "data": {"image": "/a.jpg"}, "annotations": []}], "Export > COCO"),
    "label_studio_min": ([{"id": 1, "annotation_id": 1, "annotator": 1}], "Export > COCO"),
    "detections": (
        [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
        "scores",
    ),
    "bare_list": ([{"id": 1, "image_id": 1, "category_id": 1}], "without images and categories"),
}
BYTES = {
    "cvat": (b'<?xml version="1.0"?>\n<annotations>\n<image id="0"/></annotations>', "COCO 1.0"),
    "voc": (b"<!-- by labelImg -->\n<annotation><folder>x</folder></annotation>", "Pascal VOC"),
    "web_page": (b"<!DOCTYPE html>\n<html></html>", "web page"),
    "labelbox": (b'{"data_row": {"id": "x"}}\n{"data_row": {"id": "y"}}\n', "LabelBox"),
    "ndjson": (b'{"type": "dataset", "task": "detect"}\r\n{"type": "image", "file": "a', "ndjson"),
    "yolo": (b"0 0.5 0.5 0.25 1e-2\n12 0.1 0.2 0.3 0.4\n", "YOLO"),
    "yolo_one_box": (b"0 0.5 0.5 0.25 0.1", "YOLO"),
    "yolo_polygon": (b"3 0.5 0.5 0.25 0.1 0.2 0.3\n", "YOLO"),
    "csv": (b"filename,xmin,ymin,label\na.jpg,1,2,cat\nb.jpg,3,4,dog\n", "CSV"),
    "semicolons": (b"file;x;label\na.jpg;1,5;cat\n", "CSV"),
    "via_csv": (b"filename,file_size,region_shape_attributes\na.jpg,9,{}\n", "(COCO format)"),
    "zip": (zipped(), "unpack it"),
    "gzip": (gzip.compress(b"{}"), "unpack it"),
    "pickle": (pickle.dumps([1]), "pickle"),
    "old_pickle": (pickle.dumps([1], protocol=2), "pickle"),
}
OURS = {
    "coco": {"images": [{"id": 1}], "annotations": [], "categories": CATEGORIES},
    "coco_without_annotations": {"images": [{"id": 1}], "categories": CATEGORIES},
    "coco_with_a_tools_keys": {"images": [], "annotations": [], "shapes": [], "imagePath": ""},
    "empty": {},
    "list": [],
    "settings": {"lr": 0.1, "batch": 4},
}


@pytest.mark.parametrize("name", JSON)
def test_a_tools_json_is_named_with_its_export(name):
    content, words = JSON[name]
    data = json.dumps(content).encode()
    assert words in foreign_format(data, content)
    assert (
        foreign_format(data)
        == foreign_format(b"\xef\xbb\xbf" + data)
        == foreign_format(data, content)
    )


@pytest.mark.parametrize("name", BYTES)
def test_what_is_no_json_is_named_by_its_bytes(name):
    data, words = BYTES[name]
    assert words in foreign_format(data)


@pytest.mark.parametrize("name", OURS)
def test_cocos_and_unknown_content_is_nobodys(name):
    assert foreign_format(json.dumps(OURS[name]).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b'{"images": [{"id": 1,',  # damaged COCO, of one line
        b'{\n "images": [\n  {"id": 1,',  # and of many
        b"0 0.5 0.5\n",  # too short for YOLO
        b"a sentence, with commas, in a note\n",
        b"1,2,3\n4,5,6\n",
        b"\x80\xff\x00",
        "{}".encode("utf-16"),
    ],
)
def test_damaged_and_plain_files_are_nobodys(data):
    assert foreign_format(data) is None


def test_each_phrase_follows_a_files_name_on_one_line():
    phrases = [foreign_format(json.dumps(content).encode()) for content, _ in JSON.values()]
    for phrase in [*phrases, *(foreign_format(data) for data, _ in BYTES.values())]:
        assert phrase.startswith(("is ", "has ")) and "\n" not in phrase and ": " in phrase


JSONS = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["image", "annotations", "data", "data_row", "shapes", "regions", "filename"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(JSONS | st.binary(max_size=40))
def test_no_content_is_too_odd(content):
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    answer = foreign_format(data)
    assert answer is None or answer.startswith(("is ", "has "))
