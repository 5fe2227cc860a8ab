"""Packed annotations: Detectron2's records, from a cache that repairs itself and that processes share."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import time

import numpy as np
import pytest
from coco_files import contents, forget, plain, registered, written
from detectron2.config import LazyCall as L
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import load_coco_json
from detectron2.data.samplers import TrainingSampler
from detectron2.utils.logger import _LOG_COUNTER
from hypothesis import HealthCheck, given, settings

from ssl_backbones.data.annotations.checking import check_annotations
from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.errors import InputError
from ssl_backbones.fast.annotations import packed_cache as annotation_cache
from ssl_backbones.fast.annotations.packed import PackedRecords, UnpackableError, pack
from ssl_backbones.fast.annotations.packed_cache import AnnotationCache
from ssl_backbones.fast.annotations.packed_dataset import PackedDataset, packed_detection_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "annotations"


@pytest.fixture
def dataset(tmp_path):
    """Registers COCO content under a new name."""
    names = []

    def register(content, file: str = "some.json") -> str:
        path = written(tmp_path / f"{len(names)}_{file}", content)
        names.append(registered(path, "images of old"))
        return names[-1]

    yield register
    for name in names:
        forget(name)


def outcome(function, *arguments, **options):
    """What a function returns, in full, or its error: types and the order of keys count, too."""
    try:
        return repr(list(function(*arguments, **options)))
    except Exception as error:
        return repr(error)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=contents())
def test_records_come_out_as_they_went_in(tmp_path, content):
    path = written(tmp_path / "some.json", content)
    name = registered(path)
    try:
        records = load_coco_json(str(path), "", name)
        packed = PackedRecords(pack(records))
        assert repr([packed.record(i, "") for i in range(len(packed))]) == repr(records)
        for filter_empty in (True, False):
            arguments = name, filter_empty
            assert outcome(packed_detection_dataset, *arguments) == outcome(
                get_detection_dataset_dicts, *arguments
            )
    finally:
        forget(name)


@pytest.mark.parametrize("filter_empty", [True, False])
@pytest.mark.parametrize("check_consistency", [True, False])
def test_several_datasets_are_put_together_as_detectron2_does(
    dataset, filter_empty, check_consistency
):
    other = plain()
    other["images"] = other["images"][:2]
    names = [dataset(plain()), dataset(other)]
    arguments = names, filter_empty, 0, None, check_consistency
    packed = packed_detection_dataset(*arguments)
    assert isinstance(packed, PackedDataset)
    stock = get_detection_dataset_dicts(*arguments)
    assert repr(list(packed)) == repr(stock)
    assert len(packed) == (2 if filter_empty else 5)
    assert packed[-1] == stock[-1] and packed[1:4] == stock[1:4] and packed[np.int64(1)] == stock[1]
    for outside in (len(stock), -len(stock) - 1):
        with pytest.raises(IndexError):
            packed[outside]
    assert packed.landscape().tolist() == [r["width"] > r["height"] for r in stock]


def test_the_log_and_the_metadata_are_detectron2s(dataset, caplog):
    content = plain()
    content["annotations"] += [
        {**content["annotations"][0], "id": 50, "image_id": 999},
        {**content["annotations"][0], "id": 51, "segmentation": [[1, 2]]},
    ]
    caplog.set_level(logging.INFO)
    lines = {}
    # A second time, it is not read again and yet said again.
    for function in (
        get_detection_dataset_dicts,
        packed_detection_dataset,
        packed_detection_dataset,
    ):
        name = dataset(content)
        caplog.clear()
        _LOG_COUNTER.clear()  # Detectron2 shows the same table only once
        function(name)
        path = MetadataCatalog.get(name).json_file
        lines.setdefault(function, []).append(
            [" ".join(r.getMessage().split()).replace(path, "PATH") for r in caplog.records]
        )
        assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
        assert MetadataCatalog.get(name).thing_classes == ["three", "seven"]
    (stock,) = lines[get_detection_dataset_dicts]
    assert len(stock) == 5 and all(line == stock for line in lines[packed_detection_dataset])


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ({**plain(), "images": []}, {}),
        ({**plain(), "annotations": []}, {}),
        ({**plain(), "annotations": []}, {"filter_empty": False}),
        (plain(), {"min_keypoints": 1}),
        (plain(), {"proposal_files": ["missing.pkl"]}),
        ([], {}),
    ],
)
def test_other_cases_end_as_with_detectron2(dataset, content, options):
    name = dataset(content)
    assert outcome(packed_detection_dataset, name, **options) == outcome(
        get_detection_dataset_dicts, name, **options
    )


def test_inconsistent_classes_are_refused_as_by_detectron2(dataset):
    other = plain()
    other["categories"][0]["name"] = "another"
    names = [dataset(plain()), dataset(other)]
    for function in (get_detection_dataset_dicts, packed_detection_dataset):
        with pytest.raises(ValueError, match="different metadata"):
            function(names)


def test_a_dataset_registered_otherwise_is_detectron2s(dataset):
    name = dataset(plain())
    records = list(packed_detection_dataset(name))
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records[:1])
    assert packed_detection_dataset(name) == records[:1]
    with pytest.raises(KeyError, match="nothing of this name"):
        packed_detection_dataset("nothing of this name")


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": [1.0, 2.0, 2]},
        {"iscrowd": True},
        {"iscrowd": 1000},
        {"iscrowd": -1},
        {"iscrowd": -2},
        {"iscrowd": None},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, 2**53 + 1]},
        {"bbox": ["1", 2, 3, 4]},
        {"segmentation": {"counts": b"1", "size": [1, 1], "more": 1}},
        {"segmentation": {"counts": "é", "size": [1, 1]}},
        {"segmentation": {"counts": "1", "size": [1.0, 1]}},
        {"segmentation": [[True, 1, 2, 3, 4, 5]]},
        {"segmentation": "text"},
        {"category_id": 2**40},
    ],
)
def test_what_the_arrays_cannot_hold_is_refused(tmp_path, change):
    path = written(tmp_path / "some.json", plain())
    name = registered(path)
    records = load_coco_json(str(path), "", name)
    forget(name)
    pack(records)
    records[0]["annotations"][0].update(change)
    with pytest.raises(UnpackableError):
        pack(records)


@pytest.mark.parametrize("change", [{"file_name": "\ud800"}, {"height": 1.0}, {"more": 1}])
def test_images_that_the_arrays_cannot_hold_are_refused(change):
    image = {"file_name": "a", "height": 1, "width": 1, "image_id": 1, "annotations": []}
    pack([image])
    with pytest.raises(UnpackableError):
        pack([{**image, **change}])


def test_the_second_opening_reads_no_json(dataset, monkeypatch):
    name = dataset(plain())
    first = list(packed_detection_dataset(name))
    monkeypatch.setattr(annotation_cache, "parse_records", None)
    assert list(packed_detection_dataset(name)) == first


def test_the_same_content_elsewhere_has_its_own_image_folder(dataset, tmp_path, monkeypatch):
    packed_detection_dataset(dataset(plain()))
    monkeypatch.setattr(annotation_cache, "parse_records", None)
    name = registered(written(tmp_path / "moved.json", plain()), "elsewhere")
    assert packed_detection_dataset(name)[0]["file_name"] == "elsewhere/10.jpg"
    forget(name)


def damage_numbers(folder):
    file = folder / "numbers.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a bit": damage_numbers,
    "cut off": lambda folder: os.truncate(folder / "numbers.npy", 130),
    "empty": lambda folder: os.truncate(folder / "boxes.npy", 0),
    "missing": lambda folder: (folder / "images.npy").unlink(),
    "objects": lambda folder: np.save(folder / "boxes.npy", np.array([{}], object)),
    "facts cut off": lambda folder: os.truncate(folder / "facts.json", 20),
    "facts of nothing": lambda folder: (folder / "facts.json").write_text("[]"),
    "of another file": lambda folder: (folder / "facts.json").write_text('{"sha256": "0"}'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_made_anew(dataset, cache, damage):
    name = dataset(plain())
    first = list(packed_detection_dataset(name))
    (folder,) = (entry for entry in cache.iterdir() if entry.name != "hashes")
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    damage(folder)
    assert list(packed_detection_dataset(name)) == first
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole


def test_a_changed_file_is_read_anew(dataset):
    name = dataset(plain())
    path = MetadataCatalog.get(name).json_file
    old = time.time() - 1000
    os.utime(path, (old, old))
    assert len(packed_detection_dataset(name, filter_empty=False)) == 3
    content = plain()
    content["images"][1]["height"] = 5  # of the same length and, as a copy has it, of the same date
    with open(path, "w") as file:
        json.dump(content, file)
    os.utime(path, (old, old))
    assert packed_detection_dataset(name)[0]["height"] == 5


def test_a_hash_is_remembered_once_the_file_has_settled(tmp_path, monkeypatch):
    path = str(written(tmp_path / "some.json", plain()))
    cache = AnnotationCache()
    calls = []
    digest = annotation_cache.digest_of
    monkeypatch.setattr(annotation_cache, "digest_of", lambda p: calls.append(p) or digest(p))
    # Just written: a change within the same tick of the clock would not show.
    assert cache.sha256(path) == cache.sha256(path) == digest(path) and len(calls) == 2
    monkeypatch.setattr(annotation_cache, "SETTLED", -1)
    assert cache.sha256(path) == cache.sha256(path) == digest(path) and len(calls) == 3


@pytest.mark.parametrize("moment", ["before it is hashed", "after"])
def test_content_that_comes_between_hash_and_reading_is_not_taken_for_the_old(
    dataset, cache, monkeypatch, moment
):
    """A file may be written anew at any time: what is packed under a hash has that hash."""
    name = dataset(plain())
    path = MetadataCatalog.get(name).json_file
    stock = repr(get_detection_dataset_dicts(name))
    other = plain()
    other["images"][1]["height"] = 5
    digest = annotation_cache.digest_of

    def changing(file):
        found = digest(file)
        with open(path, "w") as opened:
            json.dump(other, opened)
        return found

    with monkeypatch.context() as patched:
        if moment == "after":
            patched.setattr(annotation_cache, "digest_of", changing)
        else:
            changing(path)
        assert packed_detection_dataset(name)[0]["height"] == 5
    with open(path, "w") as opened:
        json.dump(plain(), opened)
    assert repr(list(packed_detection_dataset(name))) == stock


def test_a_cache_that_cannot_be_written_to_leaves_detectron2s_way(
    dataset, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "file"))
    name = dataset(plain())
    check_annotations(name)
    found = packed_detection_dataset(name)
    assert isinstance(found, list) and found == get_detection_dataset_dicts(name)
    (warning,) = (r for r in caplog.records if r.name.startswith("ssl_backbones"))
    assert warning.levelname == "WARNING" and "SSL_BACKBONES_CACHE" in warning.getMessage()


def test_a_full_disk_leaves_detectron2s_way(dataset, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(annotation_cache, "write_atomically", full)
    name = dataset(plain())
    assert packed_detection_dataset(name) == get_detection_dataset_dicts(name)
    (warning,) = (r for r in caplog.records if r.name.startswith("ssl_backbones"))
    assert warning.levelname == "WARNING" and "No space left" in warning.getMessage()


def test_a_file_with_keypoints_is_no_reason_to_warn(dataset, caplog):
    content = plain()
    content["annotations"][0]["keypoints"] = [1, 2, 2]
    caplog.set_level(logging.INFO)
    assert isinstance(packed_detection_dataset(dataset(content)), list)
    (line,) = (r for r in caplog.records if r.name.startswith("ssl_backbones"))
    assert line.levelname == "INFO" and "keypoints" in line.getMessage()


def test_files_that_may_be_faulty_by_their_name_are_packed_apart(dataset):
    content = plain()
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    lenient, strict = dataset(content, "minival.json"), dataset(content)
    assert len(packed_detection_dataset(lenient)) == 1
    check_annotations(lenient)
    with pytest.raises(AssertionError, match="not unique"):
        packed_detection_dataset(strict)
    with pytest.raises(InputError, match="stands there twice"):
        check_annotations(strict)


def test_what_passed_the_checks_is_not_checked_again(dataset, monkeypatch, cache):
    name = dataset(plain())
    check_annotations(name)
    monkeypatch.setattr("ssl_backbones.data.annotations.checking.read_coco", None)
    check_annotations(name)
    (marker,) = cache.glob("*.checked")
    marker.unlink()
    with pytest.raises(TypeError):
        check_annotations(name)


def test_processes_that_come_at_once_make_one_cache(forked, dataset, cache):
    name = dataset(plain())

    def body(rank):
        return packed_detection_dataset(name)[0], len(list(cache.glob("*-1")))

    stock = get_detection_dataset_dicts(name)[0]
    assert forked(3, body) == [(stock, 1)] * 3


def test_it_may_be_pickled_without_its_arrays(dataset):
    packed = packed_detection_dataset([dataset(plain()), dataset(plain())])
    content = pickle.dumps(packed)
    assert b"polygon" not in content
    assert list(pickle.loads(content)) == list(packed)


def test_a_copy_has_the_same_records_though_the_file_changed(dataset):
    """As a worker that is started anew has, which unpickles the dataset later."""
    name = dataset(plain())
    packed = packed_detection_dataset(name, filter_empty=False)
    before, content = repr(list(packed)), pickle.dumps(packed)
    other = plain()
    other["images"] = [{**other["images"][0], "id": 1}, *other["images"][::-1]]
    with open(MetadataCatalog.get(name).json_file, "w") as file:
        json.dump(other, file)
    assert repr(list(pickle.loads(content))) == before
    os.unlink(file.name)
    assert repr(list(pickle.loads(content))) == before


@pytest.mark.parametrize("damage", [shutil.rmtree, damage_numbers])
def test_a_copy_whose_annotations_are_gone_says_so(dataset, cache, damage):
    content = pickle.dumps(packed_detection_dataset(dataset(plain())))
    (folder,) = cache.glob("*-1")
    damage(folder)
    with pytest.raises(InputError, match=f"{folder} are gone or damaged"):
        pickle.loads(content)


def pack_and_be_killed(path):
    annotation_cache._write = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    AnnotationCache().packed(path)


def test_what_a_killed_process_left_is_removed(dataset, cache):
    name = dataset(plain())
    path = MetadataCatalog.get(name).json_file
    process = multiprocessing.get_context("fork").Process(target=pack_and_be_killed, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = cache.glob(".*")
    of_another_file = cache / f".{'0' * 16}-1.abcd"  # which may be at work
    of_another_file.mkdir()
    assert isinstance(packed_detection_dataset(name), PackedDataset)
    assert not left.exists() and list(cache.glob(".*")) == [of_another_file]


@pytest.mark.parametrize("workers", [0, 2])
def test_detectron2s_loaders_take_it(dataset, workers):
    name = dataset(plain())
    stock = get_detection_dataset_dicts(name, filter_empty=False)
    packed = packed_detection_dataset(name, filter_empty=False)
    options = {"mapper": lambda record: record, "num_workers": workers}
    (first, second) = (
        [batch for batch in build_detection_test_loader(records, **options)]
        for records in (stock, packed)
    )
    assert first == second and len(first) == 3
    # Two workers each draw from their own share of the sampler's order.
    loaders = [
        iter(
            build_detection_train_loader(
                records, **options, total_batch_size=1, sampler=TrainingSampler(3, seed=0)
            )
        )
        for records in (stock, packed)
    ]
    batches = [[next(loader) for _ in range(6)] for loader in loaders]
    assert batches[0] == batches[1]


def test_our_loader_takes_it_from_a_config(dataset):
    name = dataset(plain())
    batches = []
    for function in (get_detection_dataset_dicts, packed_detection_dataset):
        cfg = L(build_detection_train_loader)(
            dataset=L(function)(names=[name], filter_empty=False),
            mapper=None,
            total_batch_size=2,
        )
        loader = iter(build_train_loader(cfg, seed=3))
        batches.append([next(loader) for _ in range(4)])
    assert batches[0] == batches[1]
