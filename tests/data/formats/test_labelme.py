"""labelme's folders: each shape and layout by hand, each refusal, and files with anything wrong in them."""

import base64
import copy
import io
import json
import os

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelme_files import write_labelme
from PIL import Image

from ssl_backbones.data.formats.labelled import as_coco
from ssl_backbones.data.formats.labelme import find_labelme
from ssl_backbones.errors import InputError

SIZES = {"a.png": (20, 10), "b.png": (8, 6)}


def write(root, files):
    """Images of a size, JSON of a content, or bytes, by name."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            Image.new("RGB", content).save(path)
        else:
            path.write_bytes(
                content if isinstance(content, bytes) else json.dumps(content).encode()
            )


def shape(kind, *points, label="cat", group=None, **keys):
    points = [list(point) for point in points]
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, **keys}


def labels(*shapes, image="a.png", **keys):
    return {"version": "5.5.0", "shapes": [*shapes], "imagePath": image, "imageData": None, **keys}


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def read(root, name="a.json"):
    """An image as it is meant, with what is said, and (class, box, mask) of its objects."""
    data = find_labelme(root)
    paths = [path for paths in data.splits.values() for path in paths]
    images, said = data.settle([data.read(path) for path in paths])
    image = images[paths.index(root / name)]
    return image, said, [(one.name, one.bbox, one.segmentation) for one in image.objects]


def drawn(mask):
    """A mask in run lengths: which of 20 x 10 pixels it has, x and y."""
    assert mask["size"] == [10, 20] and type(mask["counts"]) is str
    ys, xs = np.nonzero(pycocotools.mask.decode(mask))
    return sorted(zip(xs.tolist(), ys.tolist(), strict=True))


# Shapes

TRIANGLE = shape("polygon", (1, 2), (5, 2.5), (5, 8))
FLAT = [1, 2, 5, 2.5, 5, 8]
L = [[1, 1], [1, 0]]  # of pixels
OUTLINED = {
    "a polygon": ([TRIANGLE], [("cat", None, [FLAT])]),
    "a label with blanks": ([{**TRIANGLE, "label": " a cat\n"}], [("a cat", None, [FLAT])]),
    "of the oldest files": (
        [{"label": "cat", "points": TRIANGLE["points"]}],
        [("cat", None, [FLAT])],
    ),
    "a pixel outside": (
        [shape("polygon", (-1, 0), (21, 11), (0.5, 11))],
        [("cat", None, [[-1, 0, 21, 11, 0.5, 11]])],
    ),
    "a turned rectangle": (
        [shape("oriented_rectangle", (4, 0), (8, 4), (4, 8), (0, 4))],
        [("cat", None, [[4, 0, 8, 4, 4, 8, 0, 4]])],
    ),
    "groups": (
        [
            {**TRIANGLE, "group_id": 0},
            {**TRIANGLE, "group_id": None},
            shape("polygon", (6, 6), (7, 6), (7, 7), group=0),
            {**TRIANGLE, "group_id": 0, "label": "dog"},
            {**TRIANGLE, "group_id": None},
            {**TRIANGLE, "group_id": "0"},
        ],
        [
            ("cat", None, [FLAT, [6, 6, 7, 6, 7, 7]]),
            ("cat", None, [FLAT]),
            ("dog", None, [FLAT]),
            ("cat", None, [FLAT]),
            ("cat", None, [FLAT]),
        ],
    ),
    "a rectangle beside": (
        [shape("rectangle", (9, 2.5), (4, 7)), TRIANGLE],
        [("cat", None, [[4, 2.5, 9, 2.5, 9, 7, 4, 7]]), ("cat", None, [FLAT])],
    ),
    "a rectangle in a group": (
        [shape("rectangle", (4, 2), (9, 7), group=3), {**TRIANGLE, "group_id": 3}],
        [("cat", None, [[4, 2, 9, 2, 9, 7, 4, 7], FLAT])],
    ),
}
BOXES = {
    "corners in any order": (
        [
            shape("rectangle", *p)
            for p in (((4, 2.5), (9, 7)), ((9, 2.5), (4, 7)), ((9, 7), (4, 2.5)))
        ],
        [("cat", [4, 2.5, 5, 4.5], None)] * 3,
    ),
    "four corners": (
        [shape("rectangle", (9, 2.5), (9, 7), (4, 7), (4, 2.5))],
        [("cat", [4, 2.5, 5, 4.5], None)],
    ),
    "a group": (
        [
            shape("rectangle", (4, 2), (9, 7), group=1),
            shape("rectangle", (12, 0), (11, 3), group=1),
        ],
        [("cat", [4, 0, 8, 7], None)],
    ),
    "nothing": ([], []),
}


@pytest.mark.parametrize("name", [*OUTLINED, *BOXES])
def test_a_shape_is_read_as_by_hand(tmp_path, name):
    shapes, expected = {**OUTLINED, **BOXES}[name]
    write(tmp_path, {"a.png": SIZES["a.png"], "a.json": labels(*shapes)})
    image, _, objects = read(tmp_path)
    assert (image.path, image.width, image.height) == (tmp_path / "a.png", 20, 10)
    # As text: 5 is not 5.0.
    assert json.dumps(objects) == json.dumps(expected)


def labelmes_circle(points):
    """From labelme 5.5's examples/instance_segmentation/labelme2coco.py."""
    (x1, y1), (x2, y2) = points
    r = np.linalg.norm([x2 - x1, y2 - y1])
    # Of a radius up to 1, where its formula is of no number, the least.
    n = max(int(np.pi / np.arccos(1 - 1 / r)), 12) if r > 1 else 12
    i = np.arange(n)
    x = x1 + r * np.sin(2 * np.pi / n * i)
    y = y1 + r * np.cos(2 * np.pi / n * i)
    return np.stack((x, y), axis=1).flatten()


