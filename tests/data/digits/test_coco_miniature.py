"""COCO in miniature, by pycocotools and by Detectron2's own readers, and key points of known shapes."""

import contextlib
import io
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssl_backbones.data.annotations.checking import check_annotations
from ssl_backbones.data.digits.digit_scenes import CELLS
from ssl_backbones.data.digits.miniatures import (
    HIDDEN,
    KEYPOINT_NAMES,
    NOT_LABELLED,
    VISIBLE,
    keypoints,
)
from ssl_backbones.fast.annotations.packed_dataset import packed_detection_dataset

SPLITS = {"train": ("train2017", 6, 12), "test": ("val2017", 7, 6)}


@pytest.fixture(params=SPLITS)
def split(request, miniatures):
    return request.param


@pytest.fixture()
def read(miniatures, capsys):
    def read(kind, split):
        coco = COCO(str(miniatures / "coco" / "annotations" / f"{kind}_{SPLITS[split][0]}.json"))
        capsys.readouterr()  # pycocotools prints
        return coco

    return read


def test_polygons_and_crowds_are_the_visible_strokes(read, split, taken, covered):
    coco = read("instances", split)
    _, number, num = SPLITS[split]
    pictures = taken(split, number)
    assert len(coco.imgs) == len(pictures) == num
    kinds = set()
    for image_id, picture in zip(sorted(coco.imgs), pictures, strict=True):
        image = coco.imgs[image_id]
        assert (image["height"], image["width"]) == picture.scene.image.shape[:2]
        annotations = coco.imgToAnns[image_id]
        for annotation, label, mask in zip(
            annotations, picture.scene.labels, picture.scene.masks, strict=True
        ):
            raster = coco.annToMask(annotation).astype(bool)
            touched, stroke = covered(mask)
            assert (raster & stroke).sum() / (raster | stroke).sum() > 0.85
            assert not (raster & ~touched).any() and annotation["area"] == raster.sum()
            assert annotation["category_id"] == label + 1
            is_crowd = annotation["iscrowd"]
            kinds.add((is_crowd, type(annotation["segmentation"])))
            if is_crowd:
                assert annotation["segmentation"]["size"] == list(mask.shape // np.array(8))
                assert all(type(value) is int for value in annotation["bbox"])
    # As in COCO: crowds by run lengths, all others by polygons.
    assert kinds == {(0, list), (1, dict)}


def test_names_and_ids_are_those_that_detectron2_knows(read, split):
    coco = read("instances", split)
    name = f"coco_2017_{'train' if split == 'train' else 'val'}"
    metadata = MetadataCatalog.get(name)
    assert [coco.cats[id_]["name"] for id_ in sorted(coco.cats)] == metadata.thing_classes
    assert sorted(coco.cats) == sorted(metadata.thing_dataset_id_to_contiguous_id)
    check_annotations(name)
    # Detectron2 asserts that they are; the fast reader gives the same.
    with contextlib.redirect_stdout(io.StringIO()):
        stock = get_detection_dataset_dicts([name])
    assert list(packed_detection_dataset([name])) == stock


def test_images_of_the_two_splits_have_different_ids(read):
    ids = [set(read("instances", split).imgs) for split in SPLITS]
    assert not ids[0] & ids[1]


def test_what_is_found_exactly_is_an_ap_of_100(read, split, capsys):
    """By pycocotools' own evaluation of boxes, masks and key points; what is crowded does not count."""
    for kind, tasks in (("instances", ("bbox", "segm")), ("person_keypoints", ("keypoints",))):
        coco = read(kind, split)
        found = []
        for annotation in coco.anns.values():
            if annotation["iscrowd"]:
                continue
            image = coco.imgs[annotation["image_id"]]
            parts = coco_mask.frPyObjects(
                annotation["segmentation"], image["height"], image["width"]
            )
            one = {key: annotation[key] for key in ("image_id", "category_id", "bbox")} | {
                "score": 1.0
            }
            if kind == "person_keypoints":
                found.append(one | {"keypoints": annotation["keypoints"]})
            else:
                found.append(one | {"segmentation": coco_mask.merge(parts)})
        for task in tasks:
            evaluation = COCOeval(coco, coco.loadRes(found), task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            capsys.readouterr()
            assert evaluation.stats[0] == pytest.approx(1)


def test_people_are_the_same_objects_with_key_points(read, split):
    instances, people = read("instances", split), read("person_keypoints", split)
    assert list(instances.anns) == list(people.anns) and instances.imgs == people.imgs
    for id_, one in people.anns.items():
        other = instances.anns[id_]
        assert all(one[key] == other[key] for key in ("bbox", "area", "segmentation", "iscrowd"))
        assert one["category_id"] == 1 and len(one["keypoints"]) == 51
        assert one["num_keypoints"] == sum(v > 0 for v in one["keypoints"][2::3])
        assert (one["num_keypoints"] == 0) == bool(one["iscrowd"])


def test_detectron2_reads_the_key_points(split, miniatures):
    name = f"keypoints_coco_2017_{'train' if split == 'train' else 'val'}"
    check_annotations(name)
    with contextlib.redirect_stdout(io.StringIO()):
        records = DatasetCatalog.get(name)
    metadata = MetadataCatalog.get(name)
    annotations = [one for record in records for one in record["annotations"]]
    assert {len(one["keypoints"]) for one in annotations} == {3 * len(metadata.keypoint_names)}
    path = miniatures / "coco" / "annotations" / f"person_keypoints_{SPLITS[split][0]}.json"
    (person,) = json.loads(path.read_text())["categories"]
    assert person["keypoints"] == list(metadata.keypoint_names)
    # COCO's lines, by name, are those that Detectron2 draws but for some of the face.
    lines = {frozenset(person["keypoints"][n - 1] for n in line) for line in person["skeleton"]}
    drawn = {frozenset(rule[:2]) for rule in metadata.keypoint_connection_rules}
    assert drawn <= lines


def canvas(height=20, width=30):
    return np.zeros((height * CELLS, width * CELLS), dtype=bool)


def rectangle(left, top, right, bottom):
    mask = canvas()
    mask[top * CELLS : bottom * CELLS, left * CELLS : right * CELLS] = True
    return mask


def points(values):
    return dict(zip(KEYPOINT_NAMES, np.reshape(values, (-1, 3)).tolist(), strict=True))


def test_key_points_have_cocos_names():
    assert COCO_PERSON_KEYPOINT_NAMES == KEYPOINT_NAMES


def test_points_of_a_bar():
    """16 pixels high, so that the eight heights are every second pixel from the first but one cell."""
    found = points(keypoints(rectangle(5, 2, 9, 18), []))
    assert found["nose"] == [5, 2, VISIBLE]
    assert found["left_eye"] == [8, 2, VISIBLE] and found["right_eye"] == [5, 2, VISIBLE]
    assert found["left_ear"][1] - found["left_eye"][1] == 2
    assert found["right_ankle"] == [5, 16, VISIBLE]


def test_what_another_digit_touches_is_hidden_and_what_is_not_there_not_labelled():
    bar, beside = rectangle(5, 2, 9, 18), rectangle(9, 2, 12, 10)
    found = points(keypoints(bar, [beside, rectangle(20, 2, 22, 18)]))
    assert found["left_eye"][2] == HIDDEN and found["right_eye"][2] == VISIBLE
    assert found["left_ankle"][2] == VISIBLE  # below what touches it
    above = rectangle(4, 0, 6, 2)
    assert points(keypoints(bar, [above]))["nose"][2] == HIDDEN
    broken = rectangle(5, 2, 9, 8) | rectangle(5, 12, 9, 18)
    found = points(keypoints(broken, []))
    assert found["left_elbow"] == found["right_elbow"] == [0, 0, NOT_LABELLED]


def test_at_the_edge_of_the_picture_nothing_hides():
    found = points(keypoints(rectangle(0, 0, 30, 20), []))
    assert {visibility for *_, visibility in found.values()} == {VISIBLE}


@pytest.mark.parametrize("number", range(4))
def test_a_mirrored_digit_has_left_and_right_exchanged_as_detectron2_does(
    number, taken, miniatures
):
    scene = taken("train", 6)[number].scene
    masks = scene.masks
    flip = dict(MetadataCatalog.get("keypoints_coco_2017_train").keypoint_flip_map)
    flip |= {right: left for left, right in flip.items()}
    width = scene.image.shape[1]
    found = points(keypoints(masks[0], masks[1:]))
    mirrored = points(keypoints(masks[0][:, ::-1], [mask[:, ::-1] for mask in masks[1:]]))
    for name in KEYPOINT_NAMES[1:]:
        x, y, visibility = found[name]
        expected = [width - 1 - x, y, visibility] if visibility else [0, 0, 0]
        assert mirrored[flip[name]] == expected
