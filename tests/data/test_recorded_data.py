"""What RUN/run_data.json is for: the data of a run is found again, and is told when it is other data."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import coco_files
import pytest
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog
from omegaconf import OmegaConf
from PIL import Image

from ssl_backbones.data import own_data
from ssl_backbones.data.preparing import prepare
from ssl_backbones.engine import preflight
from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.ground_truth import GroundTruths


def place(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64


def of_a_box() -> dict:
    """An image with a box in it, and one of each of seven other classes."""
    box = {"image_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "height": 9, "width": 9}],
        "categories": [{"id": id_, "name": f"class {id_}"} for id_ in range(8)],
        "annotations": [{**box, "id": id_ + 1, "category_id": id_} for id_ in range(8)],
    }


@pytest.fixture
def run_on(tmp_path, monkeypatch):
    """Makes the config of a run on a file in `tmp_path`, and its folder with the record."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    before = set(DatasetCatalog.list())

    def run_on(name: str, content: dict) -> SimpleNamespace:
        path = coco_files.written(tmp_path / name, content)
        for number, image in enumerate(content["images"]):
            Image.new("RGB", (9, 9), (20 * number, 0, 0)).save(tmp_path / image["file_name"])
        names = {"dataset": {"names": ""}}
        cfg = OmegaConf.create(
            {
                "train": {"data": str(path), "classes": None, "val_share": None},
                "dataloader": {"train": names, "test": names},
                "model": {},
            }
        )
        own_data.name_own_data(cfg, set())
        (tmp_path / "run").mkdir()
        own_data.write_record(cfg, tmp_path / "run")
        folder, cache = tmp_path / "run", tmp_path / "cache"
        return SimpleNamespace(cfg=cfg, path=path, folder=folder, cache=cache)

    yield run_on
    for name in set(DatasetCatalog.list()) - before:
        coco_files.forget(name)


@pytest.fixture
def recorded(run_on):
    """A run on one image."""
    return run_on("train.json", of_a_box())


@pytest.fixture
def divided(run_on):
    """A run on a file for all of eleven images, which was divided."""
    content = of_a_box()
    for number in range(1, 12):
        image = {"id": number, "file_name": f"{number}.jpg", "height": 9, "width": 9}
        content["images"].append(image)
        content["annotations"].append(
            {**content["annotations"][0], "id": 100 + number, "image_id": number}
        )
    del content["images"][0]
    return run_on("parts.json", content)


def test_what_was_divided_is_divided_again_where_the_cache_was_emptied(divided):
    assert divided.cfg.train.val_share == 0.2
    name = entry(divided, "test")["name"]
    truth = GroundTruths().of(name, divided.folder)
    # None is below 0.2: the nearest one.
    expected = {min(range(1, 12), key=lambda number: place(f"{number}.jpg"))}
    assert set(truth.images.files) == expected
    shutil.rmtree(divided.cache)
    assert set(GroundTruths().of(name, divided.folder).images.files) == expected
    coco_files.forget(name)
    shutil.rmtree(divided.cache)
    own_data.register_recorded(divided.folder)
    assert {one["image_id"] for one in DatasetCatalog.get(name)} == expected
    assert own_data.changed_since(divided.folder, divided.cfg) == []


def test_a_change_of_what_was_divided_is_told_by_its_own_name(divided):
    content = json.loads(divided.path.read_text())
    for one in content["annotations"]:
        one["bbox"][0] += 1
    coco_files.written(divided.path, content)
    with pytest.raises(InputError, match=f"at {divided.path} have changed since"):
        GroundTruths().of(entry(divided, "test")["name"], divided.folder)
    own_data.register_recorded(divided.folder)
    own_data.name_own_data(divided.cfg, set())
    assert [
        one.partition(" is not")[0] for one in own_data.changed_since(divided.folder, divided.cfg)
    ] == [str(divided.path)] * 2
    divided.path.unlink()
    own_data.register_recorded(divided.folder)


