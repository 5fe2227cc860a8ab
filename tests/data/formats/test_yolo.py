"""YOLO's folders: which image is of which split, and what a row of numbers is, by hand."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from yolo_files import write_yolo

from ssl_backbones.data.data_yaml import read_data_yaml
from ssl_backbones.data.formats.labelled import ALL, as_coco
from ssl_backbones.data.formats.yolo import find_yolo
from ssl_backbones.errors import InputError


def write(root, files: dict) -> None:
    """Write texts and bytes, and images where a size is."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            Image.new("RGB", content).save(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def found(root):
    """What is found in a folder, by its data.yaml where it has one, and read."""
    path = root / "data.yaml"
    data = find_yolo(root, read_data_yaml(path) if path.exists() else None)
    return data, as_coco(data, root)


def refusal(root) -> str:
    with pytest.raises(InputError) as caught:
        found(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- layouts: two images, of which the second tests where there are splits

A, B = (40, 20), (10, 10)
ROW_A, ROW_B = "1 0.5 0.5 0.25 0.5\n", "0 0.25 0.75 0.5 0.5\n"
BOX_A, BOX_B = [15, 5, 10, 10], [0, 5, 5, 5]  # (0.5 - 0.125) * 40, (0.5 - 0.25) * 20, ...
YAML = "train: {}\nval: {}\nnc: 2\nnames: ['cat', 'dog']\n"
SPLIT_FOLDERS = {
    "images/train/a.jpg": A,
    "images/val/b.JPG": B,
    "labels/train/a.txt": ROW_A,
    "labels/val/b.txt": ROW_B,
}
LAYOUTS = {
    "ultralytics": (
        {**SPLIT_FOLDERS, "data.yaml": YAML.format("images/train", "images/val")},
        {"train": "images/train/a.jpg", "val": "images/val/b.JPG"},
    ),
    "folders_inside": (
        {
            "images/train/day/1/a.jpg": A,
            "images/val/b.jpg": B,
            "labels/train/day/1/a.txt": ROW_A,
            "labels/val/b.txt": ROW_B,
            "data.yaml": YAML.format("images/train", "images/val"),
        },
        {"train": "images/train/day/1/a.jpg", "val": "images/val/b.jpg"},
    ),
    "roboflow": (
        {
            "train/images/a_jpg.rf.0a.jpg": A,
            "train/labels/a_jpg.rf.0a.txt": ROW_A,
            "valid/images/b.jpg": B,
            "valid/labels/b.txt": ROW_B,
            "data.yaml": YAML.format("../train/images", "../valid/images")
            + "test: ../test/images\n",
            "README.dataset.txt": "0 0 0 0 0",
            "README.roboflow.txt": "",
        },
        {"train": "train/images/a_jpg.rf.0a.jpg", "val": "valid/images/b.jpg"},
    ),
    "lists": (
        {
            **SPLIT_FOLDERS,
            "images/train/left_out.png": B,
            "labels/train/left_out.txt": ROW_B,
            "train.txt": "\ufeff./images/train/a.jpg\r\n\r\n./images/train/a.jpg",
            "more/val.txt": "..\\images\\val\\b.JPG\n",
            "data.yaml": YAML.format("train.txt", "more/val.txt"),
        },
        {"train": "images/train/a.jpg", "val": "images/val/b.JPG"},
    ),
    "names_beside_a_yaml": (
        {
            **SPLIT_FOLDERS,
            "classes.txt": "cat\ndog",
            "data.yaml": "train: images/train\nval: images/val",
        },
        {"train": "images/train/a.jpg", "val": "images/val/b.JPG"},
    ),
    "no_yaml": (
        {**SPLIT_FOLDERS, "classes.txt": "cat\r\ndog\r\n\r\n"},
        {"train": "images/train/a.jpg", "val": "images/val/b.JPG"},
    ),
    "roboflow_without_yaml": (
        {
            "train/images/a.jpg": A,
            "train/labels/a.txt": ROW_A,
            "test/images/b.jpg": B,
            "test/labels/b.txt": ROW_B,
            "coco.names": "cat\ndog",
        },
        {"train": "train/images/a.jpg", "test": "test/images/b.jpg"},
    ),
    "roboflow_darknet": (
        {
            "train/a.jpg": A,
            "train/a.txt": ROW_A,
            "train/_darknet.labels": "cat\ndog",
            "valid/b.jpg": B,
            "valid/b.txt": ROW_B,
            "valid/_darknet.labels": "cat\ndog",
        },
        {"train": "train/a.jpg", "val": "valid/b.jpg"},
    ),
    "label_studio": (
        {
            "images/a.jpg": A,
            "images/b.tiff": B,
            "labels/a.txt": ROW_A,
            "labels/b.txt": ROW_B,
            "labels/classes.txt": "cat\ndog",
            "notes.json": "{}",
        },
        {ALL: "images/a.jpg images/b.tiff"},
    ),
    "cvat": (
        {
            "obj.data": "names = data/obj.names",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "valid.txt": "obj_valid_data/b.jpg\n",
            "obj_train_data/a.jpg": A,
            "obj_train_data/a.txt": ROW_A,
            "obj_valid_data/b.jpg": B,
            "obj_valid_data/b.txt": ROW_B,
        },
        {"train": "obj_train_data/a.jpg", "val": "obj_valid_data/b.jpg"},
    ),
    "one_folder": (
        {
            "a.jpg": A,
            "a.txt": ROW_A,
            "b.webp": B,
            "b.txt": ROW_B,
            "classes.txt": "cat\ndog",
            "licence.txt": "Free.",
            "unrelated/c.jpg": A,
        },
        {ALL: "a.jpg b.webp"},
    ),
}


NOT_READ = re.compile(r"README|licence|left_out|notes|obj\.data|\.(jpg|JPG|webp|tiff|png)$")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_told_by_its_layout(tmp_path, layout):
    files, splits = LAYOUTS[layout]
    write(tmp_path, files)
    data, (folder, contents) = found(tmp_path)
    assert folder == tmp_path and list(data.splits) == list(splits)
    objects = []
    for split, names in splits.items():
        content, _ = contents[split]
        assert data.splits[split] == [tmp_path / name for name in names.split()]
        assert [image["file_name"] for image in content["images"]] == names.split()
        assert [one["name"] for one in content["categories"]] == ["cat", "dog"]
        objects += [(one["category_id"], one["bbox"]) for one in content["annotations"]]
    assert objects == [(2, BOX_A), (1, BOX_B)]
    ours = {path.relative_to(tmp_path).as_posix() for path in data.files}
    assert ours == {name for name in files if not NOT_READ.search(name)}


def test_without_names_classes_are_called_by_number(tmp_path):
    write(tmp_path, {"a.jpg": A, "a.txt": "10 0.5 0.5 0.25 0.5\n2 0.5 0.5 0.25 0.5"})
    _, (_, contents) = found(tmp_path)
    content, said = contents[ALL]
    assert [one["name"] for one in content["categories"]] == [str(n) for n in range(11)]
    assert [one["category_id"] for one in content["annotations"]] == [11, 3]
    assert len(said) == 1 and "classes are called by number" in said[0]


def test_an_image_without_a_label_file_has_no_objects(tmp_path):
    write(tmp_path, {"b.png": B, "c.png": B, "d.png": B, "d.txt": "\n", "a.jpg": A, "a.txt": ROW_A})
    write(tmp_path, {"classes.txt": "cat\ndog"})
    _, (_, contents) = found(tmp_path)
    content, said = contents[ALL]
    assert [one["image_id"] for one in content["annotations"]] == [1]
    assert len(content["images"]) == 4
    assert said == [
        f"2 images (first: {tmp_path / 'b.png'}): there is no label file: read as without objects"
    ]


def test_a_test_split_that_is_named_and_not_there_is_left_out(tmp_path):
    write(tmp_path, LAYOUTS["roboflow"][0])
    data, _ = found(tmp_path)
    assert data.notes == ["test is not there or has no image, and is left out"]


def test_labels_lie_where_the_last_images_is_labels(tmp_path):
    """As in Ultralytics: the folder above is called images, too."""
    root = tmp_path / "images" / "mine"
    write(root, {"images/a.jpg": A, "labels/a.txt": ROW_A, "classes.txt": "cat\ndog"})
    write(tmp_path / "labels" / "mine", {"images/a.txt": ROW_B})
    _, (_, contents) = found(root)
    assert [one["bbox"] for one in contents[ALL][0]["annotations"]] == [BOX_A]


def test_a_link_back_ends(tmp_path):
    write(tmp_path, {"images/a.jpg": A, "labels/a.txt": ROW_A, "classes.txt": "cat\ndog"})
    (tmp_path / "images/all").symlink_to(".")
    assert found(tmp_path)[0].splits == {ALL: [tmp_path / "images/a.jpg"]}


NOTHING = {
    "empty": {"x.md": ""},
    "no_labels": {"images/train/a.jpg": A},
    "no_images": {"labels/a.txt": ROW_A},
    "captions": {"a.jpg": A, "a.txt": "A cat on 5 mats."},
    "coco": {"train/a.jpg": A, "train.json": "{}", "data.yaml": "train: train.json"},
    "coco_folder": {
        "train/a.jpg": A,
        "train/_annotations.coco.json": "{}",
        "data.yaml": "train: train",
    },
    "empty_labels": {"images/a.jpg": A, "labels/a.txt": ""},
    "elsewhere": {"data.yaml": "train: none"},
}


@pytest.mark.parametrize("case", NOTHING)
def test_other_folders_are_left_to_others(tmp_path, case):
    write(tmp_path, NOTHING[case])
    path = tmp_path / "data.yaml"
    assert find_yolo(tmp_path, read_data_yaml(path) if path.exists() else None) is None


# --- rows, of an image of 40 x 20

ROWS = {
    "box": ("1 0.5 0.5 0.25 0.5", {"bbox": BOX_A}),
    "other_numbers": ("\ufeff 1.0\t5e-1 .5  +0.25 0.50000\r\n\r\n", {"bbox": BOX_A}),
    # (-0.0078125 - 0.0078125) * 40, (1 - 0.5) * 20, 0.015625 * 40, 20
    "a_little_outside": ("1 -0.0078125 1 0.015625 1", {"bbox": [-0.625, 10, 0.625, 20]}),
    "triangle": (
        "1 0 0 0.5 0 0.5 0.75",
        {"segmentation": [[0, 0, 20, 0, 20, 15]], "bbox": [0, 0, 20, 15]},
    ),
    "turned_box": (
        "1 0.25 0.25 0.5 0.5 0.25 0.75 0 0.5",
        {"segmentation": [[10, 5, 20, 10, 10, 15, 0, 10]], "bbox": [0, 5, 20, 10]},
    ),
    "key_points": (
        "1 0.5 0.5 0.25 0.5 0.5 0.25 2 0.25 0.5 1.0 0 0 0",
        {"bbox": BOX_A, "keypoints": [20, 5, 2, 10, 10, 1, 0, 0, 0], "num_keypoints": 2},
    ),
    "flat_key_points": (
        "1 0.5 0.5 0.25 0.5 0.5 0.25 0 0 0 0.5",
        {"bbox": BOX_A, "keypoints": [20, 5, 2, 0, 0, 0, 0, 10, 2], "num_keypoints": 2},
    ),
}
KPT_SHAPES = {"key_points": "[3, 3]", "flat_key_points": "[3, 2]"}


def one_label(root, text, kpt_shape=None) -> None:
    shape = f"kpt_shape: {kpt_shape}\n" if kpt_shape else ""
    yaml = "train: images\nnames: [cat, dog]\n" + shape
    # The second lets the folder be known as YOLO's, whatever is in the first.
    good = {"images/b.jpg": A, "labels/b.txt": ROW_A}
    write(root, {"images/a.jpg": A, "labels/a.txt": text, **good, "data.yaml": yaml})


@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_read(tmp_path, case):
    text, expected = ROWS[case]
    one_label(tmp_path, text, KPT_SHAPES.get(case))
    (tmp_path / "images/b.jpg").unlink()
    (tmp_path / "labels/b.txt").unlink()
    (annotation,) = found(tmp_path)[1][1]["train"][0]["annotations"]
    assert annotation["category_id"] == 2 and annotation["origin"] == "labels/a.txt line 1"
    keys = ("bbox", "segmentation", "keypoints", "num_keypoints")
    assert {key: annotation[key] for key in keys if key in annotation} == expected


def test_shares_are_of_the_upright_image(tmp_path):
    """A camera's 40 x 20 that its EXIF turns to 20 x 40."""
    one_label(tmp_path, ROW_A)
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", A).save(tmp_path / "images/a.jpg", exif=exif)
    (annotation, _) = found(tmp_path)[1][1]["train"][0]["annotations"]
    assert annotation["bbox"] == [7.5, 10, 5, 20]


WRONG_ROWS = {
    "score": ("0 0.5 0.5 0.1 0.1 0.9", "six numbers are a prediction, with a score; give labels"),
    "few": ("0 0.5 0.5 0.1", "there are 4 numbers; write class x y width height, or class x1 y1"),
    "even": ("0 0 0 0.5 0 0.5 0.5 0", "there are 8 numbers; write"),
    "word": ("cat 0.5 0.5 0.1 0.1", "'cat' is not a finite number; write class"),
    "comma": ("0, 0.5 0.5 0.1 0.1", "'0,' is not a finite number"),
    "nan": ("0 nan 0.5 0.1 0.1", "'nan' is not a finite number"),
    "infinite": ("0 1e999 0.5 0.1 0.1", "'1e999' is not a finite number"),
    "control": ("0 0.5 0.5 0.1 0.1\x00\x1b", r"'0.1\x00\x1b' is not a finite number"),
    "half_class": ("0.5 0.5 0.5 0.1 0.1", "'0.5' is none of the 2 classes, 0 to 1; correct it"),
    "large_class": (
        "2 0.5 0.5 0.1 0.1",
        "'2' is none of the 2 classes, 0 to 1; correct it, or the",
    ),
    "below_zero": ("-1 0.5 0.5 0.1 0.1", "'-1' is none of the 2 classes"),
    "pixels": (
        "0 20 10 5 5",
        "20.0 is not from 0 to 1; give shares of the image; of pixels, divide",
    ),
    "outside": ("0 0.5 -0.011 0.1 0.1", "-0.011 is not from 0 to 1; give shares of the image"),
    "wide": ("0 0.5 0.5 1.011 0.1", "1.011 is not from 0 to 1"),
    "flat": ("0 0.5 0.5 0.1 0", "width or height is not above 0; correct it, or take the row"),
    "negative": ("0 0.5 0.5 -0.005 0.1", "width or height is not above 0"),
}


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_wrong_row_is_refused_in_one_line(tmp_path, case):
    row, words = WRONG_ROWS[case]
    one_label(tmp_path, f"{ROW_A}\n{row}\n")
    assert refusal(tmp_path).startswith(f"{tmp_path}/labels/a.txt line 3: {words}")


@pytest.mark.parametrize(
    "row, kpt_shape, words",
    [
        (
            "0 0.5 0.5 0.1 0.1",
            "[1, 3]",
            "there are 5 numbers; write a class, a box and 1 key points of 3",
        ),
        ("0 0.5 0.5 0.1 0.1 0 0 3", "[1, 3]", "the visibility of a key point is not 0, 1 or 2"),
        ("0 0.5 0.5 0.1 0.1 0 1.02 2", "[1, 3]", "1.02 is not from 0 to 1"),
        ("0 0.5 0.5 0.1 0.1 0 -1", "[1, 2]", "-1.0 is not from 0 to 1"),
    ],
)
def test_wrong_key_points_are_refused_in_one_line(tmp_path, row, kpt_shape, words):
    one_label(tmp_path, row, kpt_shape)
    (tmp_path / "labels/b.txt").unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path}/labels/a.txt line 1: {words}")


