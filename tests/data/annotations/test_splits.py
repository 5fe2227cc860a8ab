"""Training and test sets that do not go together, in both formats."""

import json
import logging
import shutil

import pytest
from coco_files import forget, plain, registered, written
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from PIL import Image

from ssl_backbones.data.annotations import splits
from ssl_backbones.data.annotations.splits import check_splits
from ssl_backbones.engine import preflight
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.launching.world import World
from ssl_backbones.errors import InputError


@pytest.fixture()
def coco(tmp_path):
    """Registers a COCO file of images with these names."""
    names = []

    def coco(*files, root="images"):
        content = plain()
        content["images"] = [
            {"id": number, "file_name": file, "height": 4, "width": 3}
            for number, file in enumerate(files)
        ]
        content["annotations"] = [{**content["annotations"][0], "image_id": 0}]
        path = written(tmp_path / f"{len(names)}.json", content)
        for file in files:
            (tmp_path / root / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (3, 4)).save(tmp_path / root / file)
        names.append(registered(path, str(tmp_path / root)))
        return names[-1]

    yield coco
    for name in names:
        forget(name)


def test_the_datasets_themselves_pass(miniatures, digits):
    check_splits(["voc_2007_trainval", "voc_2012_trainval"], ["voc_2007_test"])
    check_splits(["coco_2017_train"], ["coco_2017_val"])
    check_splits(["digits_train"], ["digits_test"])
    check_splits(["digits_train"], [])


def test_one_dataset_for_both_is_warned_of(digits, caplog, monkeypatch):
    """As one does to see whether a detector can learn a few images by heart."""
    monkeypatch.setattr(logging.getLogger("detectron2"), "propagate", True)
    check_splits(["digits_train"], ["digits_test"])
    assert "trained and tested on" not in caplog.text
    check_splits(["digits_train"], ["digits_test", "digits_train"])
    (warning,) = (one for one in caplog.records if "trained and tested on" in one.getMessage())
    assert warning.levelname == "WARNING" and "'digits_train'" in warning.getMessage()


def test_another_name_for_what_is_trained_on_is_still_refused(coco):
    """One dataset under two names is an accident."""
    with pytest.raises(InputError, match="share 1 images"):
        check_splits([coco("a.jpg")], [coco("a.jpg")])


def test_a_coco_file_with_images_of_the_test_set_is_refused(coco, tmp_path):
    train, test = coco("a.jpg", "b.jpg", "c.jpg"), coco("b.jpg", "./c.jpg", "d.jpg")
    with pytest.raises(InputError, match=f"{train}.*{test}.*share 2 images, such as .*b.jpg"):
        check_splits([coco("z.jpg"), train], [test])


def test_folders_inside_one_another_are_seen_through(coco):
    whole, part = coco("sub/a.jpg", "b.jpg"), coco("a.jpg", root="images/sub")
    with pytest.raises(InputError, match=r"share 1 images, such as .*images/sub/a.jpg"):
        check_splits([whole], [part])


def test_equal_names_in_different_folders_pass_without_reading(coco, monkeypatch):
    train, test = coco("a.jpg", root="one"), coco("a.jpg", root="other")
    monkeypatch.setattr(splits, "parse_json", None)
    check_splits([train], [test])


def test_what_passed_once_is_not_read_again_until_it_changes(coco, tmp_path, monkeypatch):
    train, test = coco("a.jpg"), coco("b.jpg")
    check_splits([train], [test])
    with monkeypatch.context() as patched:
        patched.setattr(splits, "parse_json", None)
        check_splits([train], [test])
    path = tmp_path / "0.json"
    path.write_text(path.read_text().replace("a.jpg", "b.jpg"))
    with pytest.raises(InputError, match="share 1 images"):
        check_splits([train], [test])


def test_a_voc_list_with_images_of_the_test_set_is_refused(miniatures, tmp_path):
    folder = tmp_path / "VOC2007"
    shutil.copytree(miniatures / "VOC2007", folder)
    lists = folder / "ImageSets" / "Main"
    with open(lists / "trainval.txt", "a") as file:
        file.write("000004\n")
    for split in ("trainval", "test"):
        register_pascal_voc(f"overlapping_{split}", str(folder), split, 2007)
    try:
        with pytest.raises(InputError, match=r"share 1 images, such as .*000004.jpg"):
            check_splits(["overlapping_trainval"], ["overlapping_test"])
    finally:
        for split in ("trainval", "test"):
            DatasetCatalog.remove(f"overlapping_{split}")
            MetadataCatalog.remove(f"overlapping_{split}")


def test_other_classes_are_refused(miniatures, digits):
    message = "'voc_2007_trainval' has the class 'aeroplane' where 'coco_2017_val' has 'person'"
    with pytest.raises(InputError, match=message):
        check_splits(["voc_2007_trainval"], ["coco_2017_val"])


def test_preflight_says_so(coco, tmp_path):
    """From the config of a run; an evaluation alone may be on what was trained on."""
    train, other = coco("a.jpg"), coco("a.jpg")
    names = [f"dataloader.{s}.dataset.names={n}" for s, n in (("train", train), ("test", other))]
    words = [*names, "model.roi_heads.num_classes=2", "train.device=cpu"]
    words += ["train.init_checkpoint=", "model.backbone.bottom_up.freeze_at=0"]
    cfg = load_config("moco_1x", [*words, f"train.output_dir={tmp_path / 'run'}"])
    with pytest.raises(InputError, match="share 1 images"):
        preflight.check(cfg, World())
    with pytest.raises(InputError, match="--eval-only needs weights"):
        preflight.check(cfg, World(), eval_only=True)


def test_an_absent_year_is_said_by_preflight(digits, tmp_path):
    register_pascal_voc("voc_absent", str(tmp_path / "VOC2012"), "trainval", 2012)
    try:
        cfg = load_config("moco_1x", ["model.roi_heads.num_classes=20"])
        cfg.dataloader.train.dataset.names = ["voc_absent"]
        with pytest.raises(InputError, match=r"'voc_absent': there is no .*VOC2012"):
            preflight.check_dataset(cfg, "train")
    finally:
        DatasetCatalog.remove("voc_absent")
        MetadataCatalog.remove("voc_absent")


def test_images_without_a_name_are_left_out(coco, tmp_path):
    """LVIS has addresses in their place."""
    train, test = coco("a.jpg"), coco("b.jpg")
    path = tmp_path / "1.json"
    content = json.loads(path.read_text())
    del content["images"][0]["file_name"]
    path.write_text(json.dumps(content))
    check_splits([train], [test])
