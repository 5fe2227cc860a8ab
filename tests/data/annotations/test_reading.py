"""Odd forms of COCO files: each is read as what it means, or refused with one line that says what to mend."""

import copy
import itertools
import json

import numpy as np
import pycocotools.mask
import pytest

from ssl_backbones.data.annotations import fields
from ssl_backbones.data.annotations.masks import uncompressed
from ssl_backbones.data.annotations.reading import read_coco
from ssl_backbones.errors import InputError

# A square of 4 x 4 pixels, a triangle, a run-length mask of 2 x 3 pixels in an image of 8 x 6.
SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]
TRIANGLE = [0.5, 0.5, 6.5, 0.5, 0.5, 4.5]
RUNS = {"size": [6, 8], "counts": [6, 3, 3, 3, 33]}
CLEAN = {
    "images": [
        {"id": 1, "file_name": "a/1.jpg", "height": 6, "width": 8},
        {"id": 2, "file_name": "a/2.jpg", "height": 6, "width": 8, "license": 3},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog", "supercategory": "animal"}],
    "annotations": [
        {
            **{"id": 10, "image_id": 1, "category_id": 1, "bbox": [2, 1, 4, 4], "area": 16},
            **{"iscrowd": 0, "segmentation": [SQUARE]},
        },
        {
            **{"id": 11, "image_id": 2, "category_id": 7, "bbox": [0.5, 0.5, 6.0, 4.0]},
            **{"area": 12.0, "iscrowd": 0, "segmentation": [TRIANGLE], "score": None},
        },
        {
            **{"id": 12, "image_id": 2, "category_id": 7, "bbox": [1.0, 0.0, 2.0, 3.0], "area": 6},
            **{"iscrowd": 1, "segmentation": RUNS},
        },
        # An object without a mask.
        {
            **{"id": 13, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 1.5], "area": 4.5},
            "iscrowd": 0,
        },
    ],
}
ABSENT = object()


def changed(*edits):
    """The clean content with values set at paths such as "annotations.0.bbox"."""
    content = copy.deepcopy(CLEAN)
    for path, value in edits:
        *keys, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        at = content
        for key in keys:
            at = at[key]
        if value is ABSENT:
            del at[last]
        else:
            at[last] = value
    return content


def read(content, root=None):
    return read_coco(json.dumps(content).encode(), "dataset 'x' (x.json)", root)


def everywhere(table, key, values):
    return [(f"{table}.{row}.{key}", value) for row, value in enumerate(values)]


def test_a_clean_file_is_left_as_it_is():
    assert read(CLEAN) == (CLEAN, [])