@pytest.mark.parametrize(
    ("points", "number"),
    # pi / arccos(1 - 1/50) = 15.68; of 4 and of 0.3 it is below 12.
    [([(100, 60), (130, 100)], 15), ([(10, 5), (10, 9.0)], 12), ([(3, 3), (3.3, 3)], 12)],
)
def test_a_circle_is_labelmes_polygon(tmp_path, points, number):
    write(tmp_path, {"a.png": (200, 120), "a.json": labels(shape("circle", *points))})
    [(_, box, [polygon])] = read(tmp_path)[2]
    assert box is None and len(polygon) == 2 * number
    np.testing.assert_allclose(polygon, labelmes_circle(points), rtol=0, atol=1e-9)


MASKS = {
    "last pixel": ([(3, 4), (4, 5)], L, [(3, 4), (3, 5), (4, 4)]),
    "dragged by parts of a pixel": ([(3.3, 4.4), (4.3, 5.4)], L, [(3, 4), (3, 5), (4, 4)]),
    "behind the last": ([(3, 4), (5, 6)], [[*row, 0] for row in L] + [[0] * 3], [(3, 4), (3, 5), (4, 4)]),
    "at the end": ([(18, 8), (20, 10)], L, [(18, 8), (18, 9), (19, 8)]),
    "of 0 and 255": ([(0, 0), (1, 0)], [[0, 255]], [(1, 0)]),
    "of nothing": ([(0, 0), (0, 0)], [[0]], []),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_put_at_its_upper_left_corner(tmp_path, name):
    points, pixels, expected = MASKS[name]
    content = labels(shape("mask", *points, mask=png(pixels)))
    write(tmp_path, {"a.png": SIZES["a.png"], "a.json": content})
    [(label, box, mask)] = read(tmp_path)[2]
    assert (label, box, drawn(mask)) == ("cat", None, expected)


def test_a_mask_and_outlines_of_one_group_are_run_lengths(tmp_path):
    square = shape("polygon", (10, 2), (12, 2), (12, 4), (10, 4), group=5)
    parts = [square, shape("mask", (3, 4), (4, 5), mask=png(L), group=5)]
    write(tmp_path, {"a.png": SIZES["a.png"], "a.json": labels(*parts)})
    [(_, box, mask)] = read(tmp_path)[2]
    pixels = [(3, 4), (3, 5), (4, 4), *((x, y) for x in (10, 11) for y in (2, 3))]
    assert box is None and drawn(mask) == sorted(pixels)


def test_what_is_no_object_is_left_out_and_said(tmp_path):
    odd = [
        shape("point", (1, 1)),
        shape("linestrip", (1, 1), (99, 2)),
        shape("line", (0, 0), (2, 2)),
    ]
    write(tmp_path, {"a.png": SIZES["a.png"], "a.json": labels(*odd, TRIANGLE, shape("points"))})
    image, said, objects = read(tmp_path)
    assert objects == [("cat", None, [FLAT])] and said == []
    assert image.notes == ["points and lines are left out: key points are not learnt from labelme"]
    assert image.objects[0].origin == "a.json shape 4"


def test_boxes_turn_to_polygons_where_any_file_has_an_outline(tmp_path):
    boxes = labels(*BOXES["corners in any order"][0])
    files = {"a.png": (20, 10), "a.json": boxes, "b.png": (20, 10)}
    write(tmp_path, {**files, "b.json": labels(TRIANGLE, image="b.png")})
    _, [said], objects = read(tmp_path)
    assert objects == [("cat", None, [[4, 2.5, 9, 2.5, 9, 7, 4, 7]])] * 3
    assert said.startswith("3 of 4 objects are rectangles (first: a.json shape 1)")
    # In COCO's form the box and the area are those of the rectangle: 5 x 4.5, 20 of whose pixels are drawn.
    content, _ = as_coco(find_labelme(tmp_path), tmp_path)[1]["all"]
    assert content["annotations"][0]["bbox"] == [4, 2.5, 5, 4.5]


# Layouts

BOX = shape("rectangle", (1, 1), (3, 3))
A, B = SIZES["a.png"], SIZES["b.png"]
NONE = {"settings": 1}
LAYOUTS = {
    "beside": (
        {
            **{"b.png": B, "a.png": A, "a.json": labels(BOX), "b.json": labels(BOX, image="b.png")},
            **{"old/a.png": A, "old/a.json": labels(BOX)},
        },
        {"all": {"a.json": "a.png", "b.json": "b.png"}},
        0,
    ),
    "splits": (
        {
            **{"train/a.png": A, "train/a.json": labels(BOX), "train/b.png": B},
            **{"Valid/a.png": A, "Valid/a.json": labels(BOX), "Valid/c.jpg": B},
            **{"test/a.png": A, "other/a.json": labels(BOX), "notes.json": NONE},
        },
        {"train": {"train/a.json": "train/a.png"}, "val": {"Valid/a.json": "Valid/a.png"}},
        3,
    ),
    "elsewhere": (
        {
            **{"images/a.png": A, "images/b.png": B, "readme.json": NONE},
            "annotations/a.json": labels(BOX, image="..\\images\\a.png"),
        },
        {"all": {"annotations/a.json": "images/a.png"}},
        1,
    ),
    "moved and of another kind": (
        {"a.JPG": A, "a.json": labels(BOX, image="C:\\data\\a.png")},
        {"all": {"a.json": "a.JPG"}},
        0,
    ),
    "without imagePath": (
        {"a.png": A, "a.json": {"shapes": [], "imageData": None}},
        {"all": {"a.json": "a.png"}},
        0,
    ),
    "among others": (
        {"a.png": A, "a.json": labels(BOX), "1.json": NONE, "2.json": [5], "3.json": b"null"},
        {"all": {"a.json": "a.png"}},
        0,
    ),
    "with a mark": (
        {"a.png": A, "a.json": b"\xef\xbb\xbf" + json.dumps(labels(BOX)).encode()},
        {"all": {"a.json": "a.png"}},
        0,
    ),
    "images alone": ({"a.png": A, "train/b.png": B}, None, 0),
    "settings": ({"a.png": A, "a.json": NONE, "b.json": b"{"}, None, 0),
    "coco": ({"train.json": {"images": [], "annotations": [], "categories": []}}, None, 0),
    "too deep": ({"a/b/a.png": A, "a/b/a.json": labels(BOX)}, None, 0),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(tmp_path, name):
    files, expected, bare = LAYOUTS[name]
    write(tmp_path, files)
    data = find_labelme(tmp_path)
    if expected is None:
        assert data is None
        return
    found = {
        split: {
            os.path.relpath(path, tmp_path): os.path.relpath(data.read(path).path, tmp_path)
            for path in paths
        }
        for split, paths in data.splits.items()
    }
    assert found == expected
    assert all(paths == sorted(paths) for paths in data.splits.values())
    assert data.classes is None and list(data.splits) == list(expected)
    used = {tmp_path / image for images in expected.values() for image in images.values()}
    assert used <= set(data.files)
    assert [note.split(" ", 1)[0] for note in data.notes] == ([str(bare)] if bare else [])
    words = "" if "all" in expected else ": train, val"
    assert data.form == f"labelme's files{words}"


def test_the_upright_size_counts(tmp_path):
    write(tmp_path, {"a.json": labels(BOX, image="a.jpg", imageHeight=20, imageWidth=10)})
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path)[0][1:3] == (10, 20)


def test_no_more_than_twenty_files_tell(tmp_path):
    write(tmp_path, {f"{number:02}.json": NONE for number in range(20)})
    write(tmp_path, {"a.png": A, "a.json": labels(BOX)})
    assert find_labelme(tmp_path) is None
    (tmp_path / "19.json").unlink()
    assert find_labelme(tmp_path) is not None


# Refusals


def with_shape(kind="polygon", points=TRIANGLE["points"], **keys):
    return labels(TRIANGLE, shape(kind, *points, **keys))


def mask(points, pixels):
    return with_shape("mask", points, mask=pixels)


REFUSED = {
    "a cut file": (b'{"shapes": [', "a.json is not JSON: .*; mend it"),
    "deep lists": (b"[" * 100_000, "a.json is not JSON: .*; mend it"),
    "no UTF-8": (b'{"shapes": "\xff"}', "a.json is not JSON: .*; mend it"),
    "settings": (NONE, "a.json is beside an image and not labelme's; take it out"),
    "another tool's": (
        [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {}}]}],
        "a.json is CreateML's: ",
    ),
    "a width": (labels(imageWidth=21), "a.json: imageWidth is 21, and image .*a.png, .* 20 x 10; "),
    "a turned height": (labels(imageHeight=20), "a.json: imageHeight is 20, and .*a.png"),
    "a height in words": (labels(imageHeight="10"), "a.json: imageHeight is '10'"),
    "two images": (labels(image="b.png"), "its imagePath is .*b.png, and .*a.png is beside it; keep"),
    "an image in numbers": (labels(image=0), "a.json: imagePath is 0, which is no text"),
    "a shape in numbers": (labels(5), r"shape 1 \(5\) is no object of JSON"),
    "no label": (labels({"points": [[1, 1]] * 3}), r"shape 1 \(null\) has no label"),
    "a blank label": (with_shape(label=" \n"), r"shape 2 \(' \\n'\) has no label"),
    "half a letter": (with_shape(label="\ud800"), r"shape 2 \('\\ud800'\) has no label"),
    "a group": (with_shape(group=True), r"shape 2 \('cat'\) has the group_id true; give"),
    "a type": (with_shape("star"), "has the shape_type 'star', which labelme does not write"),
    "no type": (with_shape(["polygon"]), r"has the shape_type \['polygon'\], which"),
    "two points": (with_shape(points=[(1, 1), (2, 2)]), "is a polygon of 2 points; draw it"),
    "three corners": (with_shape("rectangle"), "is a rectangle of 3 points"),
    "a turned rectangle": (
        with_shape("rectangle", [(4, 0), (8, 4), (4, 8), (0, 4)]),
        "is a rectangle that is not upright; make it a polygon",
    ),
    "a right": (
        with_shape(points=[(1, 1), (2, 2), (21.5, 1)]),
        r"shape 2 \('cat'\) has the point \[21.5, 1\] outside the image of 20 x 10; move",
    ),
    "a top": (with_shape(points=[(1, 1), (2, -1.5), (2, 1)]), r"the point \[2, -1.5\] outside"),
    "not a number": (with_shape(points=[(1, 1), (2, float("nan")), (2, 1)]), r"the point \[2, nan"),
    "infinity": (with_shape(points=[(1, 1), (2, float("inf")), (2, 1)]), r"the point \[2, inf"),
    "a truth": (with_shape(points=[(1, 1), (2, True), (2, 1)]), "points that are not pairs"),
    "text": (with_shape(points=[(1, 1), (2, "3"), (2, 1)]), "points that are not pairs"),
    "three coordinates": (with_shape(points=[(1, 1, 1)] * 3), "points that are not pairs"),
    "no points": (labels({**TRIANGLE, "points": None}), "points that are not pairs"),
    "no radius": (with_shape("circle", [(2, 2), (2, 2)]), "is a circle without a radius"),
    "no mask": (with_shape("mask", [(1, 1), (2, 2)]), "has a mask that is not a PNG in base64"),
    "no PNG": (mask([(1, 1), (2, 2)], "aGVsbG8="), "has a mask that is not a PNG in base64"),
    "a cut PNG": (mask([(1, 1), (2, 2)], png(L)[:60]), "has a mask that is not a PNG in base64"),
    "a small mask": (mask([(1, 1), (4, 4)], png(L)), "has a mask that is not as large as its points"),
    "a large mask": (mask([(1, 1), (1, 1)], png(L)), "has a mask that is not as large as its points"),
    "a far mask": (mask([(19, 1), (20, 2)], png(L)), "or not inside the image"),
    "a mask outside": (mask([(-1, 1), (0, 2)], png(L)), "or not inside the image"),
    "a mask in colour": (mask([(1, 1), (1, 1)], png([[[1, 1, 1]]])), "has a mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line(tmp_path, name):
    content, message = REFUSED[name]
    files = {"a.png": A, "b.png": B, "a.json": content, "b.json": labels(BOX, image="b.png")}
    write(tmp_path, files)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert str(caught.value).isprintable() and str(tmp_path / "a.json") in str(caught.value)


IMAGES = {
    "none": (labels(), "its image 'a.png' is not there; put it there, or beside"),
    "far away": (labels(image="../x/\ta.png"), r"its image '../x/\\ta.png' is not there"),
    "another tool's": ([{"image_id": 1, "score": 1.0}], "a.json is a list of detections"),
    "cut": (b"{", "a.json is not JSON"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_a_file_without_an_image_is_one_line(tmp_path, name):
    content, message = IMAGES[name]
    write(tmp_path, {"b.png": B, "a.json": content, "b.json": labels(BOX, image="b.png")})
    with pytest.raises(InputError, match=message) as caught:
        find_labelme(tmp_path)
    assert str(caught.value).isprintable()


def test_a_damaged_image_and_a_split_that_cannot_be_read_are_one_line(tmp_path):
    write(tmp_path, {"train/a.png": b"?", "train/a.json": labels(BOX)})
    with pytest.raises(InputError, match=r"a.png cannot be used: it is damaged"):
        read(tmp_path, "train/a.json")
    (tmp_path / "val").symlink_to("nowhere")
    with pytest.raises(InputError, match="val cannot be read"):
        find_labelme(tmp_path)


# Anything wrong

ours = settings(max_examples=300, deadline=None, derandomize=True, database=None)
CLEAN = labels(
    {**TRIANGLE, "group_id": 1},
    shape("polygon", (6, 6), (7.5, 6), (7, 7), group=1),
    shape("rectangle", (9, 2.5), (4, 7)),
    shape("rectangle", (9, 2), (9, 7), (4, 7), (4, 2), label="dog"),
    shape("circle", (5, 5), (5, 8)),
    shape("mask", (3, 4), (4, 5), mask=png(L), group=2),
    shape("mask", (0, 0), (1, 0), mask=png([[0, 1]]), label="hen"),
    shape("point", (1, 1)),
    imageWidth=20,
    imageHeight=10,
)
VALUES = [
    *(-1, 0, 1, 2, 0.5, 7.25, 10, 12, 20, 1e9, float("nan"), True, "", "1", "dog", [], {}, [[1, 2]]),
    *("b.png", "c.png", "polygon", "rectangle", "circle", "mask", "line", png(L), [3, 4], BOX),
]  # fmt: skip


def paths_in(content, prefix=()):
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths_in(value, (*prefix, key))


def get(content, path):
    for key in path:
        content = content[key]
    return content


@st.composite
def mutated(draw):
    """The clean file after one or two changes; a swap is of two values, neither inside the other."""
    content = copy.deepcopy(CLEAN)
    for _ in range(draw(st.integers(1, 2))):
        paths = list(paths_in(content))
        depth = draw(st.sampled_from(sorted({len(path) for path in paths})))
        path = draw(st.sampled_from([path for path in paths if len(path) == depth]))
        parent, value = get(content, path[:-1]), get(content, path)
        change = draw(st.sampled_from(["drop", "null", "retype", "other", "swap"]))
        if change == "drop":
            del parent[path[-1]]
        elif change == "swap":
            apart = [p for p in paths if p[: len(path)] != path and path[: len(p)] != p]
            if apart:
                other = draw(st.sampled_from(apart))
                parent[path[-1]] = get(content, other)
                get(content, other[:-1])[other[-1]] = value
        elif change == "other":
            parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        else:
            number = isinstance(value, int | float)
            kinds = [str(value), float(value) if number else [value]]
            parent[path[-1]] = None if change == "null" else draw(st.sampled_from(kinds))
    return content


def number(value):
    assert isinstance(value, int | float) and not isinstance(value, bool)
    return value


def part_meant(one, kind, width, height):
    """A shape's polygon, or its pixels."""
    points = one["points"]
    assert isinstance(points, list) and all(isinstance(point, list) for point in points)
    for x, y in points:
        assert -1 <= number(x) <= width + 1 and -1 <= number(y) <= height + 1
    if kind == "circle":
        (_, _) = points
        assert points[0] != points[1]
        return labelmes_circle(points).tolist()
    if kind == "mask":
        (x, y), (right, bottom) = points
        assert isinstance(one["mask"], str)
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(one["mask"]))))
        (rows, columns), x0, y0 = pixels.shape, round(x), round(y)
        assert 0 <= x0 <= x0 + columns <= width and 0 <= y0 <= y0 + rows <= height
        assert -1 < right - x + 1 - columns <= 1 and -1 < bottom - y + 1 - rows <= 1
        whole = np.zeros((height, width), bool)
        whole[y0 : y0 + rows, x0 : x0 + columns] = pixels
        return whole
    if kind == "rectangle":
        assert len(points) in (2, 4)
        xs, ys = sorted(x for x, _ in points), sorted(y for _, y in points)
        corners = [[xs[0], ys[0]], [xs[-1], ys[0]], [xs[-1], ys[-1]], [xs[0], ys[-1]]]
        assert len(points) == 2 or all(points.count(c) == corners.count(c) for c in corners)
        points = corners
    assert len(points) > 2
    return [x for point in points for x in point]


