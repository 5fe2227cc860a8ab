"""What becomes of bad images and annotations: every fault in a dataset of its own, with its stated outcome.

Training goes on without an image that cannot be used and says so; evaluation, whose result it would change,
ends with a line that names it; what is only unusual is handled.
"""

from __future__ import annotations

import itertools
import json
import logging
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.events import EventStorage
from PIL import Image

from ssl_backbones.data.annotations.checking import check_annotations
from ssl_backbones.data.images import readable
from ssl_backbones.data.loading import build_train_loader
from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError

WIDTH, HEIGHT = 48, 32
GOOD = 11
"""Good images beside the faulty one, which is the first; all together are an epoch of three iterations."""


@dataclass
class Faulty:
    """A registered dataset whose image 0 is made faulty before it is used."""

    root: Path
    losses: object
    caplog: pytest.LogCaptureFixture
    images: list[dict] = field(default_factory=list)
    annotations: list[dict] = field(default_factory=list)
    filter_empty: bool = True

    def __post_init__(self):
        rng = np.random.default_rng(0)
        for number in range(1 + GOOD):
            name = f"{number}.png"
            pixels = rng.integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.root / name)
            self.images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            self.annotations.append(annotation(number + 1, number))

    @property
    def file(self) -> Path:
        return self.root / self.images[0]["file_name"]

    def becomes(self, image: Image.Image, name: str, **how) -> None:
        """Let image 0 be this one, of the size that it has, under another file name."""
        self.file.unlink()
        size = {"width": image.width, "height": image.height}
        self.images[0] |= {"file_name": name, **size}
        image.save(self.file, **how)

    def register(self) -> str:
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        }
        path = self.root / "annotations.json"
        path.write_text(json.dumps(content))
        name = str(self.root)
        if name not in DatasetCatalog:
            register_coco_instances(name, {}, str(path), name)
        return name

    def loader(self, augmentations=()):
        cfg = L(build_detection_train_loader)(
            dataset=L(get_detection_dataset_dicts)(
                names=self.register(), filter_empty=self.filter_empty
            ),
            mapper=L(DatasetMapper)(
                is_train=True,
                augmentations=list(augmentations),
                image_format="RGB",
                use_instance_mask=True,
            ),
            total_batch_size=4,
            # Image 0 may be the only one of its shape and would wait for others.
            aspect_ratio_grouping=False,
        )
        return build_train_loader(cfg, seed=0)

    def train(self, augmentations=()) -> dict[int, dict]:
        """Two epochs; by image id, what the model saw. Image 0, if it is there, must give finite losses."""
        loader = self.loader(augmentations)
        seen = {}
        for batch in itertools.islice(loader, 6):
            assert len(batch) == 4
            seen |= {image["image_id"]: image for image in batch}
        if 0 in seen:
            self.losses([seen[0]])
        self.skipped = loader.skipped
        return seen

    def evaluate(self, workers: int = 0) -> list[dict]:
        mapper = L(readable)(
            mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB")
        )
        cfg = L(build_detection_test_loader)(
            dataset=L(get_detection_dataset_dicts)(names=str(self.root), filter_empty=False),
            mapper=mapper,
            num_workers=workers,
        )
        return [image for batch in instantiate(cfg) for image in batch]


def annotation(number: int, image: int, **changes) -> dict:
    x, y, width, height = box = changes.pop("bbox", [4, 5, 20, 22])
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "area": width * height,
        "segmentation": [polygon],
    } | changes


@pytest.fixture(autouse=True)
def warnings_are_heard(monkeypatch):
    """Detectron2's setup_logger, once called in this process, keeps them from `caplog`."""
    monkeypatch.setattr(logging.getLogger("ssl_backbones"), "propagate", True)


@pytest.fixture(scope="module")
def losses():
    """Checks that a small Mask R-CNN trains on a micro-batch with finite losses and gradients."""
    cfg = load_config(str(Path(__file__).parents[1] / "tiny.py"))
    cfg.model.roi_heads.num_classes = 2
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()

    def check(batch):
        with EventStorage():
            terms = model(batch)
        assert all(torch.isfinite(value) for value in terms.values()), terms
        model.zero_grad()
        sum(terms.values()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)

    return check


# ----------------------------------------------------------------------------------------------------------
# The checks


