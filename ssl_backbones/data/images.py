"""Images as files: how large they may be, what cannot be used as it is, and what is read of many pages."""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

from ..errors import InputError

logger = logging.getLogger(__name__)

Mapper = Callable[[Mapping[str, Any]], Any]

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg")
IMAGE_SUFFIXES += (".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings, in small letters, of what is taken for an image where a folder is given."""

_ALWAYS_8_BITS = (".jpg", ".jpeg")
_NARROWEST = 100
"""Beyond this ratio of the sides a resize to the sizes of a small recipe may leave no row of an image."""
_BYTES_PER_PIXEL = 14
"""At the highest point of `read_image`: Pillow's four twice and NumPy's three twice, as measured."""
_MOST_PIXELS = 2**31 // 3
"""Of whose RGB values the offsets fit the 32 bits that decoders count with: 26,754 x 26,754."""
_DECODED_PIXELS = 2**31
"""Of a test set that is decoded before training: COCO's val has about 1.4e9, 6 s for two cores."""
_MANY_PAGES = ("AVIF", "GIF", "PNG", "TIFF", "WEBP")
"""Pillow's formats whose frames are pictures each, and not layers or previews of one."""


class UnusableImageError(InputError):
    """An image that cannot be used: which, and why."""

    def __init__(self, message: str):
        # What a DataLoader's worker raised arrives with the worker's whole traceback for a message, whose
        # last line is the message proper.
        name = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.strip().rpartition(name)[2])


class _PillowsLimit:
    """`Image.MAX_IMAGE_PIXELS`, which is the process's, raised while any thread asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking = 0
        self._before: int | None = None

    @contextmanager
    def raised(self) -> Iterator[None]:
        with self._lock:
            if self._asking == 0:
                self._before = Image.MAX_IMAGE_PIXELS
                if self._before is not None:
                    # Pillow refuses what has more than twice as many.
                    Image.MAX_IMAGE_PIXELS = max(self._before, most_pixels() // 2)
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1
                if self._asking == 0:
                    Image.MAX_IMAGE_PIXELS = self._before


large_images = _PillowsLimit().raised
"""A context in which Pillow opens any image that memory allows (`most_pixels`): the user named the file.

Outside it Pillow takes an image of more than 179 million pixels for an attack and refuses it, and so it
remains for whoever imports this package.
"""


def most_pixels() -> int:
    """How many pixels an image may have to be read now, by the memory that is free."""
    return min(_MOST_PIXELS, _free_memory() // _BYTES_PER_PIXEL)


def _free_memory() -> int:
    """Bytes; where the system does not tell, all that the machine has."""
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load(mapper: Mapper, record: Mapping[str, Any]) -> Any:
    """Return `mapper(record)`, and say which image it was that could not be read.

    An image may be as large as memory allows; see `large_images`.

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
    with large_images():
        try:
            _refuse_clipping(path)
            return mapper(record)
        except Exception as error:
            reason = _why_unusable(record, error)
            if reason is not None:
                raise UnusableImageError(format_fault(path, reason)) from error
            if not isinstance(error, OSError):
                logger.error(f"the mapper failed on {path}, which can be read")
                raise
        # The file could be read after all: a disk or network that faltered for a moment.
        return mapper(record)


def format_fault(path: str, reason: str) -> str:
    """That an image file cannot be used, and the mend."""
    return f"image {path} cannot be used: {reason}; mend the file or take it out of the dataset"


def readable(mapper: Mapper) -> Mapper:
    """Wrap a mapper so that an image that cannot be used ends the command with one line that names it.

    For evaluation, where leaving an image out would change the result.
    """
    return functools.partial(load, mapper)


def image_faults(
    images: Iterable[Mapping[str, Any]],
    root: str | os.PathLike,
    on_image: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, str]]:
    """Find the images on which `load` would fail for what their files are, without mapping any.

    Headers tell of files that are missing, no images, of another size than stated, too large or clipped.
    That a file breaks off shows only when it is decoded: a set of up to 2**31 pixels in all, as COCO's val,
    is decoded too. Of a larger one, a file that is whole at its beginning is taken for whole.

    Args:
        images: COCO's, each with "file_name", "width" and "height".
        root: the folder of the file names.
        on_image: called as each image is done.

    Raises:
        InputError: an image has no file_name.

    Yields:
        The path and the reason, in `load`'s words, of each that cannot be used, in the order of `images`.
    """
    if nameless := [image.get("id") for image in images if "file_name" not in image]:
        raise InputError(
            f"{len(nameless)} images have no file_name (first: the one with id {nameless[0]}), as LVIS's, "
            "which Detectron2 reads by a registered dataset's name alone; give each its file_name"
        )
    records = [{**image, "file_name": os.path.join(root, image["file_name"])} for image in images]
    pixels = sum(record.get("width", 0) * record.get("height", 0) for record in records)
    look = functools.partial(_fault_of_file, decode=pixels <= _DECODED_PIXELS)
    for record, reason in zip(records, in_threads(look, records), strict=True):
        on_image()
        if reason is not None:
            yield record["file_name"], reason


