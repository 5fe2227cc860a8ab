"""Folders of labels as `find_splits` gives them: which format, made when, and told by whose name."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from labelme_files import write_labelme
from PIL import Image
from voc_files import write_voc
from yolo_files import write_yolo

from ssl_backbones.data import derived, folders
from ssl_backbones.data.annotations.examining import examine
from ssl_backbones.data.folders import find_splits
from ssl_backbones.errors import InputError

WRITERS = {
    "data.yaml, YOLO: train, val": partial(write_yolo, segments=True),
    "Pascal VOC's XML: train, val": write_voc,
    "labelme's files: train, val": write_labelme,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    # Files that changed a moment ago, as those of a test, may do so once more and keep their times.
    monkeypatch.setattr("ssl_backbones.data.derived.SETTLED", -60)


def entries(folder):
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("form", WRITERS)
def test_a_folder_is_told_read_once_and_left_alone(digits, form, tmp_path, monkeypatch):
    root, coco = WRITERS[form](digits, tmp_path / "data")
    before = entries(root)
    found = find_splits(root, divides=True)
    assert found.form == form and found.name == root.name and found.classes is None
    assert list(found.splits) == ["train", "val"] and found.val_share is None
    for name, split in found.splits.items():
        images = json.loads(split.annotations.read_text())["images"]
        assert len(images) == len(json.loads((coco / f"{name}.json").read_text())["images"])
        assert all((split.images / one["file_name"]).is_file() for one in images)
        assert split.origin in (root, root / "data.yaml") and not split.said
    with monkeypatch.context() as patch:
        patch.setattr("ssl_backbones.data.folders.as_coco", None)
        assert find_splits(root, divides=True) == found
    assert entries(root) == before
    # The same elsewhere is the same content, and so the same recipe.
    elsewhere = shutil.copytree(root, tmp_path / "elsewhere" / root.name)
    for name, split in find_splits(elsewhere).splits.items():
        assert split.annotations.read_bytes() == found.splits[name].annotations.read_bytes()
        assert split.images == elsewhere


@pytest.fixture
def boxes(tmp_path):
    """Two images with a YOLO box each."""
    for name, row in (("a", "0 0.5 0.5 0.5 0.5"), ("b", "1 0.5 0.5 0.5 0.5")):
        Image.new("RGB", (40, 20), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(row)
    return tmp_path


def test_a_label_that_changes_or_comes_is_read_anew(boxes):
    (split,) = find_splits(boxes).splits.values()
    assert [one["bbox"] for one in json.loads(split.annotations.read_text())["annotations"]] == [
        [10, 5, 20, 10]
    ] * 2
    (boxes / "b.txt").write_text("1 0.5 0.5 1 1")
    content = json.loads(find_splits(boxes).splits["train"].annotations.read_text())
    assert [one["bbox"] for one in content["annotations"]] == [[10, 5, 20, 10], [0, 0, 40, 20]]
    shutil.copyfile(boxes / "a.png", boxes / "c.png")
    (boxes / "c.txt").write_text("2 0.5 0.5 0.1 0.1")
    content = json.loads(find_splits(boxes).splits["train"].annotations.read_text())
    assert [one["bbox"] for one in content["annotations"]] == [
        [10, 5, 20, 10],
        [0, 0, 40, 20],
        [18, 9, 4, 2],
    ]
    assert [one["name"] for one in content["categories"]] == ["0", "1", "2"]
    # The copy goes where what it is a copy of goes.
    sides = find_splits(boxes, divides=True).splits
    names = [
        {one["file_name"] for one in json.loads(side.annotations.read_text())["images"]}
        for side in sides.values()
    ]
    assert {"a.png", "c.png"} in names and {"b.png"} in names


def test_an_image_elsewhere_that_changes_is_read_anew(tmp_path):
    shape = {"label": "a", "points": [[1, 1], [5, 5]], "shape_type": "rectangle"}
    content = {"imagePath": "../photos/a.png", "shapes": [shape]}
    for place in ("data", "photos"):
        (tmp_path / place).mkdir()
    (tmp_path / "data" / "a.json").write_text(json.dumps(content))
    for width in (10, 30):
        Image.new("RGB", (width, 20)).save(tmp_path / "photos" / "a.png")
        (split,) = find_splits(tmp_path / "data").splits.values()
        (image,) = json.loads(split.annotations.read_text())["images"]
        assert split.images / image["file_name"] == tmp_path / "photos" / "a.png"
        assert image["width"] == width


def test_processes_that_start_together_read_it_once(boxes, monkeypatch):
    """The second looks for what is known while the first makes it, and waits."""
    looked, calls = threading.Event(), []
    remembered, make = derived._remembered, folders.as_coco

    def remembering(*args):
        if calls:
            looked.set()
        return remembered(*args)

    def making(*args):
        calls.append(args)
        if len(calls) == 1:
            others.append(pool.submit(find_splits, boxes))
            assert looked.wait(60)
        return make(*args)

    monkeypatch.setattr(derived, "_remembered", remembering)
    monkeypatch.setattr(folders, "as_coco", making)
    others = []
    with ThreadPoolExecutor(1) as pool:
        found = find_splits(boxes)
        assert others[0].result() == found and len(calls) == 1


def test_what_is_odd_in_a_label_is_told_by_its_line(boxes):
    (boxes / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.02 0.5\n")
    (split,) = find_splits(boxes).splits.values()
    said = examine(json.loads(split.annotations.read_text()), "labels").warnings
    # 0.02 of 40 pixels are less than one.
    assert [one for one in said if "wide or high (first: a.txt line 2)" in one]


def test_a_box_among_outlines_is_told_by_its_line(boxes):
    (boxes / "b.txt").write_text("1 0 0 1 0 1 1")
    (split,) = find_splits(boxes).splits.values()
    found = examine(json.loads(split.annotations.read_text()), "labels", masks=True)
    assert [
        one for one in found.problems if "1 of 2 objects have no mask (first: a.txt line 1)" in one
    ]


def test_a_label_that_is_not_sure_is_refused_with_its_line(boxes):
    (boxes / "b.txt").write_text("\n1 0.5 0.5 0.5 0.5 0.9")
    with pytest.raises(
        InputError, match=f"^{boxes / 'b.txt'} line 2: six numbers are a prediction"
    ):
        find_splits(boxes)


def test_whole_numbers_get_a_point(digits, tmp_path):
    """Detectron2 would cut what it makes of them in resizing down to whole pixels."""
    (split, _) = find_splits(write_voc(digits, tmp_path)[0]).splits.values()
    boxes = [one["bbox"] for one in json.loads(split.annotations.read_text())["annotations"]]
    assert boxes and {type(side) for box in boxes for side in box} == {float}


def files(root, texts) -> None:
    """Write texts by path; of a picture the text is its colour."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg"):
            Image.new("RGB", (40, 20), text).save(path)
        else:
            path.write_text(text)


