"""Telling an image that cannot be used from a fault of the code; the faults themselves: tests/faults."""

import itertools

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image

from ssl_backbones.data.images import UnusableImageError, load
from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.errors import InputError


@pytest.fixture()
def record(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    return {"file_name": str(tmp_path / "a.jpg"), "width": 9, "height": 6}


def read(record):
    return {"image": read_image(record["file_name"], "RGB")}


class Faltering:
    """Fails once as a network does, then reads."""

    calls = 0

    def __call__(self, record):
        self.calls += 1
        if self.calls == 1:
            raise OSError(110, "Connection timed out")
        return read(record)


def test_a_read_that_fails_once_is_tried_again(record):
    mapper = Faltering()
    assert load(mapper, record)["image"].shape == (6, 9, 3)
    assert mapper.calls == 2


def test_a_record_without_a_file_is_only_mapped():
    assert load(lambda record: record["pixels"], {"pixels": 5}) == 5
    with pytest.raises(ZeroDivisionError):
        load(lambda record: 1 / 0, {"pixels": 5})


def test_a_mappers_own_fault_keeps_its_type(record):
    with pytest.raises(ZeroDivisionError):
        load(lambda record: 1 / 0, record)


def test_what_is_no_file_is_named_with_the_systems_words(tmp_path):
    with pytest.raises(UnusableImageError, match=r"cannot be used: IsADirectoryError: .*directory"):
        load(read, {"file_name": str(tmp_path)})


def test_an_image_of_which_a_small_recipe_leaves_nothing_is_named(tmp_path):
    """193 times as wide as high is half a row at 96 pixels."""
    path = tmp_path / "narrow.png"
    Image.new("RGB", (579, 3)).save(path)
    mapper = DatasetMapper(
        False, augmentations=[ResizeShortestEdge([96, 96], 96)], image_format="RGB"
    )
    with pytest.raises(UnusableImageError, match="it is 579 x 3, of which a resize leaves nothing"):
        load(mapper, {"file_name": str(path)})


def test_an_rgb_image_of_16_bits_keeps_its_upper_bytes(tmp_path):
    """Pillow scales these right, so they pass: only gray ones are clipped."""
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(0).integers(2**16, size=(6, 9, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), values[:, :, ::-1])
    image = load(read, {"file_name": str(tmp_path / "a.png"), "width": 9, "height": 6})["image"]
    assert (image == values >> 8).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_a_jpeg_is_not_opened_beside_the_mapper(tmp_path, name):
    """It has 8 bits at any rate, so the largest datasets pay nothing for the check of the others."""
    assert load(lambda record: 5, {"file_name": str(tmp_path / name)}) == 5
    with pytest.raises(UnusableImageError, match="no such file"):
        load(lambda record: 5, {"file_name": str(tmp_path / "a.png")})


def many(record, num_bad):
    """400 records, of which the first `num_bad` have no file."""
    missing = {**record, "file_name": record["file_name"] + ".missing"}
    return [missing] * num_bad + [record] * (400 - num_bad)


def loader_of(record, num_bad):
    cfg = L(build_detection_train_loader)(
        dataset=L(many)(record=record, num_bad=num_bad), mapper=read, total_batch_size=10
    )
    return build_train_loader(cfg, seed=0)


def test_two_in_a_hundred_unusable_images_stop_the_run(record):
    loader = loader_of(record, num_bad=8)
    with pytest.raises(InputError, match=r"of the \d+ images read so far cannot be used. The last"):
        list(itertools.islice(loader, 200))
    assert loader.skipped > 10


def test_three_in_four_hundred_do_not(record, caplog):
    loader = loader_of(record, num_bad=3)
    assert len(list(itertools.islice(loader, 160))) == 160
    # Four epochs; a file is counted each time and named once.
    assert loader.skipped == 12
    assert len([r for r in caplog.records if "cannot be used" in r.message]) == 1