def test_files_that_are_written_as_cocos_are_left_as_they_are(miniatures):
    paths = list(miniatures.glob("coco/annotations/instances_*.json"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert read_coco(data, "x") == (json.loads(data), [])


def test_a_test_set_without_annotations_stays_without():
    content = {key: CLEAN[key] for key in ("images", "categories")}
    assert read(content) == (content, [])


# Edits of form after which the file says what the clean one says, and the one sentence about them.
SAME = {
    # iscrowd
    "iscrowd missing": (
        everywhere("annotations", "iscrowd", [ABSENT, ABSENT]),
        "iscrowd is missing in 2 annotations (first: 10): read as 0",
    ),
    "iscrowd null": (
        [("annotations.1.iscrowd", None)],
        "iscrowd is null in 1 annotation (first: 11): read as 0",
    ),
    "iscrowd as bools": (
        everywhere("annotations", "iscrowd", [False, False, True, False]),
        "iscrowd is true or false in 4 annotations (first: 10): read as 1 or 0",
    ),
    # The text "0" is true in Python.
    "iscrowd as text": (
        everywhere("annotations", "iscrowd", ["0", "0", "1", "0"]),
        "iscrowd is text in 4 annotations (first: 10): read as 1 or 0",
    ),
    "iscrowd as floats": (
        everywhere("annotations", "iscrowd", [0.0, 0.0, 1.0, 0.0]),
        "iscrowd is written with a decimal point in 4 annotations (first: 10): read as 1 or 0",
    ),
    # area: of a square, of run lengths and of a box it is the clean file's
    "area missing": (
        [("annotations.0.area", ABSENT), ("annotations.2.area", ABSENT)],
        "area is missing in 2 annotations (first: 10): counted in the mask",
    ),
    "area null without a mask": (
        [("annotations.3.area", None)],
        "area is null in 1 annotation (first: 13): computed as the box's width x height",
    ),
    "area as text": (
        [("annotations.1.area", "12.0")],
        "area is text in 1 annotation (first: 11): read as the number",
    ),
    # boxes
    "a box as text": (
        [("annotations.1.bbox", ["0.5", " 0.5", "6", "4e0"])],
        "bbox has numbers that are text in 1 annotation (first: 11): read as numbers",
    ),
    "no box beside polygons": (
        [("annotations.0.bbox", ABSENT), ("annotations.1.bbox", ABSENT)],
        "bbox is missing in 2 annotations (first: 10): computed from the mask",
    ),
    "no box beside run lengths": (
        [("annotations.2.bbox", None)],
        "bbox is null in 1 annotation (first: 12): computed from the mask",
    ),
    # sizes
    "heights as floats": (
        everywhere("images", "height", [6.0, 6.0]),
        "height is written with a decimal point in 2 images (first: 1): read as the whole number",
    ),
    "a width as text": (
        [("images.1.width", "8")],
        "width is text in 1 image (first: 2): read as the whole number",
    ),
    "backslashes": (
        [("images.0.file_name", "a\\1.jpg")],
        "file_name has backslashes in 1 image (first: 1): read as slashes",
    ),
    # masks
    "a null mask": (
        [("annotations.3.segmentation", None)],
        "segmentation is null in 1 annotation (first: 13): read as no mask",
    ),
    "a flat list": (
        [("annotations.0.segmentation", SQUARE)],
        "segmentation is one flat list in 1 annotation (first: 10): read as polygons x, y, x, y, ...",
    ),
    "pairs": (
        [("annotations.0.segmentation", [SQUARE[i : i + 2] for i in (0, 2, 4, 6)])],
        "segmentation is a list of points in 1 annotation (first: 10): "
        "read as polygons x, y, x, y, ...",
    ),
    "polygons of pairs": (
        [("annotations.0.segmentation", [[SQUARE[i : i + 2] for i in (0, 2, 4, 6)]])],
        "segmentation has polygons that are lists of points in 1 annotation (first: 10): "
        "read as polygons x, y, x, y, ...",
    ),
    "points with names": (
        [("annotations.0.segmentation", [{"y": SQUARE[i + 1], "x": SQUARE[i]} for i in (0, 2, 4, 6)])],
        "segmentation is a list of points in 1 annotation (first: 10): "
        "read as polygons x, y, x, y, ...",
    ),
    "a polygon of text": (
        [("annotations.1.segmentation", [list(map(str, TRIANGLE))])],
        "segmentation has numbers that are text in 1 annotation (first: 11): "
        "read as polygons x, y, x, y, ...",
    ),
    "run lengths as floats": (
        [("annotations.2.segmentation", {"size": [6.0, 8.0], "counts": [6.0, 3, 3, 3, 33]})],
        "segmentation has run lengths with decimal points in 1 annotation (first: 12): "
        "read as whole numbers",
    ),
    # ids
    "image ids as text": (
        everywhere("images", "id", ["1", "2"]),
        "id is text in 2 images (first: '1'): read as the whole number",
    ),
    # As COCO's own file names write them.
    "an id with zeros in front": (
        [("images.1.id", "000002")],
        "id is text in 1 image (first: '000002'): read as the whole number",
    ),
    "references as text": (
        everywhere("annotations", "image_id", ["1", "2", "2", "1"]),
        "image_id is text in 4 annotations (first: 10): read as the whole number",
    ),
    "category ids as floats": (
        everywhere("categories", "id", [1.0, 7.0]),
        "id is written with a decimal point in 2 categories (first: 1.0): read as the whole number",
    ),
    "references as floats": (
        [("annotations.1.category_id", 7.0)],
        "category_id is written with a decimal point in 1 annotation (first: 11): "
        "read as the whole number",
    ),
    "annotation ids as text": (
        everywhere("annotations", "id", ["10", "11", "12", "13"]),
        "id is text in 4 annotations (first: '10'): read as the whole number",
    ),
    "the last annotation without an id": (
        [("annotations.3.id", ABSENT)],
        "id is missing in 1 annotation (first: at place 4 of the list): numbered from 13",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_an_odd_form_is_read_as_the_clean_file(name):
    edits, sentence = SAME[name]
    content, changes = read(changed(*edits))
    assert content == CLEAN
    assert changes == [sentence]
    # 7 == 7.0 == True; the types must be COCO's as well.
    for table in ("images", "categories", "annotations"):
        for row, clean in zip(content[table], CLEAN[table], strict=True):
            for key in ("id", "image_id", "category_id", "iscrowd", "height", "width"):
                assert type(row.get(key)) is type(clean.get(key))


def test_both_ends_of_references_as_text():
    edits = everywhere("categories", "id", ["1", "7"])
    edits += everywhere("annotations", "category_id", ["1", "7", "7", "7"])
    content, changes = read(changed(*edits))
    assert content == CLEAN
    assert len(changes) == 2


# Edits after which a file means something else than the clean one: edits, edits of the clean one, sentences.
OTHER = {
    # Two images, three references: numbered in the order of the file.
    "image ids as names": (
        [
            *everywhere("images", "id", ["img_b", "img_a"]),
            *everywhere("annotations", "image_id", ["img_b", "img_a", "img_a", "img_b"]),
        ],
        [],
        [
            "id is a name in 2 images (first: 'img_b'): numbered from 1 in the order of the file",
            "image_id is a name in 4 annotations (first: 10): read as the number of its image",
        ],
    ),
    # An annotation of an image that is not in the file may not come to one that is.
    "names of images that are not there": (
        [
            *everywhere("images", "id", ["b", "a"]),
            *everywhere("annotations", "image_id", ["b", "a", "c", "b"]),
        ],
        [("annotations.2.image_id", 3)],
        None,
    ),
    # Both are the number 7: as text they are two.
    "text that is one number in two ways": (
        [
            *everywhere("images", "id", ["7", "07"]),
            *everywhere("annotations", "image_id", ["7", "07", "07", "7"]),
        ],
        [],
        None,
    ),
    "category ids as names": (
        [
            *everywhere("categories", "id", ["c", "d"]),
            *everywhere("annotations", "category_id", ["c", "d", "d", "d"]),
        ],
        [
            ("categories.1.id", 2),
            *everywhere("annotations", "category_id", [1, 2, 2, 2]),
        ],
        None,
    ),
    "annotation ids as names": (
        everywhere("annotations", "id", ["a", "b", "c", "d"]),
        everywhere("annotations", "id", [1, 2, 3, 4]),
        ["id is a name in 4 annotations (first: 'a'): numbered from 1 in the order of the file"],
    ),
    # Who checks the content must find them twice.
    "names that stand there twice": (
        everywhere("annotations", "id", ["a", "b", "b", "d"]),
        everywhere("annotations", "id", [1, 2, 2, 3]),
        None,
    ),
    # pycocotools notes the id of what was found, and takes 0 for nothing.
    "ids from 0": (
        everywhere("annotations", "id", [0, 1, 2, 3]),
        everywhere("annotations", "id", [4, 1, 2, 3]),
        [
            "id is 0 in 1 annotation, whose object COCO's evaluation would never find: numbered 4",
        ],
    ),
    "two ids that are 0": (
        everywhere("annotations", "id", [0, 1, 0, "3"]),
        everywhere("annotations", "id", [2, 1, 2, 3]),
        None,
    ),
    "a null id among numbers": (
        [("annotations.0.id", None)],
        [("annotations.0.id", 14)],
        ["id is missing in 1 annotation (first: at place 1 of the list): numbered from 14"],
    ),
    "no ids of annotations": (
        everywhere("annotations", "id", [ABSENT] * 4),
        everywhere("annotations", "id", [1, 2, 3, 4]),
        ["id is missing in 4 annotations (first: at place 1 of the list): numbered from 1"],
    ),
    "two categories of one name": (
        [("categories.1.name", "cat")],
        [("categories.0.name", "cat (1)"), ("categories.1.name", "cat (7)")],
        ["2 categories have the name 'cat' (ids 1, 7): each is kept, with its id behind the name"],
    ),
    # Which is refused as an id that stands there twice.
    "a category that stands there twice": (
        [("categories.1", {"id": 1, "name": "cat"})],
        [("categories.1", {"id": 1, "name": "cat"})],
        [],
    ),
    "a name that is a number": (
        [("categories.0.name", 5)],
        [("categories.0.name", "5")],
        ["name is a number in 1 category (first: 1): read as its text"],
    ),
    # pycocotools counts the pixels, of which the triangle of 12 square pixels holds 8.
    "the area of a polygon": (
        [("annotations.1.area", ABSENT)],
        [("annotations.1.area", 8)],
        None,
    ),
    # Compressed by pycocotools: the same 6 pixels and box.
    "compressed run lengths without area and box": (
        [
            ("annotations.2.segmentation", {"size": [6, 8], "counts": "6330n0"}),
            ("annotations.2.area", ABSENT),
            ("annotations.2.bbox", ABSENT),
        ],
        [("annotations.2.segmentation", {"size": [6, 8], "counts": "6330n0"})],
        None,
    ),
    "a box with nothing in it": (
        [("annotations.3.bbox", [1, 2, -3, -2]), ("annotations.3.area", None)],
        [("annotations.3.bbox", [1, 2, -3, -2]), ("annotations.3.area", 0)],
        None,
    ),
    # Detectron2 ignores such annotations, which must not stop the reading.
    "an annotation of an image that is not there": (
        [("annotations.0.image_id", 99), ("annotations.0.area", ABSENT)],
        [("annotations.0.image_id", 99)],
        None,
    ),
    "an empty list of polygons": (
        [("annotations.0.segmentation", [])],
        [("annotations.0.segmentation", [])],
        [],
    ),
    # LVIS's images are found by their addresses.
    "an address in place of a name": (
        [("images.0", {"id": 1, "height": 6, "width": 8, "coco_url": "http://x/1.jpg"})],
        [("images.0", {"id": 1, "height": 6, "width": 8, "coco_url": "http://x/1.jpg"})],
        [],
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_differs_from_the_clean_file_is_read_as_it_stands(name):
    edits, expected, sentences = OTHER[name]
    content, changes = read(changed(*edits))
    assert content == changed(*expected)
    assert sentences is None or changes == sentences


# What is refused, and what the line says; more than the fault tells how many have it.
REFUSED = {
    "no list of images": ([("images", ABSENT)], "not in COCO's format: has no list of `images`"),
    "no categories": ([("categories", ABSENT)], "has no list of `categories`"),
    "null annotations": ([("annotations", None)], "has no list of `annotations`"),
    "images as an object": ([("images", {"1": {}})], "has no list of `images`"),
    "a number among the annotations": (
        [("annotations.1", 5)],
        r"5 stands at place 2 of `annotations`, which is no object \(1 of 4\)",
    ),
    # ids
    "an id that is true": ([("images.0.id", True)], "image at place 1 .* the id true, which is not"),
    "an image without an id": ([("images.1.id", ABSENT)], "image at place 2 of the list has no id;"),
    "categories without ids": (
        everywhere("categories", "id", [None, None]),
        r"place 1 .* the id null, which is not a whole number \(2 such categories\)",
    ),
    "half an id": ([("images.0.id", 1.5)], "the id 1.5, which is not a whole number;"),
    # Past 2**53 a float has lost its last digits.
    "an id past the floats": ([("images.0.id", 2.0**60)], "which is not a whole number"),
    "an id past int64": ([("images.0.id", 2**63)], r"which is not a whole number below 2\*\*63"),
    "a name among numbers": ([("images.0.id", "img")], "numbers and text, and 'img' is no number"),
    "the text of another's number": ([("images.0.id", "2")], "and '2' is no number of its own"),
    "a reference to names by number": (
        [*everywhere("images", "id", ["a", "b"]), ("annotations.0.image_id", 1)],
        "annotation 10 has the image_id 1, which is not among the ids of the images, which are names",
    ),
    "a reference to no category's name": (
        [
            *everywhere("categories", "id", ["a", "b"]),
            *everywhere("annotations", "category_id", ["a", "b", "c", "c"]),
        ],
        r"annotation 12 has the category_id 'c', which is not among .* \(2 such annotations\)",
    ),
    "no reference": (
        [("annotations.1.image_id", None)],
        "annotation 11 has the image_id null, which is not a whole number",
    ),
    "no category": ([("annotations.1.category_id", ABSENT)], "annotation 11 has no category_id"),
    # images
    "height 0": ([("images.0.height", 0)], "image 1 has the height 0, which is not a whole number"),
    "half a pixel": (
        everywhere("images", "width", [7.5, "7.5"]),
        r"image 1 has the width 7.5, which .* above 0 \(2 such images\); give it the size",
    ),
    "no height": ([("images.1.height", ABSENT)], "image 2 has no height; give it the size"),
    "no name": ([("images.1.file_name", ABSENT)], "image 2 has no file_name; give it the name"),
    "a number as a name": ([("images.1.file_name", 7)], "image 2 has the file_name 7, which is not"),
    "an empty name": ([("images.0.file_name", "")], "image 1 has the file_name '', which is not"),
    # No file can be called so, and asking for it is an error of Python's.
    "a null character": ([("images.0.file_name", "a\0")], r"image 1 has the file_name 'a\\x00'"),
    # annotations
    "iscrowd 2": ([("annotations.0.iscrowd", 2)], "annotation 10 has the iscrowd 2, which is neither"),
    "iscrowd in words": (
        everywhere("annotations", "iscrowd", ["false", "false"]),
        r"annotation 10 has the iscrowd 'false', which is neither 0 nor 1 \(2 such annotations\)",
    ),
    "area true": ([("annotations.0.area", True)], "annotation 10 has the area true, which is not a"),
    "area below 0": ([("annotations.0.area", -1)], "annotation 10 has the area -1, which is not a"),
    # Python's parser takes what JSON does not have.
    "area NaN": ([("annotations.0.area", float("nan"))], "annotation 10 has the area nan, which"),
    # A number with a decimal comma, or a thousand and more.
    "area with a comma": ([("annotations.0.area", "1,5")], "annotation 10 has the area '1,5'"),
    "a box of three": ([("annotations.0.bbox", [1, 2, 3])], r"the bbox \[1, 2, 3\], which is not x, y"),
    "a box with true": ([("annotations.0.bbox", [True, 1, 4, 4])], "annotation 10 has the bbox"),
    "an infinite box": (
        [("annotations.0.bbox", [0, 0, float("inf"), 1])],
        "annotation 10 has the bbox .*which is not x, y, width, height; correct it",
    ),
    "neither box nor mask": (
        [("annotations.3.bbox", ABSENT)],
        "annotation 13 has no bbox; give it x, y, width, height, or a segmentation",
    ),
    "no box and an empty mask": (
        [("annotations.0.bbox", ABSENT), ("annotations.0.segmentation", [])],
        "annotation 10 has no bbox",
    ),
    # masks
    "two points": (
        everywhere("annotations", "segmentation", [[[1, 2, 3, 4]], [[1, 2, 3, 4]]]),
        r"annotation 10 has the segmentation .* is not three or more points x, y \(2 such annotations\)",
    ),
    # It could be a box, or a polygon's two points.
    "a flat list of four": ([("annotations.0.segmentation", [1, 2, 3, 4])], "three or more points"),
    "two pairs": ([("annotations.0.segmentation", [[1, 2], [3, 4]])], "three or more points"),
    "seven numbers": ([("annotations.0.segmentation", [[1, 2, 3, 4, 5, 6, 7]])], "three or more"),
    "a second polygon of two points": (
        [("annotations.0.segmentation", [SQUARE, [1, 2, 3, 4]])],
        "annotation 10 .* three or more points",
    ),
    "an empty polygon": ([("annotations.0.segmentation", [[]])], "three or more points"),
    "true in a polygon": (
        [("annotations.0.segmentation", [[*SQUARE[:7], True]])],
        "annotation 10 .* has a polygon with something in it that is not a finite number",
    ),
    # pycocotools would end the process over it.
    "a polygon far outside": (
        [("annotations.0.segmentation", [[*SQUARE[:7], -1e9]])],
        "annotation 10 .* a polygon that reaches farther than 262,144 pixels; give it in pixels",
    ),
    "a polygon of whole numbers past the floats": (
        [("annotations.0.segmentation", [[*SQUARE[:7], 10**400]])],
        "something in it that is not a finite number",
    ),
    "NaN in a polygon": (
        [("annotations.0.segmentation", [[*SQUARE[:7], float("nan")]])],
        "something in it that is not a finite number",
    ),
    "a word in a polygon": (
        [("annotations.0.segmentation", [[*SQUARE[:7], "five"]])],
        "something in it that is not a finite number",
    ),
    "a polygon that is text": ([("annotations.0.segmentation", "1 2 3 4 5 6")], "neither polygons nor"),
    "run lengths without size": (
        [("annotations.2.segmentation", {"counts": [48]})],
        "annotation 12 .* is not run lengths: a size of height and width, and counts of pixels",
    ),
    "run lengths of text": (
        [("annotations.2.segmentation", {"size": [6, 8], "counts": ["48"]})],
        "is not run lengths",
    ),
    "run lengths below 0": (
        [("annotations.2.segmentation", {"size": [6, 8], "counts": [-1, 49]})],
        "is not run lengths",
    ),
    # The last character says that more follow: pycocotools would read on past the end.
    "compressed run lengths cut short": (
        [("annotations.2.segmentation", {"size": [6, 8], "counts": "6330P"})],
        "is not run lengths",
    ),
    "an area of runs that do not fill the image": (
        [
            ("annotations.2.area", ABSENT),
            ("annotations.2.segmentation", {"size": [6, 8], "counts": [6, 3]}),
        ],
        "annotation 12 has no area, which does not follow from the mask, whose runs do not fill",
    ),
    # Drawn, it would take pycocotools more memory than there is.
    "an area of a polygon without end": (
        [("annotations.0.area", ABSENT), ("annotations.0.segmentation.0.2", 1e5)],
        "annotation 10 has no area, which cannot be counted, since the mask is far outside",
    ),
    # categories
    "a category without a name": ([("categories.1.name", ABSENT)], "category 7 has no name; give it"),
    "a null name": ([("categories.1.name", None)], "category 7 has the name null, which is no name"),
    "a name of spaces": ([("categories.1.name", "  ")], "category 7 has the name '  ', which is no"),
    "half a character": ([("categories.1.name", "\ud800")], r"'\\ud800', which is not text that can"),
    "a name that two of one name would get": (
        [
            ("categories", [{"id": i, "name": n} for i, n in ((1, "a"), (7, "a"), (3, "a (7)"))]),
        ],
        r"2 categories have the name 'a \(7\)'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sure_is_refused(name):
    edits, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        read(changed(*edits))
    assert str(error.value).startswith("dataset 'x' (x.json): ")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8-sig", "UTF-8 with a byte order mark"),  # as Windows' editors write it
        ("utf-16", "UTF-16"),  # as PowerShell's > does
        ("utf-16-le", "UTF-16-LE"),  # without a mark, which Python's parser tells as well
    ],
)
def test_encodings_of_windows(encoding, name):
    content = changed(("categories.0.name", "Kätzchen"))
    data = json.dumps(content, ensure_ascii=False).encode(encoding)
    assert read_coco(data, "x") == (content, [f"the file is written in {name}: read as that"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^x: is not JSON"),
        (b"\xff\xfe{", "^x: is not JSON"),  # half a character of UTF-16
        (b'{"images": [', "^x: is not JSON"),
        ('{"images": "é'.encode("latin-1"), "^x: is not JSON"),
        (b"[" * 100_000, "^x: has lists in lists too deep to be read"),
        (b"[]", "^x: is not in COCO's format: has no list of `images`"),
        (b"null", "^x: is not in COCO's format: has no list of `images`"),
    ],
)
def test_other_bytes_are_refused(data, message):
    with pytest.raises(InputError, match=message) as error:
        read_coco(data, "x")
    assert "\n" not in str(error.value)


def test_a_backslash_stays_in_the_name_of_a_file_that_is_there(tmp_path):
    (tmp_path / "a\\1.jpg").touch()
    content = changed(("images.0.file_name", "a\\1.jpg"), ("images.1.file_name", "a\\2.jpg"))
    expected = changed(("images.0.file_name", "a\\1.jpg"))
    sentence = "file_name has backslashes in 1 image (first: 2): read as slashes"
    assert read(content, str(tmp_path)) == (expected, [sentence])


def test_compressed_run_lengths_are_pycocotools_own():
    """Of masks with long and short runs, whose differences are of both signs."""
    random = np.random.default_rng(0)
    for probability in (0.0, 0.01, 0.5, 1.0):
        mask = np.asfortranarray(random.random((97, 61)) < probability, dtype=np.uint8)
        counts = pycocotools.mask.encode(mask)["counts"].decode()
        pixels = mask.ravel(order="F")
        runs = [len(list(run)) for _, run in itertools.groupby(pixels)]
        # Background comes first, if only none of it.
        runs = [0, *runs] if pixels[0] else runs
        assert uncompressed(counts) == runs


@pytest.mark.parametrize("place", range(4))
def test_what_is_odd_is_found_wherever_it_stands_in_a_long_file(place, monkeypatch):
    monkeypatch.setattr(fields, "_BATCH", 2)
    sentence = f"iscrowd is null in 1 annotation (first: {10 + place}): read as 0"
    expected = changed((f"annotations.{place}.iscrowd", 0))
    assert read(changed((f"annotations.{place}.iscrowd", None))) == (expected, [sentence])