def skipped_and_refused(*words: str):
    """Training leaves image 0 out with one warning that names it; evaluation ends with a line that does."""

    def check(faulty: Faulty):
        with faulty.caplog.at_level(logging.WARNING, "ssl_backbones"):
            seen = faulty.train()
        # It was drawn once in each of the two epochs.
        assert sorted(seen) == list(range(1, 1 + GOOD)) and faulty.skipped == 2
        warnings = [r.getMessage() for r in faulty.caplog.records if "cannot be used" in r.message]
        assert len(warnings) == 1
        with pytest.raises(InputError) as refusal:
            faulty.evaluate()
        for text in (warnings[0], str(refusal.value)):
            assert "\n" not in text
            assert str(faulty.file) in text
            for word in words:
                assert word in text

    return check


def handled(expected_pixels, tolerance=0):
    """Training and evaluation see image 0 with these pixels; nothing is skipped."""

    def check(faulty: Faulty):
        expected = expected_pixels(faulty)
        trained = faulty.train()[0]["image"]
        tested = next(image for image in faulty.evaluate() if image["image_id"] == 0)["image"]
        for image in (trained, tested):
            pixels = image.permute(1, 2, 0).numpy().astype(int)
            assert pixels.shape == expected.shape
            assert abs(pixels - expected).max() <= tolerance
        assert faulty.skipped == 0

    return check


def refused_before_the_run(*words: str):
    """`check_annotations`, which preflight calls, ends with one line."""

    def check(faulty: Faulty):
        name = faulty.register()
        with pytest.raises(InputError) as refusal:
            check_annotations(name)
        text = str(refusal.value)
        assert "\n" not in text and str(faulty.root) in text
        for word in words:
            assert word in text

    return check


def boxes_seen(*expected: list[float]):
    """Training sees image 0 with these boxes (x0, y0, x1, y1) and as many masks."""

    def check(faulty: Faulty):
        check_annotations(faulty.register())
        instances = faulty.train()[0]["instances"]
        assert instances.gt_boxes.tensor.tolist() == [list(box) for box in expected]
        if expected:
            assert len(instances.gt_masks) == len(expected)
        assert faulty.skipped == 0

    return check


def left_out(faulty: Faulty):
    """Image 0 is not among those trained on, and this is no fault."""
    check_annotations(faulty.register())
    assert sorted(faulty.train()) == list(range(1, 1 + GOOD))
    assert faulty.skipped == 0


def stops(faulty: Faulty):
    with pytest.raises(InputError) as refusal:
        faulty.train()
    assert "images in a row cannot be used. The last one: image" in str(refusal.value)
    assert "there is no such file" in str(refusal.value)


def refused_when_loaded(faulty: Faulty):
    with pytest.raises(InputError, match=r"dataloader\.train cannot be made: No valid data found"):
        faulty.loader()


# ----------------------------------------------------------------------------------------------------------
# The faults


def random_image(mode: str, width=WIDTH, height=HEIGHT) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, channels) if channels > 1 else (height, width)
    pixels = np.random.default_rng(1).integers(256, size=shape, dtype=np.uint8)
    return (
        Image.fromarray(pixels, mode)
        if mode != "CMYK"
        else Image.frombytes("CMYK", (width, height), pixels.tobytes())
    )