def upright_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image in pixels, as Detectron2 turns it by its EXIF.

    Raises:
        UnusableImageError: it cannot be read.
    """
    path = os.fspath(path)
    with large_images():
        try:
            return _header(path)[:2]
        except Exception as error:
            reason = _why_unreadable({"file_name": path}) or f"{type(error).__name__}: {error}"
            raise UnusableImageError(format_fault(path, reason)) from error


def pages_note(paths: Iterable[str]) -> str | None:
    """Say that of images of many pages or frames the first is read: in one sentence, or None without any.

    Files that their names call JPEG are not opened; what cannot be read is passed over.
    """
    paths = [path for path in paths if not path.lower().endswith(_ALWAYS_8_BITS)]
    counted = zip(paths, in_threads(_pages, paths), strict=True)
    several = [(path, pages) for path, pages in counted if pages > 1]
    if not several:
        return None
    (path, pages), others = several[0], len(several) - 1
    also = "" if others == 0 else f", as in {others} other{'s' if others > 1 else ''} of many pages"
    return f"image {path} has {pages} pages or frames: the first is read" + also


def in_threads(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`map`, several at a time, since much of the work is waiting for disks and in decoders."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(function, items)
    finally:
        # Whoever has seen enough does not wait for the rest.
        pool.shutdown(cancel_futures=True)


def _pages(path: str) -> int:
    try:
        with large_images(), PathManager.open(path, "rb") as file, Image.open(file) as image:
            return image.n_frames if image.format in _MANY_PAGES else 1
    except Exception:
        return 1  # whoever reads it will tell what is wrong


class _ClippedError(Exception):
    """An image that would be read without an error and yet wrongly."""


def _refuse_clipping(path: str) -> None:
    """Raise where Pillow's conversion to 8 bits would cut values off instead of scaling them."""
    if path.lower().endswith(_ALWAYS_8_BITS):
        return
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        reason = _clips(image)
    if reason is not None:
        raise _ClippedError(reason)


def _clips(image: Image.Image) -> str | None:
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return None
    return (
        f"its pixels have more than 8 bits (Pillow's mode {image.mode}), and reading it as 8 bits would "
        "clip all above 255; save it scaled to 8 bits"
    )


def _fault_of_file(record: Mapping[str, Any], *, decode: bool) -> str | None:
    """What is wrong with an image by its header and, on demand, as far as its decoder goes."""
    path = record["file_name"]
    with large_images():
        try:
            with PathManager.open(path, "rb") as file, Image.open(file) as image:
                reason = _clips(image) or _wrong_size(record, *_upright_size(image, whole=decode))
                if reason is None and decode:
                    # A JPEG at an eighth of its size: sooner done, and it breaks off where the whole does.
                    image.draft("L", (1, 1))
                    image.load()
                return reason
        except Exception:
            return _why_unreadable(record)


def _why_unusable(record: Mapping[str, Any], error: Exception) -> str | None:
    """What is wrong with an image on which its mapper failed; None if it can be read well."""
    if isinstance(error, _ClippedError):
        return str(error)
    if isinstance(error, MemoryError):
        # Another attempt would fill the memory again.
        return _DOES_NOT_FIT
    reason = _why_unreadable(record)
    if reason is not None:
        return reason
    width, height, _ = _header(record["file_name"])
    if max(width, height) > _NARROWEST * min(width, height):
        return f"it is {width} x {height}, of which a resize leaves nothing ({error})"
    return None


_DOES_NOT_FIT = "the memory that is free does not hold its pixels; cut it into tiles"


def _why_unreadable(record: Mapping[str, Any]) -> str | None:
    """Why Detectron2 cannot read an image, or reads another size than its annotation says."""
    path = record["file_name"]
    try:
        height, width = read_image(path, "RGB").shape[:2]
    except FileNotFoundError:
        return "there is no such file"
    except UnidentifiedImageError:
        return "it is damaged, or not an image that Pillow knows"
    except Image.DecompressionBombError:
        return _too_large()
    except MemoryError:
        return _DOES_NOT_FIT
    except Exception as failure:
        # A damaged file can make a decoder raise anything.
        return f"{type(failure).__name__}: {failure}"
    return _wrong_size(record, width, height, _header(path)[2])


def _too_large() -> str:
    # With None there for a limit, Pillow refuses nothing.
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    bound = "can be read" if most + 1 >= _MOST_PIXELS else "the memory that is free allows"
    return f"it has more than {most:,} pixels, the most that {bound}; cut it into tiles"


def _wrong_size(record: Mapping[str, Any], width: int, height: int, orientation: int) -> str | None:
    stated = record.get("width", width), record.get("height", height)
    if stated == (width, height):
        return None
    return f"it is {width} x {height}, and its annotation says {stated[0]} x {stated[1]}" + (
        f" (the file's EXIF orientation, {orientation}, turns it)"
        if stated == (height, width) and orientation in _TURNED
        else ""
    )


_ORIENTATION = 274  # EXIF's tag
_TURNED = range(5, 9)  # the orientations that swap width and height


def _header(path: str) -> tuple[int, int, int]:
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        return _upright_size(image)


def _upright_size(image: Image.Image, *, whole: bool = True) -> tuple[int, int, int]:
    """Width and height as Detectron2 turns the image, and the EXIF orientation, 1 to 8, by which it does.

    Args:
        whole: whether a PNG is decoded for an EXIF that stands at its end.
    """
    try:
        exif = image.getexif() if whole else Image.Image.getexif(image)
        orientation = exif.get(_ORIENTATION, 1)
    except Exception:
        orientation = 1  # as in Detectron2
    width, height = image.size
    return (height, width, orientation) if orientation in _TURNED else (width, height, orientation)
