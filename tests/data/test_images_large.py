"""Images beyond Pillow's limit of pixels: read where memory allows, refused in one line otherwise."""

import os
import threading

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data.detection_utils import read_image
from PIL import Image

from ssl_backbones.data import images
from ssl_backbones.data.images import UnusableImageError, image_faults, large_images, load
from ssl_backbones.data.loading import build_train_loader

PIXELS = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)


@pytest.fixture()
def record(tmp_path, monkeypatch):
    """An image of 54 pixels, where Pillow refuses what has more than 40."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    return {"file_name": str(tmp_path / "a.png"), "width": 9, "height": 6}


def read(record):
    return read_image(record["file_name"], "RGB")


def test_a_large_image_is_read_and_pillows_limit_stays(record):
    assert (load(read, record) == PIXELS).all()
    assert Image.MAX_IMAGE_PIXELS == 20
    with pytest.raises(Image.DecompressionBombError):
        read(record)


def test_a_large_image_is_read_in_a_loaders_workers(record):
    cfg = L(build_detection_train_loader)(
        dataset=[record],
        mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
        total_batch_size=1,
        num_workers=1,
    )
    (image,) = next(iter(build_train_loader(cfg, seed=0)))
    assert (image["image"].permute(1, 2, 0).numpy() == PIXELS).all()


def test_no_limit_stays_no_limit(record, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with large_images():
        assert Image.MAX_IMAGE_PIXELS is None
    assert (load(read, record) == PIXELS).all()


def test_threads_share_the_raised_limit(record):
    """The first to leave does not lower it for the other; the last one does."""
    inside, leave = threading.Event(), threading.Event()

    def other():
        with large_images():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait()
    with large_images():
        assert read(record).shape == (6, 9, 3)
    assert read(record).shape == (6, 9, 3)
    leave.set()
    thread.join()
    assert Image.MAX_IMAGE_PIXELS == 20


@pytest.mark.filterwarnings("ignore:Image size")  # Pillow warns from half of the bound on
def test_memory_is_the_bound(record, monkeypatch):
    """14 bytes for each of the 54 pixels; with one less 53 fit, of which Pillow takes an even number."""
    monkeypatch.setattr(images, "_free_memory", lambda: 14 * 54)
    assert (load(read, record) == PIXELS).all()
    monkeypatch.setattr(images, "_free_memory", lambda: 14 * 54 - 1)
    reason = "it has more than 52 pixels, the most that the memory that is free allows; cut it into tiles"
    with pytest.raises(UnusableImageError) as refusal:
        load(read, record)
    assert str(refusal.value) == (
        f"image {record['file_name']} cannot be used: {reason}; mend the file or take it out of the dataset"
    )
    folder, name = os.path.split(record["file_name"])
    faults = image_faults([{**record, "file_name": name}], folder)
    assert list(faults) == [(record["file_name"], reason)]


def test_beyond_32_bits_memory_does_not_count(record, monkeypatch):
    """2**31 bytes hold 715,827,882 pixels of three."""
    monkeypatch.setattr(images, "_free_memory", lambda: 2**50)
    with large_images():
        assert Image.MAX_IMAGE_PIXELS == 715_827_882 // 2
        assert "more than 715,827,882 pixels, the most that can be read;" in images._too_large()


def test_free_memory_is_part_of_the_machines():
    assert 0 < images._free_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_lack_of_memory_names_the_image_and_is_not_repeated(record):
    calls = []

    def mapper(record):
        calls.append(record)
        raise MemoryError

    with pytest.raises(UnusableImageError, match=r"a\.png cannot be used: the memory that is free"):
        load(mapper, record)
    assert len(calls) == 1