def meaning(content):
    """What a file means, in the plainest way; some error where it is not sure."""
    shapes, name = content["shapes"], content.get("imagePath")
    assert isinstance(shapes, list) and content.keys() & {"imagePath", "imageData"}
    assert name is None or isinstance(name, str)
    assert name not in SIZES or name == "a.png"
    width, height = SIZES["a.png"]
    for key, side in (("imageWidth", width), ("imageHeight", height)):
        assert content.get(key) is None or number(content[key]) == side
    objects = {}
    for place, one in enumerate(shapes):
        label, kind, group = one["label"].strip(), one.get("shape_type"), one.get("group_id")
        assert label and (isinstance(group, str | None) or number(group) == group)
        assert not isinstance(group, float)
        kind = "polygon" if kind is None else kind
        if kind in ("point", "points", "line", "linestrip"):
            continue
        assert kind in ("polygon", "rectangle", "circle", "mask")
        key = (label, group, place if group is None else None)
        objects.setdefault(key, []).append((kind, part_meant(one, kind, width, height)))
    meant = []
    for (label, *_), parts in objects.items():
        outlines = [part for kind, part in parts if kind != "mask"]
        pixels = [part for kind, part in parts if kind == "mask"]
        if pixels and outlines:
            pixels += list(
                pycocotools.mask.decode(
                    pycocotools.mask.frPyObjects(outlines, height, width)
                ).transpose(2, 0, 1)
            )
        meant.append((label, np.any(pixels, axis=0).tolist() if pixels else outlines))
    return SIZES["a.png"], meant


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelme")
    # Its triangle makes polygons of all rectangles.
    write(
        root, {**SIZES, "b.json": labels(shape("polygon", (1, 1), (5, 1), (1, 4)), image="b.png")}
    )
    return root


