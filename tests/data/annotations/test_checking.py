"""Files that are not what they should be; contradictions among ids and boxes: tests/faults."""

import json
import shutil

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets.lvis import get_lvis_instances_meta, register_lvis_instances
from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES

from ssl_backbones.data.annotations import checking
from ssl_backbones.data.annotations.checking import check_annotations
from ssl_backbones.data.annotations.reading import read_coco
from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.errors import InputError

IMAGES = [{"id": 1, "file_name": "1.jpg", "width": 4, "height": 3}]
CATEGORIES = [{"id": 1, "name": "one"}]
ANNOTATION = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}


@pytest.fixture()
def check(tmp_path):
    """Checks a dataset whose JSON holds this."""

    def check(content, name="annotations.json", **facts):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        MetadataCatalog.get(str(path)).json_file = str(path)
        check_annotations(str(path), **facts)

    return check


def coco(*annotations, images=IMAGES, categories=CATEGORIES):
    return {"images": images, "annotations": list(annotations), "categories": categories}


PASSING = {
    "an object": coco(ANNOTATION),
    "a run-length mask": coco(
        ANNOTATION,
        {**ANNOTATION, "id": 2, "segmentation": {"counts": [12], "size": [3, 4]}, "iscrowd": 1},
    ),
    # Detectron2 warns of these and ignores them; subsets of COCO are made by cutting the images alone.
    "of another image": coco(ANNOTATION, {**ANNOTATION, "image_id": 2, "category_id": 7}),
}


@pytest.mark.parametrize("name", PASSING)
def test_good_annotations_pass(check, name):
    check(PASSING[name])


def test_images_without_annotations_may_be_tested_on_and_not_trained_on(check):
    """So are COCO's own test sets; the order of the two must not matter to what is remembered."""
    content = {"images": IMAGES, "categories": CATEGORIES}
    for _ in range(2):
        check(content, evaluated=True)
        with pytest.raises(InputError, match="has no annotations of its 1 images"):
            check(content)


REFUSED = {
    "cut": (json.dumps(coco(ANNOTATION))[:-9], "is not JSON"),
    "a list": ([], "not in COCO's format"),
    "without categories": ({"images": IMAGES}, "not in COCO's format.*categories"),
    "an annotation without a box": (
        coco({k: v for k, v in ANNOTATION.items() if k != "bbox"}),
        "annotation 1 has no bbox; give it x, y, width, height",
    ),
    "an unknown category": (
        coco({**ANNOTATION, "category_id": 0}, {**ANNOTATION, "id": 2, "category_id": 9}),
        r"annotation 1 has category_id 0.*\(2 such annotations\)",
    ),
    "a category twice": (coco(ANNOTATION, categories=CATEGORIES * 2), "category id 1 stands"),
    "two ids twice": (
        coco(*[{**ANNOTATION, "id": i} for i in (1, 1, 2, 2)]),
        "annotation id 1 and 1 more stands there twice",
    ),
    "an image without a size": (
        {**coco(), "images": [{"id": 1}]},
        "image 1 has no height; give it",
    ),
    "a mask whose runs do not fill its image": (
        coco({**ANNOTATION, "area": 4, "segmentation": {"counts": [2, 1000], "size": [3, 4]}}),
        "annotation 1 has a mask whose runs do not add up to the 12 pixels",
    ),
    "a mask with a run below nothing": (
        coco({**ANNOTATION, "segmentation": {"counts": [13, -1], "size": [3, 4]}}),
        "annotation 1 has the segmentation .*-1",
    ),
    "a mask of another size": (
        coco({**ANNOTATION, "segmentation": {"counts": [12], "size": [4, 3]}}),
        r"annotation 1 has a mask of height and width \[4, 3\], its image \[3, 4\]",
    ),
    "no images": (coco(ANNOTATION, images=[]), "has no images; give a file"),
    "no annotations": (coco(), "has no annotations of its 1 images"),
    "none of its images": (coco({**ANNOTATION, "image_id": 2}), "no annotations of its 1 images"),
    "a box in words": (coco({**ANNOTATION, "bbox": "0 0 2 2"}), "which is not x, y, width, height"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_in_one_line(check, name, tmp_path):
    content, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as refusal:
        check(content)
    assert str(tmp_path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_known_fault_of_coco_2014_minival_passes(check):
    check(coco(ANNOTATION, ANNOTATION), name="instances_minival2014.json")


def test_content_that_comes_while_another_is_checked_is_checked_itself(
    check, tmp_path, monkeypatch
):
    """What is remembered as sound is what was looked at, not what the file has become."""
    bad = coco({**ANNOTATION, "category_id": 9})

    def changing(data, *where):
        (tmp_path / "changing.json").write_text(json.dumps(bad))
        return read_coco(data, *where)

    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patched:
        patched.setattr(checking, "read_coco", changing)
        check(coco(ANNOTATION), "changing.json")
    with pytest.raises(InputError, match="category_id 9"):
        check(bad, "changing.json")


def test_a_dataset_of_another_kind_passes():
    check_annotations("a dataset without a json file")


def test_a_category_out_of_range_is_refused_when_any_dataset_is_loaded():
    """Also where no JSON tells: by Detectron2's own check, in one line."""
    annotations = [{"category_id": 1}, {"category_id": 2}]
    record = {"file_name": "7.jpg", "width": 4, "height": 3, "annotations": annotations}
    name = "a dataset from a function"
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).thing_classes = ["one", "two"]
    cfg = L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names=[name]), mapper=None, total_batch_size=1
    )
    with pytest.raises(InputError, match="invalid category_id=2 for a dataset of 2 classes"):
        build_train_loader(cfg, seed=0)