def truncated(faulty):
    faulty.becomes(random_image("RGB"), "0.jpg")
    content = faulty.file.read_bytes()
    faulty.file.write_bytes(content[: len(content) // 2])


def header_overwritten(faulty):
    faulty.becomes(random_image("RGB"), "0.jpg")
    faulty.file.write_bytes(b"<html>404</html>" + faulty.file.read_bytes()[16:])


def empty_file(faulty):
    faulty.becomes(random_image("RGB"), "0.jpg")
    faulty.file.write_bytes(b"")


def truncated_png(faulty):
    content = faulty.file.read_bytes()
    faulty.file.write_bytes(content[: len(content) // 2])


def missing(faulty):
    faulty.file.unlink()


def all_missing(faulty):
    for image in faulty.images:
        (faulty.root / image["file_name"]).unlink()


def turned(faulty):
    """Turned by a quarter when taken: the file's rows are the picture's columns."""
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90 degrees clockwise to display", EXIF 2.3, table 4.6.4
    faulty.becomes(random_image("RGB"), "0.png", exif=exif)
    faulty.images[0] |= {"width": HEIGHT, "height": WIDTH}


def turned_annotated_as_stored(faulty):
    turned(faulty)
    faulty.images[0] |= {"width": WIDTH, "height": HEIGHT}


def other_size(faulty):
    faulty.images[0]["width"] = WIDTH + 1


def grayscale(faulty):
    faulty.becomes(random_image("L"), "0.png")


def cmyk(faulty):
    faulty.becomes(random_image("CMYK"), "0.tiff")


def sixteen_bits(faulty):
    values = np.random.default_rng(1).integers(2**16, size=(HEIGHT, WIDTH), dtype=np.uint16)
    faulty.becomes(Image.fromarray(values), "0.png")


def as_rgb(faulty):
    with Image.open(faulty.file) as image:
        return np.repeat(np.asarray(image)[:, :, None], 3, axis=2).astype(int)


def as_rgb_from_cmyk(faulty):
    with Image.open(faulty.file) as image:
        ink = np.asarray(image).astype(int)
    return (255 - ink[:, :, :3]) * (255 - ink[:, :, 3:]) / 255


def upright(faulty):
    with Image.open(faulty.file) as image:
        return np.rot90(np.asarray(image), -1).astype(int)


def wide(faulty):
    faulty.becomes(random_image("RGB", 30_000, 60), "0.png")


def wide_is_handled(faulty):
    """As a recipe resizes it: the long side to 1333, the short one to 60 * 1333 / 30000 = 2.67 pixels."""
    seen = faulty.train([L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)])
    assert seen[0]["image"].shape == (3, 3, 1333) and faulty.skipped == 0


def thread(faulty):
    faulty.becomes(random_image("RGB", 30_000, 10), "0.png")


def thread_is_skipped(faulty):
    seen = faulty.train([L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)])
    assert 0 not in seen and faulty.skipped == 2
    assert "30000 x 10, of which a resize leaves nothing" in faulty.caplog.text


def vast(faulty):
    """Pillow's own limit, against decompression bombs, is 179 million pixels; memory holds this one."""
    faulty.becomes(Image.new("1", (30_000, 6_000)), "0.png")


def vast_is_handled(faulty):
    """The long side to 1333, the short one to 6000 * 1333 / 30000 = 266.6 pixels."""
    seen = faulty.train([L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)])
    assert seen[0]["image"].shape == (3, 267, 1333) and faulty.skipped == 0


def bomb(faulty):
    """A file of 57 bytes that says it has 30,000 x 30,000 pixels."""
    faulty.images[0] |= {"file_name": "0.png", "width": 30_000, "height": 30_000}
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)), (b"IDAT", b"")
    data = b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in (*chunks, (b"IEND", b""))
    )
    faulty.file.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def annotate(*annotations):
    def change(faulty):
        faulty.annotations[0:1] = [annotation(100 + i, 0, **a) for i, a in enumerate(annotations)]

    return change


def crowd():
    counts = {"counts": [0, WIDTH * HEIGHT], "size": [HEIGHT, WIDTH]}
    return {"iscrowd": 1, "segmentation": counts, "bbox": [0, 0, WIDTH, HEIGHT]}


def empty_and_kept(faulty):
    annotate()(faulty)
    faulty.filter_empty = False


def all_empty(faulty):
    faulty.annotations.clear()


def same_image_id(faulty):
    faulty.images[1]["id"] = 0


GOOD_BOX = {"bbox": [4, 5, 20, 22]}

