"""Images that cannot be used as they are: found out, told apart from faults of the code, and named."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

from ..errors import InputError

logger = logging.getLogger(__name__)

Mapper = Callable[[Mapping[str, Any]], Any]

_ALWAYS_8_BITS = (".jpg", ".jpeg")
_NARROWEST = 1000
"""Beyond this ratio of the sides a resize to Detectron2's sizes may leave no row of an image."""


class UnusableImageError(InputError):
    """An image that cannot be used: which, and why."""

    def __init__(self, message: str):
        # What a DataLoader's worker raised arrives with the worker's whole traceback for a message, whose
        # last line is the message proper.
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.strip().rpartition(name)[2])


def load(mapper: Mapper, record: Mapping[str, Any]) -> Any:
    """Return `mapper(record)`, and say which image it was that could not be read.

    Args:
        record: an image of Detectron2's dataset format; one without "file_name" is only mapped.

    Raises:
        UnusableImageError: the file is missing, damaged, too large, of another size than the annotations
            say, or of a kind that Detectron2 would silently clip to white.
        Exception: whatever else the mapper raises, as it is; the log names the image.
    """
    path = record.get("file_name") if isinstance(record, Mapping) else None
    if path is None:
        return mapper(record)
    try:
        _refuse_clipping(path)
        return mapper(record)
    except Exception as error:
        reason = _why_unusable(record, error)
        if reason is not None:
            raise UnusableImageError(
                f"image {path} cannot be used: {reason}; mend the file or take it out of the dataset"
            ) from error
        if not isinstance(error, OSError):
            logger.error(f"the mapper failed on {path}, which can be read")
            raise
    # The file could be read after all: a disk or network that faltered for a moment.
    return mapper(record)


def readable(mapper: Mapper) -> Mapper:
    """Wrap a mapper so that an image that cannot be used ends the command with one line that names it.

    For evaluation, where leaving an image out would change the result.
    """
    return functools.partial(load, mapper)


class _ClippedError(Exception):
    """An image that would be read without an error and yet wrongly."""


def _refuse_clipping(path: str) -> None:
    """Raise where Pillow's conversion to 8 bits would cut values off instead of scaling them."""
    if path.lower().endswith(_ALWAYS_8_BITS):
        return
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise _ClippedError(
                f"its pixels have more than 8 bits (Pillow's mode {image.mode}), and reading it as 8 bits "
                "would clip all above 255; save it scaled to 8 bits"
            )


def _why_unusable(record: Mapping[str, Any], error: Exception) -> str | None:
    """What is wrong with an image on which its mapper failed; None if it can be read well."""
    if isinstance(error, _ClippedError):
        return str(error)
    path = record["file_name"]
    try:
        height, width = read_image(path, "RGB").shape[:2]
    except FileNotFoundError:
        return "there is no such file"
    except UnidentifiedImageError:
        return "it is damaged, or not an image that Pillow knows"
    except Exception as failure:
        # A damaged file can make a decoder raise anything.
        return f"{type(failure).__name__}: {failure}"
    stated = record.get("width", width), record.get("height", height)
    if stated != (width, height):
        return f"it is {width} x {height}, and its annotation says {stated[0]} x {stated[1]}" + (
            f" (the file's EXIF orientation, {_orientation(path)}, turns it)"
            if stated == (height, width) and _orientation(path) >= 5
            else ""
        )
    if max(width, height) > _NARROWEST * min(width, height):
        return f"it is {width} x {height}, of which a resize leaves nothing ({error})"
    return None


def _orientation(path: str) -> int:
    """The EXIF orientation, 1 to 8; from 5 on it swaps width and height."""
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        return image.getexif().get(274, 1)
