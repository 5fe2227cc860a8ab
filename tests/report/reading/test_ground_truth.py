"""Annotations for a report: what is refused, and where they are looked for."""

import coco_files
import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.ground_truth import (
    GroundTruths,
    evaluated_images,
    read_ground_truth,
)


@pytest.fixture
def path(tmp_path):
    return coco_files.written(tmp_path / "truth.json", coco_files.plain())


def test_what_is_read(path):
    truth = read_ground_truth(path, "/photos")
    assert truth.images.files == {n: f"/photos/{n}.jpg" for n in (10, 20, 30)}
    assert truth.images.class_names == {3: "three", 7: "seven"}
    assert {n: len(found) for n, found in truth.images.annotations.items()} == {10: 2, 20: 1, 30: 0}
    assert truth.has_masks


def test_each_file_is_read_once(path):
    truths = GroundTruths(path)
    assert truths.name == "truth"
    assert truths.of("one", ".") is truths.of("two", ".")


def renumber(content, old, new):
    for category in content["categories"]:
        category["id"] = new if category["id"] == old else category["id"]
    for annotation in content["annotations"]:
        if annotation["category_id"] == old:
            annotation["category_id"] = new


def changed(change):
    content = coco_files.plain()
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), "is not in COCO's format"),
        (lambda c: c["images"].append(c["images"][0]), "image id 30 stands there twice"),
        (lambda c: c["annotations"][0].update(category_id=8), "has category_id 8"),
        (lambda c: c["annotations"][1].update(area="large"), "annotation 2 has the area 'large'"),
        (lambda c: renumber(c, 7, 7.5), r"the id 7\.5, which is not a whole number"),
        (lambda c: renumber(c, 7, "seven"), "numbers and text, and 'seven' is no number"),
        (lambda c: renumber(c, 7, True), "the id true, which is not a whole number"),
        (lambda c: renumber(c, 7, None), "the id null, which is not a whole number"),
        (lambda c: c["categories"][0].update(id=[7]), r"the id \[7\], which is not a whole"),
        (lambda c: c["images"][0].update(id="ten"), "numbers and text, and 'ten' is no number"),
        (lambda c: c["images"][0].update(id=None), "the id null, which is not a whole number"),
        (lambda c: c["images"][0].update(id=1.5), r"the id 1\.5, which is not a whole number"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2]), "which is not x, y, width, height"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, change, message):
    path = coco_files.written(tmp_path / "truth.json", changed(change))
    with pytest.raises(InputError, match=message) as error:
        read_ground_truth(path, "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff"])
def test_what_is_no_coco_file_is_refused(tmp_path, content):
    (tmp_path / "truth.json").write_bytes(content)
    with pytest.raises(InputError, match=r"truth\.json: is not"):
        read_ground_truth(tmp_path / "truth.json", "")


def test_objects_of_images_that_are_not_there_are_ignored(tmp_path):
    content = changed(lambda c: c["annotations"][1].update(image_id=99))
    truth = read_ground_truth(coco_files.written(tmp_path / "truth.json", content), "")
    assert set(truth.coco.anns) == {1, 3}


def test_annotations_without_objects_or_without_masks(tmp_path):
    without = changed(lambda c: c.pop("annotations"))
    truth = read_ground_truth(coco_files.written(tmp_path / "none.json", without), "")
    assert not truth.coco.anns and truth.images.annotations[10] == []
    boxes = changed(lambda c: c["annotations"][2].pop("segmentation"))
    assert not read_ground_truth(coco_files.written(tmp_path / "b.json", boxes), "").has_masks


def test_image_ids_may_be_text(tmp_path):
    def change(content):
        for one in content["images"]:
            one["id"] = str(one["id"])
        for one in content["annotations"]:
            one["image_id"] = str(one["image_id"])

    truth = read_ground_truth(coco_files.written(tmp_path / "truth.json", changed(change)), "")
    assert evaluated_images(truth, {"images": 2, "images_in_dataset": 3}) == [10, 20]


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        ({3: "a", 7: "b"}, {3: "a", 7: "b"}),
        ({7: "same", 3: "same", 9: "b"}, {3: "same (3)", 7: "same (7)", 9: "b"}),
    ],
)
def test_names_of_classes_tell_them_apart(tmp_path, names, unique):
    content = coco_files.plain() | {
        "categories": [{"id": id_, "name": name} for id_, name in names.items()],
    }
    path = coco_files.written(tmp_path / "truth.json", content)
    assert read_ground_truth(path, "").images.class_names == unique


def test_a_dataset_in_two_places_is_one_where_both_say_the_same(tmp_path):
    def left_in(name, change):
        folder = tmp_path / name / "inference"
        folder.mkdir(parents=True)
        coco_files.written(folder / "mine_coco_format.json", changed(change))
        return folder.parent

    first = left_in("first", lambda c: c.update(info={"date_created": "today"}))
    again = left_in("again", lambda c: c.update(info={"date_created": "tomorrow"}))
    other = left_in("other", lambda c: c["annotations"][0].update(area=3))
    truths = GroundTruths()
    assert truths.of("mine", first) is truths.of("mine", again)
    assert truths.of("mine", other) is not truths.of("mine", first)
    assert truths.of("mine", other) is truths.of("mine", other)


@pytest.mark.parametrize(
    ("facts", "ids"),
    [
        ({}, None),
        ({"images": 3, "images_in_dataset": 3}, None),
        ({"images": 4, "images_in_dataset": 4}, None),  # all of what it was, whatever that was
        ({"images": 2, "images_in_dataset": 3}, [10, 20]),  # the first and the second of 10, 20, 30
        ({"images": 1, "images_in_dataset": 3}, [10]),
        ({"images": "two", "images_in_dataset": 3}, None),
    ],
)
def test_which_images_were_evaluated(path, facts, ids):
    assert evaluated_images(read_ground_truth(path, ""), facts) == ids


def test_a_registered_dataset_whose_files_are_missing_is_told_with_the_mend(tmp_path):
    name = coco_files.registered(tmp_path / "missing.json")
    try:
        with pytest.raises(InputError, match=r"missing\.json; put it there, or give --annotations"):
            GroundTruths().of(name, tmp_path)
    finally:
        coco_files.forget(name)


def test_a_registered_dataset_gives_annotations_and_images(path, tmp_path):
    name = coco_files.registered(path, "/pictures")
    try:
        assert GroundTruths().of(name, tmp_path).images.files[10] == "/pictures/10.jpg"
        given = GroundTruths(image_root=tmp_path).of(name, tmp_path)
        assert given.images.files[10] == str(tmp_path / "10.jpg")
    finally:
        coco_files.forget(name)


def test_without_a_name_the_options_are_named():
    with pytest.raises(InputError, match="--annotations and --images"):
        GroundTruths().of("", ".")
