"""Which images are tested on in data without a split, and which are labelled, by other programs' hashes."""

import hashlib
import json
import re
import shutil

import pytest
from PIL import Image

from ssl_backbones.data.dividing import absent_classes, divide, equal_files, labelled_share
from ssl_backbones.data.folders import find_splits
from ssl_backbones.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))


def place(name: str) -> float:
    """Of the first 64 of 256 bits, as a number from 0 to 1; without what Roboflow puts into a name."""
    name = re.sub(r"\.rf\.[a-z]+(?=\.png$)", "", name)
    return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64


def data(root, names, copies=()):
    """A COCO file's content with an object in each image; all pictures differ but `copies` of pairs."""
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (number % 256, number // 256, 7)).save(root / name, "PNG")
        images.append({"id": number, "file_name": name, "width": 20, "height": 10})
        box = {"bbox": [1, 2, 6, 5], "area": 30, "iscrowd": 0}
        category = 1 + number % 2
        annotations.append({"id": number, "image_id": number, "category_id": category, **box})
    for one, other in copies:
        shutil.copyfile(root / one, root / other)
    categories = [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def names_of(content):
    return [image["file_name"] for image in content["images"]]


def test_the_hash_of_the_name_decides_and_images_that_are_added_move_no_others(tmp_path):
    names = [f"photos/{number}.png" for number in range(60)]
    content = data(tmp_path, names)
    sides = divide(content, tmp_path, 0.2)
    assert names_of(sides["val"]) == [name for name in names if place(name) < 0.2]
    assert names_of(sides["train"]) == [name for name in names if place(name) >= 0.2]
    for side in sides.values():
        ids = {image["id"] for image in side["images"]}
        expected = [one for one in content["annotations"] if one["image_id"] in ids]
        assert side["annotations"] == expected and side["categories"] == content["categories"]
    fewer = divide({**content, "images": content["images"][::3], "annotations": []}, tmp_path, 0.2)
    assert set(names_of(fewer["val"])) <= set(names_of(sides["val"]))


@pytest.mark.parametrize(("share", "end"), [(1e-9, min), (1 - 1e-9, max)])
def test_each_side_has_an_image(tmp_path, share, end):
    names = ["a.png", "b.png", "c.png"]
    sides = divide(data(tmp_path, names), tmp_path, share)
    alone = names_of(sides["val"] if end is min else sides["train"])
    assert alone == [end(names, key=place)]


def test_copies_of_an_image_stay_on_one_side(tmp_path):
    """Roboflow's by their names, others by their bytes; a file of the same size alone is no copy."""
    of_roboflow = [f"{n}_jpg.rf.{'abc'[k] * 32}.png" for n in range(30) for k in range(3)]
    names = [*of_roboflow, *(f"x{number}.png" for number in range(40))]
    content = data(tmp_path, names, [(f"x{n}.png", f"x{n + 20}.png") for n in range(20)])
    sides = divide(content, tmp_path, 0.3)
    val = set(names_of(sides["val"]))
    for number in range(30):
        group = set(of_roboflow[3 * number : 3 * number + 3])
        assert group <= val if place(f"{number}_jpg.png") < 0.3 else not group & val
    of_val = 0
    for number in range(20):
        copies = [f"x{number}.png", f"x{number + 20}.png"]
        in_val = all(place(name) < 0.3 for name in copies)
        assert {name in val for name in copies} == {in_val}
        of_val += in_val
    assert 0 < of_val < 20
    assert sorted(equal_files(names, tmp_path)) == sorted(
        sorted([f"x{n}.png", f"x{n + 20}.png"]) for n in range(20)
    )


def test_one_picture_is_not_divided(tmp_path):
    content = data(tmp_path, ["a.png", "b.png"], [("a.png", "b.png")])
    with pytest.raises(InputError, match=r"2 images, all of them one picture, .*--val-share 0"):
        divide(content, tmp_path, 0.2)


def test_a_class_that_fell_on_one_side_alone_is_said(tmp_path):
    content = data(tmp_path, ["a.png", "b.png"])
    sides = {
        side: {**content, "annotations": [content["annotations"][number]]}
        for number, side in enumerate(("train", "val"))
    }
    assert absent_classes(sides) == [
        "no object of box fell into train",
        "no object of disc fell into val",
    ]


@pytest.fixture
def single(tmp_path):
    """A folder with one file for all of 20 images."""
    root = tmp_path / "parts"
    content = data(root / "images", [f"{number}.png" for number in range(20)])
    (root / "parts.json").write_text(json.dumps(content))
    return root


def test_a_file_for_all_is_divided(single):
    found = find_splits(single, divides=True)
    assert found.val_share == 0.2 and list(found.splits) == ["train", "val"]
    train, val = found.splits.values()
    expected = [f"{number}.png" for number in range(20) if place(f"{number}.png") < 0.2]
    assert names_of(json.loads(val.annotations.read_text())) == expected
    assert train.origin == val.origin == single / "parts.json"
    counts = f"{20 - len(expected)} images to train on and {len(expected)} to test on"
    assert counts in train.said[0] and "--val-share 0.2" in train.said[0] and not val.said
    half = find_splits(single, divides=True, val_share=0.5)
    assert half.val_share == 0.5
    assert len(names_of(json.loads(half.splits["val"].annotations.read_text()))) > len(expected)


def test_it_is_divided_again_only_when_something_changed(single, monkeypatch):
    # Files that changed a moment ago, as these, may do so once more and keep their times.
    monkeypatch.setattr("ssl_backbones.data.derived.SETTLED", -60)
    found = find_splits(single, divides=True)
    with monkeypatch.context() as patch:
        patch.setattr("ssl_backbones.data.folders.divide", None)
        assert find_splits(single, divides=True) == found
    shutil.copyfile(single / "images" / "3.png", single / "images" / "4.png")
    again = find_splits(single, divides=True).splits["val"].annotations
    (both,) = {{"3.png", "4.png"} <= set(names_of(json.loads(again.read_text())))}
    assert both == (place("3.png") < 0.2)
    again.write_text("{}")
    assert find_splits(single, divides=True).splits["val"].annotations.stat().st_size > 2


def test_images_without_a_file_name_are_refused(single):
    """As LVIS's, which have an address instead."""
    content = json.loads((single / "parts.json").read_text())
    content["images"][5] = {"id": 6, "coco_url": "http://a.b/5.png", "width": 20, "height": 10}
    (single / "parts.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 6 has no file_name to divide the data by; give"):
        find_splits(single, divides=True)


def test_what_is_divided_and_what_is_not(single):
    whole = find_splits(single)
    assert list(whole.splits) == ["train"] and whole.splits["train"].origin is None
    assert find_splits(single, divides=True, val_share=0) == whole
    (single / "parts.json").rename(single / "train.json")
    named = find_splits(single, divides=True)
    assert list(named.splits) == ["train"] and named.val_share is None
    assert list(find_splits(single, divides=True, val_share=0.3).splits) == ["train", "val"]
    shutil.copyfile(single / "train.json", single / "val.json")
    with pytest.raises(
        InputError, match=r"has splits of its own \(train, val\): leave --val-share"
    ):
        find_splits(single, divides=True, val_share=0.3)
    for share in (1.5, 1, "abc", True, [0.2], float("nan")):
        with pytest.raises(InputError) as caught:
            find_splits(single, divides=True, val_share=share)
        line = f"--val-share {share}: give a share from 0 to below 1, as 0.2"
        assert str(caught.value) == line


# A share of labels


# By coreutils, from the ids on its standard input, with F the fold and N the number of images:
#   while read i; do echo "$(printf 0:$F:$i | sha256sum | cut -d' ' -f1) $i"; done |
#     sort | head -n $N | cut -d' ' -f2 | sort -n | sha256sum
@pytest.mark.parametrize(
    ("ids", "share", "fold", "number", "sha256"),
    [
        (
            range(1, 41),
            10,
            0,
            4,
            "c37511cfb27fdb379d3234c4f51e9041c4fa62209bc8df83f1c9ac2e06a6a869",
        ),
        (
            range(1, 41),
            10,
            3,
            4,
            "5af44a1c23183ec6b43756001aa4ddca1216c968bee2647ddb9ba7b9ca785952",
        ),
        (
            range(1, 3001, 3),
            *(5, 2, 50),
            "cad95c89f362a450f50721f353c6c6c7d54bc6c234cf4a5bcefd5431645bcbdb",
        ),
    ],
)
def test_the_labelled_share_is_the_same_on_every_machine(ids, share, fold, number, sha256):
    chosen = labelled_share(reversed(ids), share, fold)
    assert len(chosen) == number and chosen == sorted(chosen)
    assert hashlib.sha256("".join(f"{id_}\n" for id_ in chosen).encode()).hexdigest() == sha256


def test_smaller_shares_are_inside_larger_ones_and_folds_are_not_alike():
    ids = range(0, 20 * 500, 20)
    chosen = {(s, f): labelled_share(ids, s, f) for s in (1, 2, 5, 10) for f in range(5)}
    for fold in range(5):
        for less, more in ((1, 2), (2, 5), (5, 10)):
            assert set(chosen[less, fold]) < set(chosen[more, fold])
    assert len({tuple(chosen[10, fold]) for fold in range(5)}) == 5
    assert [len(chosen[share, 0]) for share in (1, 2, 5, 10)] == [5, 10, 25, 50]


def test_halves_of_an_image_go_up_and_there_is_always_one():
    numbers = [len(labelled_share(range(n), 1, 0)) for n in (1, 49, 149, 150, 250)]
    assert numbers == [1, 1, 1, 2, 3]