def test_another_share_is_told(divided):
    divided.cfg.train.val_share = 0.5
    own_data.name_own_data(divided.cfg, {"train.val_share"})
    assert own_data.changed_since(divided.folder, divided.cfg) == [
        f"{divided.path} is not what the run in {divided.folder} was {done} on (as it was then, divided by "
        "--val-share 0.2)"
        for done in ("trained", "tested")
    ]


def test_the_share_of_a_run_is_of_its_own_data_alone(divided, tmp_path):
    LazyConfig.save(divided.cfg, divided.folder / "config.yaml")
    moved, other = (
        shutil.copytree(
            divided.path.parent, tmp_path / one, ignore=lambda *_: ["run", "cache", "moved"]
        )
        for one in ("moved", "other")
    )
    content = json.loads((other / "parts.json").read_text())
    for one in content["annotations"]:
        one["bbox"][0] += 1
    coco_files.written(other / "parts.json", content)
    for path, share, number in (
        (divided.path, 0.2, 1),
        (moved / "parts.json", 0.2, 1),
        (other / "parts.json", None, 11),
    ):
        config = str(divided.folder / "config.yaml")
        cfg = load_config(config, [f"train.data={path}"], eval_only=True)
        assert cfg.train.val_share == share
        assert len(DatasetCatalog.get(cfg.dataloader.test.dataset.names)) == number


def test_a_folder_is_looked_at_once_and_not_where_other_annotations_are_given(divided, monkeypatch):
    calls = []
    find = own_data.find_splits
    monkeypatch.setattr(own_data, "find_splits", lambda *a, **k: calls.append(a) or find(*a, **k))
    own_data.register_recorded(divided.folder)
    assert len(calls) == 1
    name = entry(divided, "test")["name"]
    GroundTruths(divided.path).of(name, divided.folder)
    assert len(calls) == 1


def test_a_folder_named_from_where_the_run_began_is_found_from_elsewhere(recorded, monkeypatch):
    root = recorded.path.parent
    (root / "yolo").mkdir()
    Image.new("RGB", (40, 20)).save(root / "yolo" / "a.png")
    (root / "yolo" / "a.txt").write_text("0 0.5 0.5 0.5 0.5")
    recorded.cfg.train.data = ""
    for role in ("train", "test"):
        recorded.cfg.dataloader[role].dataset.names = "./yolo"
    with monkeypatch.context() as patch:
        patch.chdir(root)
        own_data.name_own_data(recorded.cfg, set())
        own_data.write_record(recorded.cfg, recorded.folder)
    name = entry(recorded, "test")["name"]
    coco_files.forget(name)
    shutil.rmtree(root / "cache")
    own_data.register_recorded(recorded.folder)
    (record,) = DatasetCatalog.get(name)
    assert record["file_name"] == str(root / "yolo" / "a.png")
    assert record["annotations"][0]["bbox"] == [10, 5, 20, 10]


@pytest.mark.parametrize(
    "made", ["labels", {}, {"path": 3, "split": "val", "val_share": None}, [1]]
)
def test_a_record_that_is_none_of_ours_is_none(recorded, made):
    path = recorded.folder / "run_data.json"
    content = json.loads(path.read_text())
    del content["train"][0]["derived"]  # as older versions wrote it
    path.write_text(json.dumps(content))
    assert own_data.read_record(recorded.folder)["train"] == content["train"]
    own_data.register_recorded(recorded.folder)
    content["train"][0]["derived"] = made
    path.write_text(json.dumps(content))
    assert bool(own_data.read_record(recorded.folder)) == (not made)


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


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_run_goes_on_with_its_share_whoever_names_it_again(divided, share):
    divided.cfg.train.val_share = share
    divided.cfg.train.output_dir = str(divided.folder)
    own_data.name_own_data(divided.cfg, {"train.val_share"})
    own_data.write_record(divided.cfg, divided.folder)
    before = entry(divided, "test")["sha256"]
    divided.cfg.train.val_share = None
    own_data.name_own_data(divided.cfg, set())
    own_data.write_record(divided.cfg, divided.folder)
    assert entry(divided, "test")["sha256"] == before
