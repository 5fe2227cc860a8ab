"""Reading images as Detectron2 does, every pixel equal, with a faster decoder for the usual JPEG file."""

from __future__ import annotations

import functools
import io
import logging
from types import ModuleType

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..acceleration import optional

logger = logging.getLogger(__name__)

_START = b"\xff\xd8\xff"  # of a JPEG file: its first marker, and the beginning of the next
_BASELINE, _SCAN, _JFIF, _ICC = 0xC0, 0xDA, 0xE0, 0xE2
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # Huffman and quantization tables, restart interval, comment
_OTHERS = range(0xE1, 0xF0)  # application data, in which Pillow may find an orientation
# Of all components, the first of which is luma: 4:4:4, 4:2:2, 4:2:0; then gray. Others are rare and decoders
# upsample them differently.
_SAMPLINGS = ((0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11), (0x11,))
_ORIENTATION = 274  # EXIF's tag


def read_image(file_name: str, format: str) -> np.ndarray:
    """Read an image like `detectron2.data.detection_utils.read_image`: the same pixels, the same errors.

    A baseline JPEG of 8 bits that is gray or of three components is decoded by simplejpeg, if that is
    installed. Any other file, and one that is damaged or that EXIF says to turn, is left to Detectron2.

    Args:
        format: "RGB" or "BGR".

    Returns:
        uint8 (H, W, 3).
    """
    decoder = _decoder()
    if decoder is not None:
        with PathManager.open(file_name, "rb") as file:
            start = file.read(len(_START))
            data = start + file.read() if start == _START else b""
        if data and _is_usual(data):
            try:
                return decoder.decode_jpeg(data, format)
            except ValueError:
                # Damaged, or not quite as the standard has it: what Detectron2 says to it counts.
                pass
    return detection_utils.read_image(file_name, format)


def _is_usual(data: bytes) -> bool:
    """Whether Pillow and simplejpeg see the same in these bytes, and no orientation has to be applied."""
    plain, frame = True, b""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : end]
        if marker == _SCAN:
            return _is_usual_frame(frame) and (plain or _is_upright(data))
        if marker == _BASELINE and not frame:
            frame = segment
        elif (marker == _JFIF and segment[:5] == b"JFIF\0" and len(segment) >= 12) or (
            marker == _ICC and segment[:12] == b"ICC_PROFILE\0" and len(segment) >= 14
        ):
            pass
        elif marker == _JFIF or marker in _OTHERS:
            plain = False
        elif marker not in _TABLES:
            return False  # progressive, among others
        position = end
    return False


def _is_usual_frame(frame: bytes) -> bool:
    if len(frame) not in (9, 15) or frame[0] != 8 or frame[5] != len(frame[6:]) // 3:
        return False
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    # Pillow refuses larger ones, or warns.
    fits = Image.MAX_IMAGE_PIXELS is None or height * width <= Image.MAX_IMAGE_PIXELS
    return fits and tuple(frame[7::3]) in _SAMPLINGS


def _is_upright(data: bytes) -> bool:
    """Whether Pillow takes the file for a plain JPEG that is not to be turned; reads its headers only."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:
        return False  # Detectron2's own attempt will tell what is wrong


@functools.cache
def _decoder() -> ModuleType | None:
    """Simplejpeg, where it is installed and decodes as Pillow does; their libjpeg may differ."""
    simplejpeg = optional("simplejpeg", "Reading JPEG files")
    if simplejpeg is None:
        return None
    noise = np.random.default_rng(0).integers(256, size=(33, 50, 3), dtype=np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=90, subsampling=subsampling)
        if (simplejpeg.decode_jpeg(file.getvalue()) != np.asarray(Image.open(file))).any():
            logger.warning(
                "this Pillow decodes JPEG unlike simplejpeg: files are left to it, slowly"
            )
            return None
    return simplejpeg
