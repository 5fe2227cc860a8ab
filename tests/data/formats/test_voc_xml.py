"""Pascal VOC's folders: the layouts, the two ways of counting pixels, masks, and what is refused."""

import json
import math
import re
import shutil
from xml.dom import minidom

import numpy as np
import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from voc_files import write_voc

from ssl_backbones.data.formats.labelled import ALL, as_coco
from ssl_backbones.data.formats.voc_xml import find_voc
from ssl_backbones.errors import InputError

SIZE = (12, 8)  # width and height of every image here


def xml(*objects, size=SIZE, filename=""):
    """A file of objects, each a name, the four corners and any further elements."""
    body = "".join(
        f"<object><name>{name}</name>{''.join(more)}<bndbox><xmin>{corners[0]}</xmin>"
        f"<ymin>{corners[1]}</ymin><xmax>{corners[2]}</xmax><ymax>{corners[3]}</ymax></bndbox></object>"
        for name, corners, *more in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation><filename>{filename}</filename>{sides}{body}</annotation>"


CAT = xml(("cat", (2, 3, 5, 8)))


def write(root, files):
    """Files by name: text as it is, None an image, an array a PNG of these pixels."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", SIZE).save(path)
        elif isinstance(content, str | bytes):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        else:
            Image.fromarray(content).save(path)
    return root


def trees(*stems, images="JPEGImages/", annotations="Annotations/"):
    return {f"{images}{stem}.jpg": None for stem in stems} | {
        f"{annotations}{stem}.xml": CAT for stem in stems
    }


def lists(kind="Main", **ids):
    return {
        f"ImageSets/{kind}/{name}.txt": "".join(f"{id_}\n" for id_ in stems)
        for name, stems in ids.items()
    }


ABCD = trees(*"abcd")
# Files, what is given of them, and the stems of each split.
LAYOUTS = {
    "train and val": (
        {
            **ABCD,
            **lists(train="cb", val="a", trainval="abc", dog_train=["a -1"], test="d"),
        },
        "",
        {"train": "bc", "val": "a", "test": "d"},
    ),
    "trainval and test": (
        ABCD | lists(trainval="abc", test="d"),
        "",
        {"train": "abc", "test": "d"},
    ),
    "trainval alone": (ABCD | lists(trainval="abc"), "", {ALL: "abc"}),
    "train alone": (ABCD | lists(train="abc"), "", {"train": "abc"}),
    "other words": (ABCD | lists(training="ab", valid="c"), "", {"train": "ab", "val": "c"}),
    "CVAT's list": (ABCD | lists(default="abcd"), "", {ALL: "abcd"}),
    "a test set without labels": (
        ABCD | lists(train="ab", val="cd", test="xy"),
        "",
        {"train": "ab", "val": "cd"},
    ),
    "a line without an id": (
        ABCD | lists(train=["a", "", "b"], val="c"),
        "",
        {"train": "ab", "val": "c"},
    ),
    "an id twice": (ABCD | lists(train="aba", val="c"), "", {"train": "ab", "val": "c"}),
    "an empty list": (
        ABCD | lists(train="ab", val="cd", test=""),
        "",
        {"train": "ab", "val": "cd"},
    ),
    "no lists": (ABCD, "", {ALL: "abcd"}),
    "images/": (trees(*"ab", images="images/", annotations="annotations/"), "", {ALL: "ab"}),
    "images in the folder above": (trees(*"ab", images=""), "", {ALL: "ab"}),
    "beside each other": (trees(*"ab", images="", annotations=""), "", {ALL: "ab"}),
    "VOCdevkit": (
        {f"VOC2012/{name}": it for name, it in (ABCD | lists(train="ab", val="cd")).items()},
        "",
        {"train": "ab", "val": "cd"},
    ),
    "around VOCdevkit": (
        {f"VOCdevkit/VOC2007/{n}": it for n, it in ABCD.items()},
        "",
        {ALL: "abcd"},
    ),
    "lists of another kind": (
        ABCD | lists(train="ab", val="cd") | lists("Segmentation", train="d", val="a"),
        "ImageSets/Segmentation",
        {"train": "d", "val": "a"},
    ),
    "Roboflow": (
        trees(*"ab", images="train/", annotations="train/")
        | trees(*"c", images="valid/", annotations="valid/")
        | trees(*"d", images="test/images/", annotations="test/Annotations/"),
        "",
        {"train": "ab", "val": "c", "test": "d"},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    files, given_path, expected = LAYOUTS[name]
    given_path = write(tmp_path, files) / given_path
    data = find_voc(given_path)
    assert {split: [xml.stem for xml in xmls] for split, xmls in data.splits.items()} == {
        split: list(stems) for split, stems in expected.items()
    }
    _, contents = as_coco(data, given_path)
    for split, stems in expected.items():
        content, _ = contents[split]
        assert [one["file_name"].split("/")[-1] for one in content["images"]] == [
            f"{stem}.jpg" for stem in stems
        ]
        assert [one["bbox"] for one in content["annotations"]] == [[1, 2, 4, 6]] * len(stems)


def test_files_are_all_that_is_read_besides(tmp_path):
    numbers = np.zeros(SIZE[::-1], np.uint8)
    numbers[2:8, 1:5] = 1
    masks = {f"SegmentationObject/{stem}.png": numbers for stem in "abcd"}
    write(tmp_path, ABCD | masks | lists(train="ab", val="cd", dog_val=["c 1"]))
    expected = [f"JPEGImages/{stem}.jpg" for stem in "abcd"] + [*masks, *lists(train="", val="")]
    data = find_voc(tmp_path)
    assert sorted(data.files) == sorted(tmp_path / name for name in expected)
    assert (data.form, list(data.notes)) == ("Pascal VOC's XML: train, val", [])


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.jpg": None, "train/b.jpg": None, "Annotations/instances_train.json": "{}"},
        {"annotations.xml": "<annotations><version>1.1</version></annotations>", "a.jpg": None},
        {"Annotations/a.xml": "<?xml version='1.0'?><html></html>"},
        {"a.xml": ""},
    ],
)
def test_no_voc_is_none(tmp_path, files):
    assert find_voc(write(tmp_path, files)) is None


@pytest.mark.parametrize(
    "start",
    ["<?xml version='1.0' encoding='utf-8'?>\n<!-- a -->\n", "<!DOCTYPE annotation>", "\ufeff"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_root_element_says_that_it_is_voc(tmp_path, start, encoding):
    start = start.replace("utf-8", encoding)
    data = (start.lstrip("\ufeff") if encoding == "utf-16" else start) + CAT
    write(tmp_path, {"a.xml": data.encode(encoding), "a.jpg": None})
    ((content, _),) = as_coco(find_voc(tmp_path), tmp_path)[1].values()
    assert [one["bbox"] for one in content["annotations"]] == [[1, 2, 4, 6]]


def read(root, files):
    """Content and sentences of data without splits."""
    data = find_voc(write(root, files))
    ((content, said),) = as_coco(data, root)[1].values()
    return content, said


# Boxes of two files as they stand there, as they are meant, and what is said where they count from 0.
COUNTED = {
    "from 1": ([(1, 1, 12, 8)], [(2, 3, 2, 3)], [[0, 0, 12, 8]], [[1, 2, 1, 1]], None),
    "from 1, in fractions": (
        [(1.5, 2.25, 4, 8)],
        [],
        [[0.5, 1.25, 3.5, 6.75]],
        [],
        r"1 boxes \(first: Annotations/a.xml object 1\) have corners between pixels: .* from 1",
    ),
    "from 0": (
        [(2, 3, 5, 8), (4, 5, 6, 8)],
        [(0, 1, 12, 8), (1, 0, 3, 3)],
        [[2, 3, 3, 5], [4, 5, 2, 3]],
        [[0, 1, 12, 7], [1, 0, 2, 3]],
        r"2 boxes \(first: Annotations/b.xml object 1\) begin below 1",
    ),
    "from 0, in fractions": (
        [(0.5, 2, 4, 3)],
        [(1, 1, 2, 2)],
        [[0.5, 2, 3.5, 1]],
        [[1, 1, 1, 1]],
        r"1 boxes \(first: Annotations/a.xml object 1\)",
    ),
    "outside the image": ([(-2, 1, 4, 3)], [], [[-2, 1, 6, 2]], [], "1 boxes"),
}


@pytest.mark.parametrize("name", COUNTED)
def test_pixels_are_counted_from_1_unless_a_box_of_any_file_begins_before(tmp_path, name):
    *given_boxes, first, second, message = COUNTED[name]
    files = trees("a", "b") | {
        f"Annotations/{stem}.xml": xml(*(("cat", corners) for corners in boxes))
        for stem, boxes in zip("ab", given_boxes, strict=True)
    }
    content, said = read(tmp_path, files)
    boxes = [(one["image_id"], one["bbox"]) for one in content["annotations"]]
    assert boxes == [(1, box) for box in first] + [(2, box) for box in second]
    areas = [box[2] * box[3] for box in first + second]
    assert [one["area"] for one in content["annotations"]] == areas
    assert len(said) == (message is not None) and re.match(message or "", "".join(said))


def test_boxes_are_detectron2s(digits, tmp_path):
    voc, _ = write_voc(digits, tmp_path)
    xmls = sorted((voc / "Annotations").glob("train_*.xml"))
    xmls[0].write_text(re.sub(r"(<xm..>\d+)", r"\g<1>.75", xmls[0].read_text()))
    shutil.rmtree(voc / "SegmentationObject")
    content = as_coco(find_voc(voc), voc)[1]["train"][0]
    classes = [one["name"] for one in content["categories"]]
    theirs = load_voc_instances(str(voc), "train", classes)
    assert [one["file_name"] for one in theirs] == [
        str(voc / one["file_name"]) for one in content["images"]
    ]
    for image, record in zip(content["images"], theirs, strict=True):
        assert (image["height"], image["width"]) == (record["height"], record["width"])
        ours = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        assert [one["category_id"] - 1 for one in ours] == [
            one["category_id"] for one in record["annotations"]
        ]
        corners = [BoxMode.convert(one["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for one in ours]
        assert corners == [one["bbox"] for one in record["annotations"]]


def test_the_digits_are_those_of_their_coco_files(digits, tmp_path):
    voc, coco = write_voc(digits, tmp_path)
    _, contents = as_coco(find_voc(voc), voc)
    for split in ("train", "val"):
        content, said = contents[split]
        assert said == []
        for image in content["images"]:
            image["file_name"] = image["file_name"].removeprefix("JPEGImages/")
        for number, one in enumerate(content["annotations"]):
            path, object_ = one.pop("origin").rsplit(" object ")
            assert (voc / path).read_text().count("<object>") >= int(object_) >= 1, number
        assert content == json.loads((coco / f"{split}.json").read_text())


# Names of image files, the XML's <filename>, and the one that is taken of them.
IMAGES = {
    "of its stem": (["a.png", "b.png"], "b.png", "a.png"),
    "of its stem, another ending": (["a.JPEG"], "a.jpg", "a.JPEG"),
    "of its filename": (["b.v1.png"], "b.v1.png", "b.v1.png"),
    "of its filename in a folder": (["b.png"], r"C:\pictures\b.png", "b.png"),
    "of both": (["a.png", "a.bmp"], "a.bmp", "a.bmp"),
    "none": (["b.png"], "c.png", r"its image, of its name or 'c.png', is not beside it"),
    "none of its own": (["b.png"], "../../etc/b.jpg", "of its name or 'b.jpg', is not"),
    "two": (["a.png", "a.bmp"], "b.png", r"a.bmp and .*a.png may both be its image"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_of_an_xml(tmp_path, name):
    images, filename, expected = IMAGES[name]
    files = dict.fromkeys(images) | {"a.xml": xml(("cat", (2, 3, 5, 8)), filename=filename)}
    if expected not in images:
        with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/a.xml: .*{expected}"):
            read(tmp_path, files)
        return
    content, said = read(tmp_path, files)
    assert [one["file_name"] for one in content["images"]] == [expected]
    others = [image for image in images if image.split(".")[0] not in ("a", expected.split(".")[0])]
    assert said == [
        f"1 images (first: {tmp_path / other}) have no XML file: left out" for other in others
    ]


def test_difficult_objects_polygons_and_parts(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>x</xmin></bndbox></part>"
    files = trees(*"abc") | {
        "Annotations/b.xml": xml(
            ("cat", (2, 3, 5, 8), "<difficult> 1 </difficult>", part),
            ("dog", (1, 1, 2, 2), "<difficult>0</difficult>", "<polygon><x1>1</x1></polygon>"),
        )
    }
    content, said = read(tmp_path, files)
    assert [one["category_id"] for one in content["annotations"]] == [1, 1, 2, 1]
    assert content["annotations"][2]["bbox"] == [0, 0, 2, 2]
    b = f"1 images (first: {tmp_path}/JPEGImages/b.jpg)"
    assert said == [
        f"{b}: objects marked as difficult are taken as any other",
        f"{b}: the objects' polygons, which are not VOC's own, are not read: boxes alone",
    ]


def numbered(*numbers):
    """Numbers of objects at the first pixels, row by row, 255 around the last."""
    pixels = np.zeros(SIZE[::-1], np.uint8)
    pixels.flat[: len(numbers)] = numbers
    return pixels


TWO = xml(("cat", (1, 1, 2, 1)), ("dog", (4, 1, 4, 1)))


def paletted(pixels):
    image = Image.fromarray(pixels)
    image.putpalette([*range(256)] * 3)
    return image


@pytest.mark.parametrize("form", [Image.fromarray, paletted])
def test_masks(tmp_path, form):
    write(tmp_path, {"Annotations/a.xml": TWO, "JPEGImages/a.jpg": None})
    (tmp_path / "SegmentationObject").mkdir()
    form(numbered(1, 1, 255, 2)).save(tmp_path / "SegmentationObject" / "a.png")
    content, said = read(tmp_path, {})
    cat, dog = content["annotations"]
    # Column by column, 8 high: pixels 0 and 8 are the cat's, 24 the dog's. COCO's characters have 5 bits of a
    # run from "0" on, from the fourth run on less the last but one: 0, 1, 7, 1 - 1, 87 - 7; and 24, 1, 71.
    assert cat["segmentation"] == {"size": [8, 12], "counts": "0170`2"}
    assert dog["segmentation"] == {"size": [8, 12], "counts": "h01W2"}
    assert [(one["bbox"], one["area"]) for one in (cat, dog)] == [
        ([0, 0, 2, 1], 2),
        ([3, 0, 1, 1], 1),
    ]
    assert said == []


@pytest.mark.parametrize("segmentation", [True, False])
def test_masks_of_some_images_are_said(tmp_path, segmentation):
    one = numbered(1)
    write(tmp_path, ABCD | {"SegmentationObject/a.png": one, "SegmentationObject/x.png": one})
    mend = "each one"
    if segmentation:
        write(tmp_path, lists("Segmentation", train="a"))
        mend = "ImageSets/Segmentation as PATH"
    content, said = read(tmp_path, {})
    assert said == [f"1 of 4 images have masks: boxes alone; give {mend} to learn masks"]
    assert not any("segmentation" in one for one in content["annotations"])
    if segmentation:
        path = tmp_path / "ImageSets" / "Segmentation"
        content, said = as_coco(find_voc(path), path)[1]["train"]
        assert said == [] and [one["area"] for one in content["annotations"]] == [1]


def masked(pixels):
    files = {"Annotations/a.xml": TWO, "JPEGImages/a.jpg": None}
    return files | {"SegmentationObject/a.png": pixels}


def of_a(content):
    return {"a.jpg": None, "b.jpg": None, "b.xml": CAT, "a.xml": content}


REFUSED = {
    "several years": (
        {"VOC2007/a.jpg": None, "VOC2012/a.jpg": None},
        "has more than one folder of VOC's: .*VOC2007, .*VOC2012; give one",
    ),
    "two places": (ABCD | {"train/a.xml": CAT}, "more than one folder.*Annotations, .*train"),
    "a split twice": (
        {"val/a.xml": CAT, "valid/a.xml": CAT},
        "more than one folder .*val, .*valid",
    ),
    "an id without an XML": (
        ABCD | lists(train=["a", "x.y"], val="b"),
        r"train.txt: line 2: 'x.y' has no XML file \(1 such\)",
    ),
    "no list of ids": (ABCD | lists(train=["a", "b 1"]), "train.txt: line 2: 'b 1' has no XML"),
    "a cut file": (of_a(CAT[:-5]), "a.xml is not a whole XML file: .*line 1, column"),
    "an empty file": (of_a(""), "a.xml is not a whole XML file: no element"),
    "an encoding not known": (
        of_a(f"<?xml version='1.0' encoding='klingon'?>{CAT}"),
        "a.xml is not a whole XML file: .*encoding",
    ),
    "an encoding that no parser reads": (
        of_a(f"<?xml version='1.0' encoding='gb2312'?>{CAT}"),
        "a.xml is not a whole XML file: .*multi-byte",
    ),
    "another tool's": (of_a("<annotations/>"), "a.xml is 'annotations', not VOC's annotation"),
    "no name": (of_a(CAT.replace("name>", "nom>")), "a.xml: object 1 has no name"),
    "an empty name": (of_a(CAT.replace("cat", " ")), "a.xml: object 1 has no name"),
    "two names": (
        of_a(CAT.replace("<name>", "<name>dog</name><name>")),
        "a.xml: object 1 has more than one text as name",
    ),
    "a name in a name": (
        of_a(CAT.replace("cat", "cat<b/>")),
        "a.xml: object 1 has more than one text as name",
    ),
    "no box": (of_a(CAT.replace("bndbox", "robndbox")), "object 1 has no bndbox/xmin; give it one"),
    "no corner": (of_a(CAT.replace("ymax", "y")), "a.xml: object 1 has no bndbox/ymax"),
    "words": (
        of_a(CAT.replace(">2<", ">left<")),
        r"object 1 has the xmin, .* \['left', '3', '5', '8'\]",
    ),
    "nan": (of_a(CAT.replace(">2<", ">nan<")), r"object 1 has the xmin, .* \['nan'"),
    "infinity": (of_a(CAT.replace(">5<", ">1e999<")), "object 1 has .*'1e999'"),
    "inverted": (
        of_a(CAT.replace(">2<", ">6<")),
        "object 1 has the xmin, .* .'6', '3'",
    ),
    "upside down": (of_a(CAT.replace(">3<", ">8.5<")), "object 1 has .* from left to right"),
    "another size": (
        of_a(xml(size=(8, 12))),
        "a.xml says width '8', and .*a.jpg is 12 x 8; give the image that",
    ),
    "a size in words": (of_a(xml(size=(12, "x"))), "a.xml says height 'x'"),
    "a broken image": (of_a(CAT) | {"a.jpg": "x"}, "a.jpg cannot be used"),
    "an image of two": (
        {"c.jpg": None}
        | dict.fromkeys(["a.xml", "b.xml"], xml(("cat", (2, 3, 5, 8)), filename="c.jpg")),
        "c.jpg is labelled by two files",
    ),
    "nothing at all": ({"a.xml": xml(), "a.jpg": None}, "no label file has an object"),
    "a mask of another size": (
        masked(np.zeros((12, 8), np.uint8)),
        "a.png is 8 x 12, mode L, and must be 12 x 8, with objects' numbers in mode P or L",
    ),
    "a mask in colours": (masked(np.zeros((8, 12, 3), np.uint8)), "a.png is 12 x 8, mode RGB, and"),
    "a mask of 16 bits": (masked(np.zeros((8, 12), np.uint16)), "a.png is 12 x 8, mode I"),
    "no mask": (masked("x"), "a.png is not a PNG that can be read"),
    "a number too many": (
        masked(numbered(1, 2, 4)),
        "a.png has an object 4, and .*a.xml has 2 objects",
    ),
    "an object without pixels": (masked(numbered(0, 2)), "a.png has no pixels of object 1, and"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    files, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as refusal:
        read(tmp_path, files)
    assert str(refusal.value).isprintable() and str(tmp_path) in str(refusal.value)


def test_lists_that_were_asked_for_must_be_there(tmp_path):
    write(tmp_path, ABCD | lists("Action", jumping_train=["a 1"]))
    with pytest.raises(InputError, match="Action has no list of XML files"):
        find_voc(tmp_path / "ImageSets" / "Action")


def test_a_bomb_of_entities_does_no_harm(tmp_path):
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "bang">{entities}]>' + CAT.replace("cat", "&e10;")
    with pytest.raises(InputError, match=r"a.xml is not a whole XML file: .*line 1"):
        read(tmp_path, of_a(bomb))


# Any change of a valid file: what another parser makes of it, or one line.

WHOLE = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
\t<folder>VOC2007</folder><filename>a.jpg</filename>
\t<size><width>12</width><height>8</height><depth>3</depth></size>
\t<object>
\t\t<name>cat</name><difficult>0</difficult>
\t\t<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>5</xmax><ymax>8</ymax></bndbox>
\t</object>
\t<object>
\t\t<name>Hündin</name><pose>Left</pose>
\t\t<bndbox><ymin>1</ymin><xmin>3.5</xmin><ymax>4.25</ymax><xmax>11</xmax></bndbox>
\t\t<part><name>head</name><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>9</xmax><ymax>3</ymax></bndbox></part>
\t</object>
</annotation>
"""
# Fields, tags, numbers and bytes.
PARTS = [rb"(<\w+>[^<>]*</\w+>)", rb"(</?\w+>)", rb"([\d.]+)", rb"(?s)(.)"]
OTHERS = [
    *[b"0", b"-1", b"1e1", b"nan", b" 7 ", b"&lt;", b"&no;", b"\xff", b"<!-- -->", b"<!-- "],
    *[b"<object>", b"</object>", b"<xmin>1</xmin>", b"<xmax>9</xmax>", b"<name>", b"</annotation>"],
]


@st.composite
def mutated(draw):
    """One or two parts dropped, doubled, swapped, put in or replaced."""
    data = WHOLE.encode()
    for _ in range(draw(st.integers(1, 2))):
        parts = re.split(draw(st.sampled_from(PARTS)), data)
        places = st.integers(0, len(parts) // 2 - 1).map(lambda number: 2 * number + 1)
        at, new = draw(places), draw(st.sampled_from(OTHERS))
        change = draw(st.sampled_from(["drop", "double", "swap", "insert", "replace"]))
        if change == "swap":
            other = draw(places)
            parts[at], parts[other] = parts[other], parts[at]
        else:
            old = parts[at]
            changed = {"drop": b"", "double": old + old, "insert": new + old, "replace": new}
            parts[at] = changed[change]
        data = b"".join(parts)
    return data


def meaning(data):
    """Name and corners of each object; any exception where it cannot be told."""
    (root,) = (
        one for one in minidom.parseString(data).childNodes if one.nodeType == one.ELEMENT_NODE
    )
    assert root.tagName == "annotation"

    def inside(node, name):
        return [one for one in node.childNodes if getattr(one, "tagName", None) == name]

    def text(node, name):
        (found,) = inside(node, name)
        assert not any(one.nodeType == one.ELEMENT_NODE for one in found.childNodes)
        return "".join(
            one.data for one in found.childNodes if one.nodeType == one.TEXT_NODE
        ).strip()

    def number(text):
        assert re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[0-9]+)?", text)
        return float(text)

    objects = []
    for one in inside(root, "object"):
        (box,) = [it for it in inside(one, "bndbox") if it.childNodes]
        corners = [number(text(box, corner)) for corner in ("xmin", "ymin", "xmax", "ymax")]
        assert text(one, "name") and all(map(math.isfinite, corners))
        assert corners[0] <= corners[2] and corners[1] <= corners[3]
        objects.append((text(one, "name"), corners))
    for sizes in inside(root, "size"):
        for side, actual in zip(("width", "height"), SIZE, strict=True):
            for one in inside(sizes, side):
                markup = re.sub("<!--.*?-->", "", one.toxml())
                stated = number(re.sub("<[^>]*>", "", markup).strip() or "0")
                assert stated <= 0 or stated == actual
    return objects


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = write(tmp_path_factory.mktemp("mutated"), {"a.xml": WHOLE, "b.xml": CAT})
    return write(root, {"a.jpg": None, "b.jpg": None})


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(mutated())
def test_a_mutated_file_is_read_as_another_parser_does_or_refused(folder, data):
    (folder / "a.xml").write_bytes(data)
    try:
        _, contents = as_coco(find_voc(folder), folder)
    except InputError as error:
        assert str(error).startswith(f"{folder}/a.xml") and str(error).isprintable()
        # Nothing is refused that is sure.
        with pytest.raises(Exception):  # noqa: B017
            meaning(data)
        return
    objects = [*meaning(data), ("cat", [2, 3, 5, 8])]
    first = 0 if min(min(corners[:2]) for _, corners in objects) < 1 else 1
    content = contents[ALL][0]
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert [(names[one["category_id"]], one["bbox"]) for one in content["annotations"]] == [
        (name, [left - first, top - first, right - left + first, bottom - top + first])
        for name, (left, top, right, bottom) in objects
    ]