ROW = "0 0.5 0.5 0.5 0.5"
YOLO = {
    "images/train_set/a.png": "red",
    "labels/train_set/a.txt": ROW,
    "images/val_set/b.png": "blue",
    "labels/val_set/b.txt": ROW,
}
XML = (
    "<annotation><object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
    "<ymax>9</ymax></bndbox></object></annotation>"
)


def images_of(root) -> dict[str, list[str]]:
    return {
        name: [one["file_name"] for one in json.loads(split.annotations.read_text())["images"]]
        for name, split in find_splits(root).splits.items()
    }


def test_the_same_files_by_another_path_have_names_of_their_own(tmp_path):
    """Whatever is in the cache of them: the names decide where an image goes."""
    voc = tmp_path / "devkit" / "VOC2012"
    files(voc, {"Annotations/a.xml": XML, "JPEGImages/a.png": "red"})
    assert images_of(tmp_path / "devkit") == {"train": ["VOC2012/JPEGImages/a.png"]}
    assert images_of(voc) == {"train": ["JPEGImages/a.png"]}


def test_a_users_own_split_is_kept(tmp_path):
    files(tmp_path / "yolo", YOLO)
    names = {"train": ["images/train_set/a.png"], "val": ["images/val_set/b.png"]}
    assert images_of(tmp_path / "yolo") == names
    for name, colour in (("a", "red"), ("b", "blue")):
        files(tmp_path / "voc", {f"Annotations/{name}.xml": XML, f"JPEGImages/{name}.png": colour})
    for lists in (tmp_path / "voc", tmp_path / "voc" / "ImageSets" / "Main"):
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "train.txt").write_text("a.png\n")
        (lists / "val.txt").write_text("b\n")
        assert images_of(tmp_path / "voc") == {
            "train": ["JPEGImages/a.png"],
            "val": ["JPEGImages/b.png"],
        }
    (tmp_path / "voc" / "ImageSets" / "Main" / "train.txt").write_text("c\n")
    (tmp_path / "voc" / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(InputError, match=r"ImageSets/Main has no list of XML files"):
        find_splits(tmp_path / "voc")


def test_images_that_are_not_used_are_counted(tmp_path):
    files(tmp_path, {**YOLO, "extra/c.png": "green"})
    (tmp_path / ".ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "extra" / "c.png", tmp_path / ".ipynb_checkpoints")
    said = find_splits(tmp_path).splits["train"].said
    assert [one for one in said if one.startswith("1 images below") and "extra/c.png" in one]


REFUSED = {
    "two data.yaml": ({"data.yaml": "train: a", "dataset.yaml": "train: b"}, "may both say what"),
    "two of a split": (
        {"images/dev/c.png": "green", "labels/dev/c.txt": ROW},
        "dev and .*val_set may both be val",
    ),
    "one label of two images": (
        {"images/train_set/a.jpg": "red"},
        "a.txt is of .*a.jpg and .*a.png",
    ),
    "COCO beside labels": (
        {"old.json": '{"images": [], "annotations": [], "categories": []}'},
        r"old.json is a COCO file, and there are labels beside it \(YOLO: train, val\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_meant_in_two_ways_is_refused(tmp_path, case):
    more, words = REFUSED[case]
    files(tmp_path, {**YOLO, **more})
    with pytest.raises(InputError, match=words) as caught:
        find_splits(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_folder_alone_in_another_is_the_data(tmp_path):
    files(tmp_path / "signs" / "signs", YOLO)
    assert list(find_splits(tmp_path / "signs").splits) == ["train", "val"]
    (tmp_path / "signs" / "data.yaml").write_text(
        "train: ../images/train_set\nval: signs/images/val_set\nnames: [x]\n"
    )
    files(tmp_path, YOLO)
    files(tmp_path / "signs", YOLO)
    with pytest.raises(
        InputError, match=r"data.yaml: ../images/train_set may be .* or .*; write the whole"
    ):
        find_splits(tmp_path / "signs")
