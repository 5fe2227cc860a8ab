"""What the training loader feeds, on images of one colour each and on the digits."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.samplers import TrainingSampler
from PIL import Image

from ssl_backbones.drawing.mapped_images import draw_mapped_image
from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.training_images import draw_training_images, setting_rows
from ssl_backbones.seeding import seed_everything

TINY = str(Path(__file__).parents[2] / "tiny.py")
RED = (200, 40, 10)


@pytest.fixture
def red(tmp_path):
    """Overrides for a dataset of four red images, 400 x 340: the name of image 0 to 3 is its number.

    Objects: none in image 0; in the others one of 200 x 100 and one of 20 x 2 pixels.
    """
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "<script>"}]}
    for number in range(4):
        Image.new("RGB", (400, 340), RED).save(tmp_path / f"{number}.png")
        image = {"id": number + 1, "file_name": f"{number}.png", "width": 400, "height": 340}
        content["images"].append(image)
        for box in ([100, 100, 200, 100], [10, 10, 20, 2]) if number else ():
            x, y, width, height = box
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "bbox": box,
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
    path = tmp_path / "red.json"
    path.write_text(json.dumps(content))
    name = f"red_{tmp_path.name}"
    register_coco_instances(name, {"thing_classes": ["<script>"]}, str(path), str(tmp_path))
    yield [
        f"dataloader.train.dataset.names={name}",
        "dataloader.train.dataset.filter_empty=False",
        "dataloader.train.mapper.augmentations.0.short_edge_length=340",
        "model.roi_heads.num_classes=1",
    ]
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def browse(folder, overrides, num_images=8):
    cfg = load_config(TINY, overrides)
    counts = draw_training_images(cfg, folder, num_images=num_images)
    return dict(setting_rows(cfg, counts)), sorted(path.name for path in folder.glob("0*.png"))


def corner(path):
    return tuple(np.asarray(Image.open(path))[-1, -1].tolist())


def test_colours_are_those_of_the_files(red, tmp_path):
    words, names = browse(tmp_path / "out", red, num_images=2)
    assert {corner(tmp_path / "out" / name) for name in names} == {RED}
    assert "DISAGREE" not in words["channel order"]
    # In the tensor's order: the red channel first.
    assert words["channel means"].startswith("200 40 10; model.pixel_mean is 123.7 116.3 103.5")


def test_colours_show_that_mapper_and_model_disagree(red, tmp_path):
    overrides = [*red, "dataloader.train.mapper.image_format=BGR"]
    words, names = browse(tmp_path / "out", overrides, num_images=2)
    assert {corner(tmp_path / "out" / name) for name in names} == {RED[::-1]}
    assert "mapper says BGR, the model says RGB: THEY DISAGREE" in words["channel order"]
    assert words["channel means"].startswith("10 40 200;")


def test_both_in_the_other_order_show_the_right_colours(red, tmp_path):
    overrides = [*red, "dataloader.train.mapper.image_format=BGR", "model.input_format=BGR"]
    _, names = browse(tmp_path / "out", overrides, num_images=2)
    assert {corner(tmp_path / "out" / name) for name in names} == {RED}


def test_counts(red, tmp_path):
    words, _ = browse(tmp_path / "out", red, num_images=8)
    # Every four of a TrainingSampler are all of the four images.
    assert words["images"] == "8, of which 2 without an object"
    assert words["objects"] == "12 of 1 classes"
    assert words["most frequent"] == "<script> (12)"
    assert words["small boxes"].startswith("6 below")
    assert words["large boxes"].startswith("6 above")
    assert words["narrow boxes"].startswith("6 with")
    assert words["shorter side"] == "340 to 340 pixels"
    assert words["longer side"] == "400 to 400 pixels"
    assert words["seed"] == "7"


def test_images_that_cannot_be_read_are_counted(red, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    words, names = browse(tmp_path / "out", red, num_images=8)
    assert words["not readable"].startswith("2,")
    assert len(names) == 8 and not any("_2.png" in name for name in names)


def test_order_and_pixels_are_the_runs(digits, tmp_path):
    overrides = ["train.seed=3", "dataloader.train.aspect_ratio_grouping=False"]
    _, names = browse(tmp_path / "out", overrides, num_images=6)
    cfg = load_config(TINY, overrides)
    records = instantiate(cfg.dataloader.train.dataset)
    order = TrainingSampler(len(records), seed=3)._infinite_indices()
    # Detectron2's own mapper, whatever the config's is.
    options = {
        k: v for k, v in cfg.dataloader.train.mapper.items() if k not in ("_target_", "exact")
    }
    mapper = DatasetMapper(**{k: instantiate(v) for k, v in options.items()})
    classes = [str(digit) for digit in range(10)]
    for position, (name, index) in enumerate(zip(names, order, strict=False)):
        assert name == f"{position:04d}_{Path(records[index]['file_name']).stem}.png"
        seed_everything(3, position)
        expected = draw_mapped_image(mapper(records[index]), "RGB", classes)
        assert (np.asarray(Image.open(tmp_path / "out" / name)) == expected).all()


def test_the_overview_holds_them_all(red, tmp_path):
    browse(tmp_path / "out", red, num_images=5)
    overview = np.asarray(Image.open(tmp_path / "out" / "overview.png"))
    assert overview.shape == (2 * 340, 4 * 320, 3)
    filled = [
        (overview[y : y + 320, x : x + 320] == RED).all(2).any()
        for y in (0, 340)
        for x in range(0, 1280, 320)
    ]
    assert filled == [True] * 5 + [False] * 3


def test_a_seed_that_each_run_draws_is_said(red, tmp_path):
    words, _ = browse(tmp_path / "out", [*red, "train.seed=-1"], num_images=1)
    assert words["seed"].startswith("0, since train.seed=-1")


def test_a_dataset_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="'nowhere' is not registered"):
        browse(tmp_path / "out", ["dataloader.train.dataset.names=nowhere"])
    assert not (tmp_path / "out").exists()
