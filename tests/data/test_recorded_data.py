"""What RUN/run_data.json is for: the data of a run is found again, and is told when it is other data."""

import json
from types import SimpleNamespace

import coco_files
import pytest
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf
from PIL import Image

from ssl_backbones.data import own_data
from ssl_backbones.data.preparing import prepare
from ssl_backbones.engine import preflight
from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.ground_truth import GroundTruths


def of_a_box() -> dict:
    """An image with a box in it, and one of each of seven other classes."""
    box = {"image_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 9, "width": 9}],
        "categories": [{"id": id_, "name": f"class {id_}"} for id_ in range(8)],
        "annotations": [{**box, "id": id_ + 1, "category_id": id_} for id_ in range(8)],
    }


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The config of a run on a file in `tmp_path`, and its folder with the record."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    before = set(DatasetCatalog.list())
    path = coco_files.written(tmp_path / "train.json", of_a_box())
    Image.new("RGB", (9, 9)).save(tmp_path / "1.jpg")
    cfg = OmegaConf.create(
        {
            "train": {"data": str(path), "classes": None},
            "dataloader": {"train": {"dataset": {"names": ""}}, "test": {"dataset": {"names": ""}}},
            "model": {},
        }
    )
    own_data.name_own_data(cfg, set())
    (tmp_path / "run").mkdir()
    own_data.write_record(cfg, tmp_path / "run")
    yield SimpleNamespace(cfg=cfg, path=path, folder=tmp_path / "run")
    for name in set(DatasetCatalog.list()) - before:
        coco_files.forget(name)


def entry(recorded, role: str) -> dict:
    return own_data.read_record(recorded.folder)[role][0]


def test_a_report_takes_the_annotations_that_the_run_was_tested_on_and_no_others(recorded):
    name = entry(recorded, "test")["name"]
    truth = GroundTruths().of(name, recorded.folder)
    assert truth.images.files == {1: str(recorded.path.with_name("1.jpg"))}
    content = json.loads(recorded.path.read_text())
    content["annotations"][0]["bbox"][0] += 1
    coco_files.written(recorded.path, content)
    with pytest.raises(InputError, match=f"{recorded.path} have changed since the run was tested"):
        GroundTruths().of(name, recorded.folder)


def test_other_annotations_are_named_with_those_before(recorded, tmp_path):
    assert own_data.changed_since(recorded.folder, recorded.cfg) == []
    coco_files.written(recorded.path, of_a_box() | {"info": {}})
    done = f"{recorded.path} is not what the run in {recorded.folder} was"
    assert own_data.changed_since(recorded.folder, recorded.cfg) == [
        f"{done} trained on (as it was then)",
        f"{done} tested on (as it was then)",
    ]


def test_data_that_is_no_longer_there_is_told_with_the_option_that_says_where(recorded):
    name = entry(recorded, "train")["name"]
    coco_files.forget(name)
    recorded.path.rename(recorded.path.with_name("elsewhere.json"))
    own_data.register_recorded(recorded.folder)
    recorded.cfg.dataloader.train.dataset.names = name
    with pytest.raises(InputError, match=f"are not at {recorded.path}; .* by --data PATH where"):
        preflight.check_dataset(recorded.cfg, "train")


def test_of_many_classes_that_are_left_out_the_first_are_named_with_their_objects(recorded):
    content = of_a_box()
    content["annotations"].append({**content["annotations"][0], "id": 9, "iscrowd": 1})
    coco_files.written(recorded.path, content)
    recorded.cfg.train.classes = ["class 7"]
    (sentence,) = [one for one in prepare(recorded.cfg, ("train",)) if "left out" in one]
    assert sentence.endswith(
        "the classes class 7 are kept; objects left out: 1 of class 0, 1 of class 1, 1 of class 2, "
        "1 of class 3, 1 of class 4, 2 of 2 other classes"
    )