ROWS = {
    "JPEG cut in half": (
        truncated,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("truncated"),
    ),
    "JPEG overwritten by a web page": (
        header_overwritten,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("not an image that Pillow knows"),
    ),
    "empty image file": (
        empty_file,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("not an image that Pillow knows"),
    ),
    "PNG cut in half": (
        truncated_png,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused(),
    ),
    "missing image": (
        missing,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("there is no such file"),
    ),
    "all images missing": (all_missing, "training stops with one line", stops),
    "image of another size than annotated": (
        other_size,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused(f"it is {WIDTH} x {HEIGHT}, and its annotation says {WIDTH + 1} x"),
    ),
    "EXIF rotation": (turned, "handled: turned upright", handled(upright)),
    "EXIF rotation, annotated as stored": (
        turned_annotated_as_stored,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("EXIF orientation, 6, turns it"),
    ),
    "grayscale": (grayscale, "handled: three equal channels", handled(as_rgb)),
    "CMYK": (cmyk, "handled: converted to RGB", handled(as_rgb_from_cmyk, tolerance=1)),
    "16-bit image": (
        sixteen_bits,
        "skipped with a counted warning, not clipped to white; evaluation refuses",
        skipped_and_refused("more than 8 bits"),
    ),
    "30,000 pixels wide": (wide, "handled: resized", wide_is_handled),
    "30,000 x 10 pixels": (thread, "skipped with a counted warning", thread_is_skipped),
    "30,000 x 6,000 pixels": (vast, "handled: resized, where memory allows", vast_is_handled),
    "30,000 x 30,000 pixels in 57 bytes": (
        bomb,
        "skipped with a counted warning; evaluation refuses",
        skipped_and_refused("it has more than ", " pixels, the most that "),
    ),
    "annotation of zero area": (
        annotate({"bbox": [8, 8, 0, 5]}, GOOD_BOX),
        "handled: the annotation is dropped",
        boxes_seen([4, 5, 24, 27]),
    ),
    "only annotations of zero area": (
        annotate({"bbox": [8, 8, 0, 0]}),
        "handled: trained on as background",
        boxes_seen(),
    ),
    "box outside the image": (
        annotate({"bbox": [WIDTH + 5, 3, 10, 10]}, GOOD_BOX),
        "handled: the annotation is dropped",
        boxes_seen([4, 5, 24, 27]),
    ),
    "box reaching out of the image": (
        annotate({"bbox": [-6, 10, 16, 100]}),
        "handled: clipped to the image",
        boxes_seen([0, 10, 10, HEIGHT]),
    ),
    "crowd only": (annotate(crowd()), "handled: left out of training", left_out),
    "crowd beside an object": (
        annotate(crowd(), GOOD_BOX),
        "handled: the crowd is no object to train on",
        boxes_seen([4, 5, 24, 27]),
    ),
    "empty image": (annotate(), "handled: left out of training", left_out),
    "empty image, filter_empty=False": (
        empty_and_kept,
        "handled: trained on as background",
        boxes_seen(),
    ),
    "no image with an annotation": (all_empty, "refused with one line", refused_when_loaded),
    "category id out of range": (
        annotate({"category_id": 3}),
        "refused before the run",
        refused_before_the_run("annotation 100 has category_id 3"),
    ),
    "two annotations of one id": (
        lambda faulty: faulty.annotations.append(annotation(1, 3)),
        "refused before the run",
        refused_before_the_run("annotation id 1 stands there twice"),
    ),
    "two images of one id": (
        same_image_id,
        "refused before the run",
        refused_before_the_run("image id 0 stands there twice"),
    ),
    "box of three numbers": (
        lambda faulty: faulty.annotations[0].update(bbox=[1, 2, 3]),
        "refused before the run",
        refused_before_the_run("annotation 1 has the bbox [1, 2, 3]"),
    ),
    "box that is not a number": (
        lambda faulty: faulty.annotations[0].update(bbox=[1, 2, float("nan"), 3]),
        "refused before the run",
        refused_before_the_run("annotation 1 has the bbox [1, 2, nan, 3]"),
    ),
}
"""Fault: (what makes it, the stated outcome, the check of it)."""


@pytest.mark.parametrize("fault", ROWS)
def test_a_fault_has_its_stated_outcome(fault, tmp_path, losses, caplog, stated):
    make, outcome, check = ROWS[fault]
    stated(fault, outcome)
    faulty = Faulty(tmp_path, losses, caplog)
    make(faulty)
    check(faulty)


def test_the_good_twin_is_neither_skipped_nor_refused(tmp_path, losses, caplog):
    """Without a fault the same checks find nothing: they tell the good from the bad."""
    faulty = Faulty(tmp_path, losses, caplog)
    check_annotations(faulty.register())
    assert sorted(faulty.train()) == list(range(1 + GOOD))
    assert faulty.skipped == 0
    assert len(faulty.evaluate()) == 1 + GOOD
    assert "cannot be used" not in caplog.text


def test_the_refusal_is_one_line_from_a_worker_too(tmp_path, losses, caplog):
    """A DataLoader makes the worker's whole traceback the message of what it raises again."""
    faulty = Faulty(tmp_path, losses, caplog)
    faulty.file.unlink()
    faulty.register()
    with pytest.raises(InputError) as refusal:
        faulty.evaluate(workers=1)
    assert str(refusal.value) == (
        f"image {faulty.file} cannot be used: there is no such file; mend the file or take it out of the "
        "dataset"
    )
