"""The layouts that people have: which file is which split, where its images are, and what is refused."""

import json
import os

import pytest
import yaml

from ssl_backbones.data.folders import Split, find_splits
from ssl_backbones.errors import InputError


def coco(*names: str) -> bytes:
    """A COCO file of images of these names."""
    images = [{"id": i, "file_name": name, "height": 4, "width": 4} for i, name in enumerate(names)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    return json.dumps(content).encode()


@pytest.fixture()
def root(tmp_path):
    (tmp_path / "shapes").mkdir()
    return tmp_path / "shapes"


def write(root, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# Files, and for each split its annotations and its folder of images ("." for the root).
A, B = coco("a.jpg"), coco("b.jpg")
LAYOUTS = {
    "coco": (
        {
            "annotations/instances_train2017.json": A,
            "annotations/instances_val2017.json": B,
            "annotations/person_keypoints_train2017.json": A,
            "annotations/captions_val2017.json": B,
            "annotations/panoptic_val2017.json": B,
            "annotations/image_info_test2017.json": coco("c.jpg"),
            "train2017/a.jpg": b"",
            "val2017/b.jpg": b"",
        },
        {
            "train": ("annotations/instances_train2017.json", "train2017"),
            "val": ("annotations/instances_val2017.json", "val2017"),
        },
    ),
    "short_names_and_equal_image_names": (
        {
            "annotations/train.json": A,
            "annotations/val.json": A,
            "train/a.jpg": b"",
            "val/a.jpg": b"",
        },
        {"train": ("annotations/train.json", "train"), "val": ("annotations/val.json", "val")},
    ),
    "json_beside_folders": (
        {
            "Train.json": A,
            "Validation.JSON": A,
            "TRAIN/a.jpg": b"",
            "val/a.jpg": b"",
            "classes.json": b"{}",
        },
        {"train": ("Train.json", "TRAIN"), "val": ("Validation.JSON", "val")},
    ),
    "one_images_folder": (
        {"train.json": A, "test.json": B, "images/a.jpg": b"", "images/b.jpg": b""},
        {"train": ("train.json", "images"), "test": ("test.json", "images")},
    ),
    "images_beside": (
        {"train.json": A, "val.json": B, "a.jpg": b"", "b.jpg": b""},
        {"train": ("train.json", "."), "val": ("val.json", ".")},
    ),
    "names_with_the_split": (
        {
            "annotations/train.json": coco("train/a.jpg"),
            "annotations/dev.json": coco("dev\\b.jpg"),
            "train/a.jpg": b"",
            "dev/b.jpg": b"",
        },
        {"train": ("annotations/train.json", "."), "val": ("annotations/dev.json", ".")},
    ),
    "roboflow": (
        {
            "train/_annotations.coco.json": A,
            "train/a.jpg": b"",
            "train/_annotations.createml.json": b"[]",
            "valid/_annotations.coco.json": B,
            "valid/b.jpg": b"",
            "README.dataset.txt": b"",
        },
        {
            "train": ("train/_annotations.coco.json", "train"),
            "val": ("valid/_annotations.coco.json", "valid"),
        },
    ),
    "cvat": (
        {"annotations/instances_default.json": A, "images/a.jpg": b""},
        {"train": ("annotations/instances_default.json", "images")},
    ),
    "cvat_subsets": (
        {
            "annotations/instances_train.json": A,
            "annotations/instances_default.json": A,
            "images/train/a.jpg": b"",
            "images/default/a.jpg": b"",
        },
        {"train": ("annotations/instances_train.json", "images/train")},
    ),
    "cvat_default_subset": (
        {"annotations/instances_default.json": A, "images/default/a.jpg": b""},
        {"train": ("annotations/instances_default.json", "images/default")},
    ),
    "label_studio": (
        {
            "result.json": coco("images/a.jpg", "images\\b.jpg"),
            "images/a.jpg": b"",
            "images/b.jpg": b"",
        },
        {"train": ("result.json", ".")},
    ),
    "labelme_files_beside_images": (
        {
            "annotations/train.json": A,
            "train/a.jpg": b"",
            "train/a.json": b'{"shapes": [], "imagePath": "a.jpg"}',
        },
        {"train": ("annotations/train.json", "train")},
    ),
    "keypoints_alone": (
        {"annotations/person_keypoints_train2017.json": A, "train2017/a.jpg": b""},
        {"train": ("annotations/person_keypoints_train2017.json", "train2017")},
    ),
    "byte_order_mark": (
        {"train.json": b"\xef\xbb\xbf" + A, "a.jpg": b"", "._train.json": b"\0\5"},
        {"train": ("train.json", ".")},
    ),
}


def expected(root, splits) -> dict[str, Split]:
    return {
        key: Split(root / json_file, root / images) for key, (json_file, images) in splits.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_told_by_its_layout(root, layout):
    files, splits = LAYOUTS[layout]
    write(root, files)
    found = find_splits(root)
    assert found.splits == expected(root, splits)
    assert found.name == "shapes" and found.classes is None


@pytest.mark.parametrize(
    "layout, form",
    [
        ("coco", "COCO's layout, with a folder of annotations: train2017, val2017"),
        ("roboflow", "Roboflow's COCO export: train, valid"),
        ("cvat", "COCO's layout, with a folder of annotations: instances_default.json"),
        ("images_beside", "COCO files in shapes: train, val"),
    ],
)
def test_the_form_is_said(root, layout, form):
    write(root, LAYOUTS[layout][0])
    assert find_splits(str(root)).form == form


def test_a_single_file_is_trained_on(root):
    write(root, {"annotations/cats 2.json": A, "images/a.jpg": b""})
    path = root / "annotations/cats 2.json"
    found = find_splits(path)
    assert found.splits == {"train": Split(path, root / "images")}
    assert found.name == "cats-2" and found.form == "a single COCO file"


def test_a_single_file_of_a_split_has_that_splits_images(root):
    """Names that stand in both folders are no excuse to take the other split's pictures."""
    write(root, {"validation.json": A, "train/a.jpg": b"", "val/a.jpg": b""})
    assert find_splits(root / "validation.json").splits["val"].images == root / "val"


@pytest.mark.parametrize(
    "path, name",
    [
        ("train.json", "shapes"),
        ("annotations/instances_val2017.json", "shapes"),
        ("train/_annotations.coco.json", "shapes"),
        ("result.json", "shapes"),
        ("two  words, ünd mehr.json", "two-words-nd-mehr"),
        ("-x.json", "x"),
    ],
)
def test_the_name_is_safe_and_says_more_than_a_split(root, path, name):
    write(root, {path: coco()})
    assert find_splits(root / path).name == name


def test_absolute_file_names_need_no_folder(root, tmp_path):
    (tmp_path / "a.jpg").touch()
    write(root, {"train.json": coco(str(tmp_path / "a.jpg"))})
    assert find_splits(root).splits["train"].images == root


def test_the_folder_with_most_of_the_images_is_taken(root):
    names = [f"{i}.jpg" for i in range(5)]
    write(root, {"train.json": coco(*names), "0.jpg": b""})
    write(root / "images", dict.fromkeys(names[:4], b""))
    assert find_splits(root).splits["train"].images == root / "images"


def test_the_beginning_of_a_large_file_is_enough(root):
    """What follows the first 20 names and the first megabyte is not read: here it is no JSON."""
    names = [f"bild ä{i}.jpg" for i in range(30)]
    write(root, {"train.json": coco(*names)[:-1] + b" " * (1 << 20) + b"]]]"})
    write(root / "images", dict.fromkeys(names, b""))
    assert find_splits(root).splits["train"].images == root / "images"


def test_images_after_a_megabyte_of_annotations_are_found(root):
    content = json.loads(coco("a.jpg"))
    late = {"info": "x" * (1 << 20), "annotations": [], "images": content["images"]}
    write(root, {"train.json": json.dumps(late).encode(), "images/a.jpg": b""})
    assert find_splits(root).splits["train"].images == root / "images"


# --- data.yaml


def test_a_data_yaml_names_files_and_folders(root):
    write(root, LAYOUTS["roboflow"][0])
    write(root, {"more/annotations/val.json": A, "more/val/a.jpg": b""})
    content = {"path": ".", "train": "../train", "val": ["more/annotations/val.json"], "nc": 2}
    content["names"] = {1: "dog", 0: "cat"}
    write(root, {"data.yaml": yaml.safe_dump(content).encode()})
    found = find_splits(root / "data.yaml")
    assert found.splits == expected(
        root,
        {
            "train": ("train/_annotations.coco.json", "train"),
            "val": ("more/annotations/val.json", "more/val"),
        },
    )
    assert found.classes == ["cat", "dog"]
    assert found.name == "shapes" and found.form == "data.yaml: train, val"


def test_a_folders_data_yaml_is_read_where_no_json_is(root, tmp_path):
    write(tmp_path, {"elsewhere/cats.json": A, "elsewhere/a.jpg": b""})
    write(root, {"data.yaml": f"path: {tmp_path}/elsewhere\ntrain: cats.json\n".encode()})
    elsewhere = tmp_path / "elsewhere"
    assert find_splits(root).splits == {"train": Split(elsewhere / "cats.json", elsewhere)}


YAMLS = {
    "no_yaml": ("train: [", "is not YAML"),
    "no_mapping": ("- train", "has no keys train, val and names"),
    "no_splits": ("names: [a]", "has no train, val or test"),
    "two_paths": ("train: [a.json, b.json]", "one path is needed"),
    "a_number": ("train: 5", "train is 5, and one path is needed"),
    "absent": ("train: nowhere.json", "train: .*nowhere.json is not there; correct that path"),
    "no_text": (
        "train: train.json\nnames: [yes, cat]",
        "class 0 of names is True; write its name in",
    ),
    "gaps": ("train: train.json\nnames: {0: a, 2: b}", "neither a list nor numbered from 0"),
    "other_number": ("train: train.json\nnames: [a, b]\nnc: 3", "nc is 3, and names has 2"),
    "yolo": (
        "train: yolo/images\nval: yolo/images\nnames: [a]",
        "train: .*yolo/images is YOLO's, and no im",
    ),
    "yolo_list": (
        "train: train.txt\nnames: [a]",
        "train.txt is YOLO's, and no image here has a label with a row, class x y width height",
    ),
    "empty_folder": (
        "train: yolo/labels/none",
        "holds neither a COCO file nor images with YOLO's labels",
    ),
    "damaged": ("train: damaged.json", "train: .*damaged.json is not JSON"),
    "a_tag": ("train: !!python/object/apply:os.system [ls]", "is not YAML"),
}


@pytest.mark.parametrize("case", YAMLS)
def test_a_wrong_data_yaml_is_refused_in_one_line(root, case):
    text, words = YAMLS[case]
    write(root, {"train.json": A, "a.jpg": b"", "train.txt": b"./a.jpg\n", "damaged.json": b"{"})
    write(root / "yolo", {"images/a.jpg": b"", "labels/a.txt": b"", "labels/none/x.md": b""})
    write(root, {"data.yaml": text.encode()})
    with pytest.raises(InputError, match=words) as caught:
        find_splits(root / "data.yaml")
    assert "\n" not in str(caught.value) and str(root / "data.yaml") in str(caught.value)


# --- what is refused

OTHERS = {
    "via": (
        {"train/via_region_data.json": b'{"a": {"filename": "a", "regions": []}}'},
        "is VIA's: in VIA",
    ),
    "labelme": (
        {"a.json": b'{"shapes": [], "imagePath": "a.jpg"}'},
        "its image 'a.jpg' is not there",
    ),
    "createml": (
        {
            "train/_annotations.createml.json": json.dumps(
                [{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {}}]}]
            ).encode()
        },
        "is CreateML's",
    ),
    "cvat_xml": ({"annotations.xml": b"<annotations><image/></annotations>"}, "in CVAT choose"),
    "labelbox": ({"export.ndjson": b'{"data_row": {}}\n{"data_row": {}}\n'}, "LabelBox"),
    "yolo": (
        {"images/train/a.jpg": b"", "labels/train/a.txt": b"0 0.5 0.5 0.1 0.1\n"},
        "a.jpg cannot be used: it is damaged",
    ),
    "yolo_classes": (
        {"classes.txt": b"cat\ndog\n", "labels/a.txt": b""},
        "classes.txt is YOLO's, and no",
    ),
    "zip": ({"export.zip": b"PK\3\4"}, "unpack it"),
    "gzip": (
        {"train.json.gz": b"\x1f\x8b\x08", "a.jpg": b""},
        "train.json.gz is packed with gzip: unpack it",
    ),
    "nothing": ({"package.json": b"{}", "a.jpg": b""}, "has no COCO annotations: no JSON file"),
    "captions": ({"annotations/captions_train2017.json": A}, "has no COCO annotations"),
    "two_of_a_split": (
        {"annotations/instances_train2014.json": A, "annotations/instances_train2017.json": A},
        "train2014.json and .*train2017.json may all be the annotations of train; give one file, or a data",
    ),
    "two_of_none": (
        {"cats.json": A, "dogs.json": A, "x.json": A},
        "and 1 more may all be the annotations;",
    ),
    "damaged": ({"train.json": A[:-5], "val.json": A, "a.jpg": b""}, "train.json is not JSON"),
    "empty": ({"train.json": A, "val.json": b"", "a.jpg": b""}, "val.json is not JSON"),
    "lost_images": (
        {"train.json": A, "val.json": b'{"annotations": []}', "a.jpg": b""},
        "val.json has no",
    ),
    "foreign_split": (
        {"train.json": A, "val.json": b'{"_via_settings": {}}', "a.jpg": b""},
        "val.json is VIA's",
    ),
    "no_images": (
        {"annotations/train.json": A, "val/a.jpg": b"", "train/b.jpg": b""},
        "its image 'a.jpg' is in none of .*annotations, .*train, ",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_folder_without_usable_coco_is_refused_in_one_line(root, case):
    files, words = OTHERS[case]
    write(root, files)
    before = sorted(root.rglob("*"))
    with pytest.raises(InputError, match=words) as caught:
        find_splits(root)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("x.json", b"[1", "x.json is not JSON"),
        ("x.json", b"[" * 100_000, "x.json is not JSON"),
        ("x.json", b'{"a": 1}', 'has no list of "images"'),
        ("x.json", b'{"images": {}}', 'has no list of "images"'),
        ("x.xml", b"<annotation/>", "Pascal VOC"),
        ("x.zip", b"PK\3\4" + b"\xff" * (2 << 20), "unpack it"),
    ],
)
def test_a_file_that_is_not_cocos_is_refused(root, name, content, words):
    write(root, {name: content})
    with pytest.raises(InputError, match=words):
        find_splits(root / name)


def test_what_is_not_there_is_refused(root):
    with pytest.raises(InputError, match=r"none cannot be read: No such file"):
        find_splits(root / "none")
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        find_splits(f"{root}/a\0b")
    (root / "link").symlink_to("/nowhere/at all")
    with pytest.raises(
        InputError, match=r"link \(a link to /nowhere/at all\) cannot be read: No such"
    ):
        find_splits(root / "link")
    (root / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be read: Too many levels"):
        find_splits(root / "loop")
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="neither a folder nor a file"):
        find_splits(root / "pipe")


@pytest.mark.parametrize("name", ["val.json", "valid", "annotations"])
def test_a_split_is_not_lost_to_a_broken_link(root, name):
    write(root, {"train.json": A, "images/a.jpg": b""})
    (root / name).symlink_to("nowhere")
    with pytest.raises(InputError, match=f"{name} cannot be read: No such file"):
        find_splits(root)


def test_other_broken_links_are_passed_over(root):
    write(root, {"train.json": A, "a.jpg": b""})
    (root / "b.jpg").symlink_to("nowhere")
    assert list(find_splits(root).splits) == ["train"]


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "a/" * 3000, "../" * 50 + "x", "x\ny", ""])
def test_no_file_name_is_too_odd(root, name):
    write(root, {"train.json": coco(name)})
    with pytest.raises(InputError, match=r"train\.json: its image") as caught:
        find_splits(root)
    assert "\n" not in str(caught.value)


def test_images_of_another_data_set_beside_it_are_not_taken(root, tmp_path):
    """Of the same names: cameras number alike."""
    write(root, {"train.json": A})
    for other in ("train", "images", "other_train"):
        write(tmp_path / other, {"a.jpg": b""})
    with pytest.raises(InputError, match=r"its image 'a\.jpg' is in none of"):
        find_splits(root)
