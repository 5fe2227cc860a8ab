"""A test set's files looked at before training: what they are refused for is what `load` refuses them for."""

import io

import numpy as np
import pytest
from detectron2.data.detection_utils import check_image_size, read_image
from PIL import Image

from ssl_backbones.data import images
from ssl_backbones.data.images import UnusableImageError, image_faults, load

WIDTH, HEIGHT = 50, 37


def noise(mode="RGB"):
    """Smooth enough to be compressed, and varied enough that every file has hundreds of bytes."""
    coarse = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.BICUBIC).convert(mode)


def encoded(kind, image=None, **options):
    file = io.BytesIO()
    (image or noise()).save(file, kind, **options)
    return file.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def with_exif_at_its_end(data, orientation):
    """A PNG whose EXIF stands after its pixels, as the format allows."""
    turned = encoded("PNG", exif=exif(orientation))
    start = turned.index(b"eXIf") - 4
    chunk = turned[start : start + 12 + int.from_bytes(turned[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    return data[:end] + chunk + data[end:]


UPRIGHT = {"width": WIDTH, "height": HEIGHT}
TURNED = {"width": HEIGHT, "height": WIDTH}
SIXTEEN_BITS = Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH))

GOOD = {
    "good.jpg": (encoded("JPEG"), UPRIGHT),
    "progressive.jpg": (encoded("JPEG", progressive=True), UPRIGHT),
    "cmyk.jpg": (encoded("JPEG", noise("CMYK")), UPRIGHT),
    "palette.gif": (encoded("GIF", noise("P")), UPRIGHT),
    "lossy.webp": (encoded("WEBP"), UPRIGHT),
    "turned.jpg": (encoded("JPEG", exif=exif(6)), TURNED),
    "turned.png": (encoded("PNG", exif=exif(8)), TURNED),
    "mirrored.tif": (encoded("TIFF", exif=exif(2)), UPRIGHT),
    "unknown orientation.jpg": (encoded("JPEG", exif=exif(9)), UPRIGHT),
}
BY_HEADER = {
    "web page.jpg": (b"<html>", UPRIGHT, "it is damaged, or not an image that Pillow knows"),
    "nothing.png": (b"", UPRIGHT, "it is damaged, or not an image that Pillow knows"),
    "missing.jpg": (None, UPRIGHT, "there is no such file"),
    "sixteen.png": (encoded("PNG", SIXTEEN_BITS), UPRIGHT, "more than 8 bits (Pillow's mode I;16)"),
    "float.tif": (encoded("TIFF", noise("F")), UPRIGHT, "more than 8 bits (Pillow's mode F)"),
    "other.jpg": (
        encoded("JPEG"),
        {"width": 51, "height": 37},
        "it is 50 x 37, and its annotation says 51 x 37",
    ),
    "as stored.jpg": (
        encoded("JPEG", exif=exif(6)),
        UPRIGHT,
        "it is 37 x 50, and its annotation says 50 x 37 (the file's EXIF orientation, 6, turns it)",
    ),
    "transposed.jpg": (encoded("JPEG"), TURNED, "it is 50 x 37, and its annotation says 37 x 50"),
}
BY_DECODING = {
    "half.jpg": (encoded("JPEG")[:-200], UPRIGHT, "image file is truncated"),
    "without an end.jpg": (encoded("JPEG")[:-2], UPRIGHT, "image file is truncated"),
    "half.png": (encoded("PNG")[:500], UPRIGHT, "image file is truncated"),
    "half.tif": (encoded("TIFF", compression="raw")[:900], UPRIGHT, ""),
    "exif at the end.png": (with_exif_at_its_end(encoded("PNG"), 6), UPRIGHT, "it is 37 x 50, and"),
}


@pytest.fixture()
def dataset(tmp_path):
    """COCO's entries of all these files, good and bad in turns."""
    entries = []
    for name, (data, size, *_) in {**GOOD, **BY_HEADER, **BY_DECODING}.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        entries.append({"id": len(entries), "file_name": name, **size})
    return tmp_path, entries


def read_and_compare(record):
    """As Detectron2's mapper."""
    image = read_image(record["file_name"], "RGB")
    check_image_size(record, image)
    return image


def refusal_of(record):
    try:
        load(read_and_compare, record)
    except UnusableImageError as error:
        return str(error)
    return None


def test_the_same_files_are_refused_in_the_same_words_as_when_they_are_loaded(dataset):
    root, entries = dataset
    faults = dict(image_faults(entries, root))
    for entry in entries:
        path = str(root / entry["file_name"])
        refusal = refusal_of({**entry, "file_name": path})
        reason = faults.pop(path, None)
        assert refusal == (
            reason
            and f"image {path} cannot be used: {reason}; mend the file or take it out of the dataset"
        )
    assert not faults


@pytest.mark.parametrize("whole", [True, False])
def test_each_fault_is_found_in_the_order_of_the_images(dataset, monkeypatch, whole):
    """Of a set too large to be decoded, all but what a header cannot tell."""
    root, entries = dataset
    if not whole:
        monkeypatch.setattr(images, "_DECODED_PIXELS", 50 * 37 * len(entries) - 1)
    done = []
    found = list(image_faults(entries, root, lambda: done.append(1)))
    expected = {**BY_HEADER, **(BY_DECODING if whole else {})}
    assert [path for path, _ in found] == [str(root / name) for name in expected]
    for (_, reason), (_, _, words) in zip(found, expected.values(), strict=True):
        assert words in reason and "\n" not in reason
    assert len(done) == len(entries)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize(
    "kind, options",
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": "4:2:0", "restart_marker_blocks": 2}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_file_cut_anywhere_is_refused_where_loading_refuses_it(tmp_path, kind, options):
    """JPEGs are decoded at an eighth of their size, and must break off where the whole image does."""
    data = encoded(kind, **options)
    entries = []
    for length in range(0, len(data), 1 + len(data) // 100):
        entries.append({"file_name": f"{length}.{kind.lower()}", **UPRIGHT})
        (tmp_path / entries[-1]["file_name"]).write_bytes(data[:length])
    faults = dict(image_faults(entries, tmp_path))
    paths = [str(tmp_path / entry["file_name"]) for entry in entries]
    refused = [path for path in paths if refusal_of({**UPRIGHT, "file_name": path})]
    assert list(faults) == refused and len(refused) > 50


def test_who_has_seen_the_first_fault_may_stop(dataset):
    root, entries = dataset
    faults = image_faults(entries, root)
    path, _ = next(faults)
    faults.close()
    assert path == str(root / "web page.jpg")