def outcome(root, data):
    (root / "a.json").write_bytes(data)
    try:
        image, _, objects = read(root)
    except InputError as error:
        assert str(error).isprintable() and str(root / "a.") in str(error)
        return None
    assert all(box is None for _, box, _ in objects)
    masks = [(name, mask) for name, _, mask in objects]
    for place, (name, mask) in enumerate(masks):
        if isinstance(mask, dict):
            masks[place] = (name, pycocotools.mask.decode(mask).astype(bool).tolist())
    return (image.width, image.height), masks


@ours
@given(mutated())
def test_a_mutated_file_is_read_as_what_it_means_or_refused(folder, content):
    data = json.dumps(content)
    try:
        expected = meaning(json.loads(data))
    except Exception:
        expected = None
    # As text: 5 is not 5.0.
    assert json.dumps(outcome(folder, data.encode())) == json.dumps(expected)


@ours
@given(st.binary(max_size=30), st.integers(0, len(json.dumps(CLEAN))), st.integers(0, 30))
def test_any_bytes_are_read_as_what_they_mean_or_refused(folder, data, start, length):
    text = json.dumps(CLEAN).encode()
    for spoilt in (data, text[:start] + data + text[start + length :]):
        try:
            expected = meaning(json.loads(spoilt))
        except Exception:
            expected = None
        assert json.dumps(outcome(folder, spoilt)) == json.dumps(expected)


def test_the_digits_are_the_coco_files_of_ten_lines(digits, tmp_path):
    labelme, coco = write_labelme(digits, tmp_path)
    folder, splits = as_coco(find_labelme(labelme), labelme)
    assert folder == labelme and list(splits) == ["train", "val"]
    for split, (content, said) in splits.items():
        for image in content["images"]:
            image["file_name"] = image["file_name"].removeprefix(f"{split}/")
        for annotation in content["annotations"]:
            del annotation["origin"]
        assert said == [] and content == json.loads((coco / f"{split}.json").read_text())
