"""Images of many pages or frames: the first is read, and one sentence says so."""

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from ssl_backbones.data.images import load, pages_note

RED, BLUE = (255, 0, 0), (0, 0, 255)


def pages(path, count, **options):
    """A red page, and blue ones after it."""
    first, *others = [Image.new("RGB", (9, 6), RED if page == 0 else BLUE) for page in range(count)]
    # Frames that are alike would become one.
    for number, other in enumerate(others):
        other.putpixel((number, 0), (0, 255, 0))
    first.save(path, save_all=True, append_images=others, **options)
    return str(path)


KINDS = {
    "a.tif": {},
    "a.TIFF": {"compression": "tiff_lzw"},
    "a.gif": {},
    "a.webp": {"lossless": True},
    "a.png": {},
    # By its name anything; Pillow goes by the content.
    "a.bmp": {"format": "GIF"},
}


@pytest.mark.parametrize("name", KINDS)
def test_the_first_page_is_read_and_said(tmp_path, name):
    path = pages(tmp_path / name, 3, **KINDS[name])
    image = load(lambda record: read_image(record["file_name"], "RGB"), {"file_name": path})
    assert image.shape == (6, 9, 3) and (image == np.array(RED)).all()
    assert pages_note([path]) == f"image {path} has 3 pages or frames: the first is read"


def test_others_are_counted(tmp_path):
    paths = [pages(tmp_path / name, 2, **KINDS[name]) for name in KINDS]
    single = [pages(tmp_path / f"single{name}", 1, **KINDS[name]) for name in KINDS]
    first = f"image {paths[0]} has 2 pages or frames: the first is read"
    assert pages_note([*single, *paths]) == f"{first}, as in 5 others of many pages"
    assert pages_note([single[0], *paths[:2]]) == f"{first}, as in 1 other of many pages"
    assert pages_note(single) is None


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_cannot_be_read_and_previews_in_photographs_are_passed_over(tmp_path):
    """A camera's MPO is a JPEG with a smaller one of the same behind it."""
    (tmp_path / "a.tif").write_bytes(b"II*\0nonsense")
    photograph = pages(tmp_path / "b.mpo", 2, format="MPO")
    assert pages_note([str(tmp_path / "none.gif"), str(tmp_path / "a.tif"), photograph]) is None
