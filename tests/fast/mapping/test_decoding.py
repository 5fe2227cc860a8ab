"""Reading images, against Detectron2's own function: pixels, and errors word by word."""

import io
import logging

import numpy as np
import pytest
from detectron2.data import detection_utils
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ssl_backbones.fast.mapping import mapper as decoding
from ssl_backbones.fast.mapping.mapper import read_image


def noise(height=37, width=50, seed=0):
    """An image whose chroma varies as well, and smoothly enough to stay within 8 bits."""
    coarse = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.BICUBIC)


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def with_segment(content, marker=0xED, at=2, **options):
    """A JPEG file with an application segment more, by default the one that Photoshop writes."""
    file = io.BytesIO()
    noise().save(file, "JPEG", **options)
    data = file.getvalue()
    segment = bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content
    return data[:at] + segment + data[at:]


def jpeg(image=None, **options):
    file = io.BytesIO()
    (image or noise()).save(file, "JPEG", **options)
    return file.getvalue()


def result_of(read, path, format):
    try:
        image = read(str(path), format)
    except Exception as error:
        return type(error), str(error)
    return image.shape, image.dtype, image.tolist()


def assert_read_alike(path, format="RGB"):
    expected = result_of(detection_utils.read_image, path, format)
    assert result_of(read_image, path, format) == expected
    return expected


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.jpg"


@pytest.fixture
def alone(monkeypatch):
    """Without Detectron2's function to fall back on."""
    if decoding._decoder() is None:
        pytest.skip("without simplejpeg")

    def refuse(*args):
        raise AssertionError("left to Detectron2")

    monkeypatch.setattr(decoding.detection_utils, "read_image", refuse)


USUAL = {
    "4:4:4": lambda: jpeg(subsampling="4:4:4"),
    "4:2:2": lambda: jpeg(subsampling="4:2:2"),
    "4:2:0": lambda: jpeg(subsampling="4:2:0", quality=30, optimize=True),
    "gray": lambda: jpeg(noise().convert("L")),
    "upright by EXIF": lambda: jpeg(exif=exif(1)),
    "EXIF without an orientation": lambda: jpeg(exif=Image.Exif()),
    "color profile and comment": lambda: jpeg(icc_profile=b"x" * 70000, comment=b"hello"),
    "restart markers": lambda: jpeg(restart_marker_blocks=2),
    "Photoshop's data": lambda: with_segment(b"Photoshop 3.0\0" + b"8BIM\3\xed\0\0\0\0\0\4abcd"),
    "Adobe's RGB": lambda: jpeg(keep_rgb=True),
}
UNUSUAL = {
    **{f"orientation {n}": lambda n=n: jpeg(exif=exif(n)) for n in (0, *range(2, 10))},
    "orientation in XMP": lambda: with_segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP, 0xE1),
    "broken EXIF": lambda: with_segment(b"Exif\0\0nonsense", 0xE1),
    "broken Photoshop's data": lambda: with_segment(b"Photoshop 3.0\x008BIM"),
    "broken JFIF": lambda: with_segment(b"JFIF\0", 0xE0),
    "progressive": lambda: jpeg(progressive=True),
    "4:1:1": lambda: jpeg(subsampling="4:1:1"),
    "CMYK": lambda: jpeg(noise().convert("CMYK")),
    "trailing zeros within": lambda: jpeg()[:300] + bytes(90) + jpeg()[390:],
    "truncated": lambda: jpeg()[:-200],
    "without an end": lambda: jpeg()[:-2],
    "headers only": lambda: jpeg()[:100],
    "two bytes": lambda: b"\xff\xd8",
    "three bytes": lambda: b"\xff\xd8\xff",
    "nothing": lambda: b"",
    "no image": lambda: b"hello, world",
}


@pytest.mark.parametrize("format", ["RGB", "BGR"])
@pytest.mark.parametrize("name", USUAL)
def test_usual_files_are_decoded_to_the_same_pixels(path, name, format, request):
    path.write_bytes(USUAL[name]())
    shape, *_ = assert_read_alike(path, format)
    assert shape == (37, 50, 3)
    request.getfixturevalue("alone")
    assert read_image(str(path), format).shape == shape


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_and_damaged_files_are_as_with_detectron2(path, name):
    path.write_bytes(UNUSUAL[name]())
    assert_read_alike(path)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16"])
def test_png_is_as_with_detectron2(tmp_path, mode):
    image = noise()
    if mode == "I;16":
        image = Image.fromarray(np.arange(37 * 50, dtype=np.uint16).reshape(37, 50))
    else:
        image = image.convert(mode)
    image.save(tmp_path / "a.png")
    assert_read_alike(tmp_path / "a.png", "BGR")


@settings(deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 100),
    st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    st.integers(0, 9),
)
def test_sizes_and_qualities(tmp_path_factory, height, width, quality, subsampling, seed):
    path = tmp_path_factory.getbasetemp() / "sizes.jpg"
    image = noise(height, width, seed)
    path.write_bytes(jpeg(image, quality=quality, subsampling=subsampling))
    assert_read_alike(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=3))
def test_files_of_which_some_bytes_are_wrong(tmp_path_factory, changes):
    data = bytearray(jpeg(noise(17, 18), exif=exif(1)))
    for position, value in changes:
        data[position % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "changed.jpg"
    path.write_bytes(data)
    assert_read_alike(path)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.jpg"):
        assert assert_read_alike(path)[0] in (IsADirectoryError, FileNotFoundError)


def test_truncated_files_are_filled_up_if_pillow_is_told_to(path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path.write_bytes(jpeg()[:-200])
    shape, *_ = assert_read_alike(path)
    assert shape == (37, 50, 3)


def test_pillows_limit_of_pixels_holds(path, monkeypatch):
    path.write_bytes(jpeg())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 37 * 50 // 2 - 1)
    assert assert_read_alike(path)[0] is Image.DecompressionBombError
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert_read_alike(path)


@pytest.fixture
def fresh_decoder():
    decoding._decoder.cache_clear()
    yield
    decoding._decoder.cache_clear()


def test_it_does_without_simplejpeg(path, monkeypatch, fresh_decoder):
    monkeypatch.setattr(decoding, "optional", lambda name, purpose: None)
    path.write_bytes(jpeg())
    assert_read_alike(path)


def test_a_pillow_that_decodes_otherwise_is_used_itself(path, monkeypatch, caplog, fresh_decoder):
    """As one with another libjpeg."""
    simplejpeg = pytest.importorskip("simplejpeg")
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args: decode(*args) ^ 1)
    monkeypatch.setattr(decoding, "optional", lambda name, purpose: simplejpeg)
    path.write_bytes(jpeg())
    with caplog.at_level(logging.WARNING):
        assert_read_alike(path)
    assert "files are left to it" in caplog.text