POINTS = {"keypoint_names": ["nose", "left_eye"]}


@pytest.mark.parametrize(
    ("content", "registered", "message"),
    [
        (coco(ANNOTATION), {"thing_classes": ["one"]}, None),
        (coco(ANNOTATION), {"thing_classes": ["two"]}, "differs is 'one' in the file and 'two' in"),
        (
            coco(ANNOTATION, categories=[*CATEGORIES, {"id": 2, "name": "two"}]),
            {"thing_classes": ["one"]},
            "has 2 categories and is registered with 1 classes; .*'two' in the file and None",
        ),
        (coco({**ANNOTATION, "keypoints": [1, 1, 2, 0, 0, 0]}), POINTS, None),
        (coco({**ANNOTATION, "keypoints": [0, 0, 0, 3, 1, 1]}), POINTS, None),
        (coco(ANNOTATION), POINTS, "registered with 2 key points, and no annotation has one"),
        (
            coco({**ANNOTATION, "keypoints": [5, 5, 0, 0, 0, 0]}),
            POINTS,
            "registered with 2 key points, and no annotation has one that is labelled",
        ),
        (
            coco({**ANNOTATION, "keypoints": [1, 1, 2]}),
            POINTS,
            "annotation 1 has 3 numbers .* are 6",
        ),
    ],
)
def test_a_file_must_be_what_it_is_registered_as(tmp_path, content, registered, message):
    """Detectron2 would fail when it loads it, or in the mapper."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    MetadataCatalog.get(str(path)).set(json_file=str(path), **registered)
    for _ in range(2):  # what is refused is not remembered as sound
        if message is None:
            check_annotations(str(path))
            continue
        with pytest.raises(InputError, match=message):
            check_annotations(str(path))


def test_what_is_sound_under_one_registration_is_looked_at_again_under_another(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco(ANNOTATION)))
    for name, classes in (("as it is", ["one"]), ("as something else", ["two"])):
        MetadataCatalog.get(f"{path} {name}").set(json_file=str(path), thing_classes=classes)
    check_annotations(f"{path} as it is")
    with pytest.raises(InputError, match="'one' in the file and 'two'"):
        check_annotations(f"{path} as something else")


def test_lvis_is_known_by_its_first_synonyms(tmp_path):
    """One of its 1203 categories has another name in Detectron2's own list."""
    categories = [dict(category) for category in LVIS_CATEGORIES]
    (bull,) = (one for one in categories if one["name"] != one["synonyms"][0])
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(coco(ANNOTATION, categories=categories)))
    MetadataCatalog.get(str(path)).set(
        json_file=str(path), **get_lvis_instances_meta("lvis_v1_train")
    )
    check_annotations(str(path))
    bull["synonyms"] = ["cow"]
    path.write_text(json.dumps(coco(ANNOTATION, categories=categories)))
    with pytest.raises(InputError, match="registered with 1203 classes"):
        check_annotations(str(path))


@pytest.fixture()
def pictures(tmp_path):
    """Registers a file of images of these names in a folder; returns the name and the folder."""

    def pictures(*names):
        images = [
            {**IMAGES[0], "id": number, "file_name": name} for number, name in enumerate(names)
        ]
        path, folder = tmp_path / "annotations.json", tmp_path / "images"
        path.write_text(json.dumps(coco({**ANNOTATION, "image_id": 0}, images=images)))
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        MetadataCatalog.get(str(path)).set(json_file=str(path), image_root=str(folder))
        return str(path), folder

    return pictures


@pytest.mark.parametrize(
    "names", [("1.jpg", "2.jpg", "3.jpg"), ("1.jpg", "a/./2.jpg", "b/c/3.jpg")]
)
def test_images_that_are_not_there_are_refused(pictures, names):
    name, folder = pictures(*names)
    for _ in range(2):
        check_annotations(name)
    for missing in names[1:]:
        (folder / missing).unlink()
    with pytest.raises(InputError, match=r"the image .*2\.jpg is not there \(2 of 3 are missing\)"):
        check_annotations(name)
    shutil.rmtree(folder / "b", ignore_errors=True)
    with pytest.raises(InputError, match=r"\(2 of 3 are missing\)"):
        check_annotations(name)


def test_images_are_not_looked_for_again_while_their_folder_stays_as_it_is(pictures, monkeypatch):
    name, folder = pictures("1.jpg", "2.jpg")
    check_annotations(name)
    with monkeypatch.context() as patched:
        patched.setattr(checking, "read_coco", None)
        check_annotations(name)
    (folder / "2.jpg").rename(folder / "3.jpg")
    with pytest.raises(InputError, match="1 of 2 are missing"):
        check_annotations(name)


@pytest.mark.parametrize("facts", [{}, {"file_name": "COCO_train2014_000000000001.jpg"}])
def test_images_by_their_addresses_are_not_looked_for(tmp_path, facts):
    """LVIS 1 has no names of files, and Detectron2 does not take those of 0.5."""
    address = {"coco_url": "http://example.com/train2017/1.jpg"}
    images = [{"id": 1, "width": 4, "height": 3, **address, **facts}]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(coco(ANNOTATION, images=images)))
    register_lvis_instances(str(path), {}, str(path), f"{tmp_path}/")
    try:
        check_annotations(str(path))
    finally:
        DatasetCatalog.remove(str(path))
