"""What the rows compare: that their checks find a difference, and their other sides are what they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

from ssl_backbones.fast.annotations.packed import PackedRecords
from ssl_backbones.modeling.architectures import detectron2_name

sys.path.append(str(Path(__file__).parents[2]))

from projects.benchmarks import coco_file, straightforward
from projects.benchmarks.coco_file import write_coco_file
from projects.benchmarks.row import Disagreement
from projects.benchmarks.rows import annotations, convert, quickstart


def test_the_straightforward_script_names_tensors_as_detectron2_does():
    keys = [k for k in torchvision.models.resnet50().state_dict() if not k.startswith("fc.")]
    assert [straightforward.detectron2_name(key) for key in keys] == [
        detectron2_name(key) for key in keys
    ]


def test_unequal_conversions_are_found():
    ours = {f"tensor{n}": np.full(3, n, np.float32) for n in range(265)}
    stock = {**ours, "a.num_batches_tracked": np.zeros(())}
    convert.check_equal(stock, ours)
    for name, array in (
        ("tensor7", ours["tensor7"] + 1e-6),
        ("tensor7", ours["tensor7"].astype(int)),
    ):
        with pytest.raises(Disagreement, match="tensor7 differs"):
            convert.check_equal(stock, {**ours, name: array})
    with pytest.raises(Disagreement, match=r"other names: \['tensor7'\]"):
        convert.check_equal(stock, {name: ours[name] for name in ours if name != "tensor7"})
    with pytest.raises(Disagreement, match="1 tensors"):
        convert.check_equal({"tensor1": ours["tensor1"]}, {"tensor1": ours["tensor1"]})


def test_unequal_records_are_found():
    stock = [{"height": 1, "annotations": [{"bbox": [1, 2, 3, 4], "iscrowd": 0}]}]
    annotations._same_records(stock, json.loads(json.dumps(stock)))
    for ours in (
        [],
        [{"height": 2, "annotations": stock[0]["annotations"]}],
        [{"height": 1, "annotations": [{"bbox": [1.0, 2, 3, 4], "iscrowd": 0}]}],
        [{"height": 1, "annotations": [{"iscrowd": 0, "bbox": [1, 2, 3, 4]}]}],
    ):
        with pytest.raises(Disagreement):
            annotations._same_records(stock, ours)
    # In each of many: the last counts as the first does.
    with pytest.raises(Disagreement, match="record 2999"):
        annotations._same_records(
            [{"height": 1}] * 3000, [{"height": 1}] * 2999 + [{"height": 1.0}]
        )
    found = {"checksums": [1, 2], "added": [1.0, 2.0]}
    annotations._same_and_shared(found, found)
    with pytest.raises(Disagreement, match="other records"):
        annotations._same_and_shared(found, {**found, "checksums": [1, 3]})


def memory_of_ours(folder):
    folder.mkdir()
    return annotations._memory(folder, small=True).ours()[0]


@pytest.mark.skipif(annotations._no_smaps() is not None, reason="no Linux that tells memory")
def test_workers_that_copy_the_dataset_are_found(tmp_path, monkeypatch):
    """A worker that keeps 1 MiB of its own for each record that it reads."""
    first, second = tmp_path / "first", tmp_path / "second"
    kept = []
    record = PackedRecords.record

    def copying(*arguments):
        kept.append(b"x" * 2**20)
        return record(*arguments)

    shared = memory_of_ours(first)
    annotations._same_and_shared(shared, shared)
    monkeypatch.setattr(PackedRecords, "record", copying)
    copied = memory_of_ours(second)
    with pytest.raises(Disagreement, match="not one copy"):
        annotations._same_and_shared(shared, copied)


def test_a_detector_that_does_not_learn_is_found():
    good = {"bbox": 60.0, "segm": 50.0}
    quickstart._both_learn(good, {"bbox": 55.0, "segm": 60.0}, least=25)
    for ours in ({"bbox": 40.0, "segm": 50.0}, {"bbox": 60.0, "segm": 70.0}):
        with pytest.raises(Disagreement):
            quickstart._both_learn(good, ours, least=25)
    with pytest.raises(Disagreement):
        quickstart._both_learn({"bbox": 20.0}, {"bbox": 20.0}, least=25)


def test_the_annotation_file_has_cocos_proportions(tmp_path):
    """train2017: 118,287 images, 860,001 objects, 448,810,932 bytes."""
    path = tmp_path / "instances.json"
    number = write_coco_file(path, 1000)
    content = json.loads(path.read_text())
    assert len(content["annotations"]) == number
    assert number / 1000 == pytest.approx(860_001 / 118_287, rel=0.06)
    assert path.stat().st_size / 1000 == pytest.approx(448_810_932 / 118_287, rel=0.3)
    assert len(content["categories"]) == 80
    crowds = [each for each in content["annotations"] if each["iscrowd"]]
    assert 0.005 < len(crowds) / number < 0.02
    assert len({each["id"] for each in content["annotations"]}) == number
    again = tmp_path / "again.json"
    write_coco_file(again, 1000)
    assert again.read_bytes() == path.read_bytes()


def test_larger_annotation_files_repeat_images_under_other_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(coco_file, "_BLOCK", 20)
    sizes = {}
    for number in (20, 40, 50):
        path = tmp_path / f"{number}.json"
        sizes[number] = write_coco_file(path, number)
        content = json.loads(path.read_text())
        images = {image["id"] for image in content["images"]}
        assert len(images) == number
        assert len({each["id"] for each in content["annotations"]}) == sizes[number]
        assert {each["image_id"] for each in content["annotations"]} <= images
    assert sizes[40] == 2 * sizes[20] and sizes[40] < sizes[50] < 3 * sizes[20]
