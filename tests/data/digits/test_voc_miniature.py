"""VOC in miniature, read by Detectron2's own reader and held against the pictures."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

# As VOC's development kit has them: https://host.robots.ox.ac.uk/pascal/VOC
NAMES = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"]
SETS = {
    "voc_2007_trainval": ("train", 3, 12),
    "voc_2012_trainval": ("train", 4, 12),
    "voc_2007_test": ("test", 5, 6),
}


@pytest.fixture(params=SETS)
def name(request, miniatures):
    return request.param


def test_detectron2_reads_the_digits_with_their_boxes(name, taken, covered, extent):
    split, number, num = SETS[name]
    records, pictures = DatasetCatalog.get(name), taken(split, number)
    assert len(records) == len(pictures) == num
    shapes = set()
    for record, picture in zip(records, pictures, strict=True):
        height, width = picture.scene.image.shape[:2]
        shapes.add((height, width))
        assert (record["height"], record["width"]) == (height, width)
        with Image.open(record["file_name"]) as image:
            assert image.size == (width, height)
            difference = np.asarray(image, int) - picture.scene.image
        assert np.abs(difference).mean() < 8  # JPEG
        for annotation, label, mask in zip(
            record["annotations"], picture.scene.labels, picture.scene.masks, strict=True
        ):
            assert annotation["category_id"] == label
            left, top, right, bottom = extent(covered(mask)[0])
            # Detectron2 counts from 0 at the first pixel's edge, to the last one's other edge.
            assert annotation["bbox"] == [left, top, right + 1, bottom + 1]
    assert shapes == {(64, 64), (48, 64), (64, 48)}


def test_xml_counts_pixels_from_1_and_the_last_one_is_inside(miniatures, taken, covered, extent):
    for number, picture in enumerate(taken("train", 3)):
        path = miniatures / "VOC2007" / "Annotations" / f"{2 * number + 1:06d}.xml"
        root = ET.parse(path).getroot()
        assert root.findtext("filename") == f"{path.stem}.jpg"
        assert [root.findtext(f"size/{side}") for side in ("width", "height", "depth")] == [
            str(picture.scene.image.shape[1]),
            str(picture.scene.image.shape[0]),
            "3",
        ]
        for object_, label, mask in zip(
            root.findall("object"), picture.scene.labels, picture.scene.masks, strict=True
        ):
            corners = ("xmin", "ymin", "xmax", "ymax")
            box = [int(object_.findtext(f"bndbox/{corner}")) for corner in corners]
            assert box == [value + 1 for value in extent(covered(mask)[0])]
            assert object_.findtext("name") == NAMES[label]
            small = max(box[2] - box[0], box[3] - box[1]) + 1 < 0.3 * 64
            assert object_.findtext("difficult") == str(int(small))


@pytest.mark.parametrize("year", ["2007", "2012"])
@pytest.mark.parametrize("flag", ["difficult", "truncated"])
def test_some_objects_are_difficult_and_some_cut(miniatures, year, flag):
    files = (miniatures / f"VOC{year}" / "Annotations").iterdir()
    objects = [object_ for file in files for object_ in ET.parse(file).findall("object")]
    assert {object_.findtext(flag) for object_ in objects} == {"0", "1"}


def test_lists_are_those_of_voc(miniatures):
    def ids(year, name):
        path = miniatures / f"VOC{year}" / "ImageSets" / "Main" / f"{name}.txt"
        return path.read_text().split()

    assert sorted(ids("2007", "train") + ids("2007", "val")) == ids("2007", "trainval")
    assert not set(ids("2007", "trainval")) & set(ids("2007", "test"))
    images = {path.stem for path in (miniatures / "VOC2007" / "JPEGImages").iterdir()}
    assert images == {*ids("2007", "trainval"), *ids("2007", "test")}
    assert ids("2012", "trainval")[:2] == ["2008_000001", "2008_000003"]
    assert not (miniatures / "VOC2012" / "ImageSets" / "Main" / "test.txt").exists()


def test_both_years_and_the_test_set_show_different_pictures(miniatures):
    pictures = [
        path.read_bytes()
        for folder in ("VOC2007/JPEGImages", "VOC2012/JPEGImages", "coco/train2017", "coco/val2017")
        for path in (miniatures / folder).iterdir()
    ]
    assert len(set(pictures)) == len(pictures) == 12 + 6 + 12 + 12 + 6


def test_it_is_registered_as_pascal_voc(name):
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "pascal_voc"
    assert metadata.thing_classes[:10] == NAMES and len(metadata.thing_classes) == 20
