"""Annotations for a report: what is refused, and where they are looked for."""

import coco_files
import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.report.ground_truth import GroundTruths, evaluated_images, read_ground_truth


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
        (lambda c: c["annotations"][1].pop("area"), "annotation 2 has no area"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2]), "which is not x, y, width, height"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, change, message):
    path = coco_files.written(tmp_path / "truth.json", changed(change))
    with pytest.raises(InputError, match=message):
        read_ground_truth(path, "")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff"])
def test_what_is_no_coco_file_is_refused(tmp_path, content):
    (tmp_path / "truth.json").write_bytes(content)
    with pytest.raises(InputError, match=r"truth\.json: is not"):
        read_ground_truth(tmp_path / "truth.json", "")


def test_objects_of_images_that_are_not_there_are_ignored(tmp_path):
    content = changed(lambda c: c["annotations"][0].update(image_id=99))
    truth = read_ground_truth(coco_files.written(tmp_path / "truth.json", content), "")
    assert set(truth.coco.anns) == {2, 3}


def test_annotations_without_objects_or_without_masks(tmp_path):
    without = changed(lambda c: c.pop("annotations"))
    truth = read_ground_truth(coco_files.written(tmp_path / "none.json", without), "")
    assert not truth.coco.anns and truth.images.annotations[10] == []
    boxes = changed(lambda c: c["annotations"][2].pop("segmentation"))
    assert not read_ground_truth(coco_files.written(tmp_path / "b.json", boxes), "").has_masks


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
        with pytest.raises(InputError, match=r"missing\.json; set DETECTRON2_DATASETS"):
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