@pytest.mark.parametrize("shape", ["3", "[3]", "[3, 4]", "[0, 2]", "[true, 2]", "[17.0, 3]"])
def test_a_wrong_kpt_shape_is_refused(tmp_path, shape):
    one_label(tmp_path, ROW_A, shape)
    assert refusal(tmp_path).startswith(f"{tmp_path}/data.yaml: kpt_shape is ")


def test_a_large_class_without_names_is_refused(tmp_path):
    write(tmp_path, {"a.jpg": A, "a.txt": "99999999 0.5 0.5 0.25 0.5"})
    assert "a.txt line 1: '99999999' is none of 0, 1, 2, ..., a class" in refusal(tmp_path)


# --- what is wrong with the whole

WRONG = {
    "lost_labels": (
        {"labels/train/c.txt": ROW_A, "labels/val/d.txt": ""},
        "labels/train/c.txt is the label of an image that is not there (2 such files); bring the",
    ),
    "not_utf8": ({"labels/train/a.txt": b"0 0.5 0.5 0.1 0.1\n\xff"}, "labels/train/a.txt is not UTF-8"),
    "no_val": ({"data.yaml": YAML.format("images/train", "none")}, "data.yaml: val ("),
    "empty_val": ({"data.yaml": YAML.format("images/train", "labels/val")}, "val) is not there or has no"),
    "twice": (
        {"data.yaml": "train: images/train\nnames: [cat, dog, cat]"},
        "data.yaml: the name 'cat' is empty or there twice; give each class its own",
    ),
    "twice_in_a_list": ({"classes.txt": "dog\ncat\ndog"}, "classes.txt: the name 'dog' is empty or there"),
    "empty_name": ({"classes.txt": "dog\n\ncat"}, "classes.txt: the name '' is empty or there twice"),
    "names_differ": (
        {"classes.txt": "cat\ndog", "labels/classes.txt": "dog\ncat"},
        "labels/classes.txt have other names; keep the one that is right",
    ),
    "damaged_image": ({"images/val/b.JPG": b"JFIF"}, "images/val/b.JPG cannot be used: it is damaged"),
    "not_in_the_list": (
        {"train.txt": "images/train/a.jpg\nimages/train/none.jpg"},
        "images/train/none.jpg cannot be used: there is no such file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path, case):
    files, words = WRONG[case]
    write(tmp_path, SPLIT_FOLDERS)
    write(tmp_path, files)
    assert words in refusal(tmp_path)


# --- the same by other means


@pytest.mark.parametrize("segments", [False, True])
def test_the_digits_are_those_of_the_same_coco_files(digits, tmp_path, segments):
    yolo, coco = write_yolo(digits, tmp_path, segments=segments)
    _, (_, contents) = found(yolo)
    assert list(contents) == ["train", "val"]
    for split, (content, _) in contents.items():
        twin = json.loads((coco / f"{split}.json").read_text())
        for image in twin["images"]:
            image["file_name"] = f"images/{split}/{image['file_name']}"
        for annotation in content["annotations"]:
            del annotation["origin"]
        assert content == twin and twin["annotations"]


def rows_of(data: bytes, width: int, height: int) -> list:
    """The class's name and box or polygon of each row."""
    rows = []
    for line in data.decode("utf-8-sig").splitlines():
        kind, *v = map(float, line.split() or ["nan"])
        if len(v) == 4:
            box = (v[0] - v[2] / 2) * width, (v[1] - v[3] / 2) * height, v[2] * width, v[3] * height
            rows.append((["cat", "dog", "hen"][int(kind)], list(box)))
        elif v:
            polygon = [x * (height if at % 2 else width) for at, x in enumerate(v)]
            rows.append((["cat", "dog", "hen"][int(kind)], [polygon]))
    return rows


BOXES = b"0 0.5 0.5 0.25 0.5\n2 0.125 0.3 0.2 0.1\n\n1 0.71 1 5e-2 0.61\n"
POLYGONS = b"0 0.1 0.2 0.5 0.2 0.5 0.71\n2 0 0 1 0 1 1 0 1\n1 0.25 0.3 0.2 0.9 0.61 0.33\n"


@st.composite
def mutated(draw) -> tuple[bytes, bytes]:
    """A label file, and it with some of its bytes, words or lines dropped, inserted, doubled or swapped."""
    data = clean = draw(st.sampled_from([BOXES, POLYGONS]))
    for _ in range(draw(st.integers(1, 3))):
        parts = re.findall(draw(st.sampled_from([rb"(?s).", rb"\S+|\s", rb"[^\n]*\n?"])), data)
        at, other = draw(st.tuples(*[st.integers(0, max(0, len(parts) - 1))] * 2))
        new = draw(
            st.sampled_from([b"0", b"1", b"5", b".", b"-", b"e", b" ", b"\n", b"\r", b"2 ", b"\0"])
            | st.sampled_from([b"0.5 ", b" 1.005 ", b"-0.01 ", b"nan", b"inf ", b"1_0", b"cat\n"])
            | st.binary(min_size=1, max_size=2)
        )
        how = draw(st.sampled_from(["drop", "insert", "double", "swap"]))
        if how == "drop":
            del parts[at : at + 1]
        elif how == "insert":
            parts.insert(at, new)
        elif how == "double":
            parts[at:at] = parts[at : at + 1]
        elif parts:
            parts[at], parts[other] = parts[other], parts[at]
        data = b"".join(parts)
    return clean, data


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with a label file that is not changed, and one that is."""
    root = tmp_path_factory.mktemp("mutated")
    write(root, {"a.png": A, "b.png": B, "b.txt": "", "classes.txt": "cat\ndog\nhen"})
    return root


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(files=mutated())
def test_a_mutated_label_file_is_read_exactly_or_refused(three, files):
    clean, data = files
    (three / "a.txt").write_bytes(data)
    (three / "b.txt").write_bytes(clean)
    try:
        _, (_, contents) = found(three)
    except InputError as error:
        assert "\n" not in str(error) and "a.txt" in str(error)
        return
    content, _ = contents[ALL]
    names = {one["id"]: one["name"] for one in content["categories"]}
    read = [
        (names[one["category_id"]], one.get("segmentation", one["bbox"]))
        for one in content["annotations"]
        if one["image_id"] == 1
    ]
    assert read == rows_of(data, *A)
