"""What a user means by files, folders and globs: images and videos, read in one order."""

from __future__ import annotations

import glob
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image

from ..data.images import IMAGE_SUFFIXES, Mapper, UnusableImageError, load, pages_note

logger = logging.getLogger(__name__)


class Item(NamedTuple):
    """An image or a frame.

    Attributes:
        frame: its number in the video, from 0; None for an image.
        picture: uint8 RGB (H, W, 3), turned upright by its EXIF orientation.
        prepared: what the model takes, with the picture's "height" and "width".
    """

    source: Source
    frame: int | None
    picture: np.ndarray
    prepared: dict[str, Any]


def read(
    sources: Sequence[Source], mapper: Mapper, on_fault: Callable[[str], None]
) -> Iterator[Item]:
    """Yield every image and frame that can be read; of an image of many pages the first, which is logged.

    Args:
        mapper: prepares an image of Detectron2's dataset format, as in evaluation.
        on_fault: called with one line for each source that cannot be read.
    """
    note = pages_note(source.path for source in sources if not source.is_video)
    if note is not None:
        logger.warning(note)
    for source in sources:
        try:
            if source.is_video:
                yield from _frames(source, mapper)
            else:
                yield Item(source, None, *_prepared(source.path, mapper))
        except UnusableImageError as error:
            on_fault(str(error))


def _prepared(path: str, mapper: Mapper) -> tuple[np.ndarray, dict[str, Any]]:
    def look_and_map(record: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        picture = read_image(record["file_name"], "RGB")
        height, width = picture.shape[:2]
        return picture, mapper({**record, "height": height, "width": width})

    return load(look_and_map, {"file_name": path})


def _frames(source: Source, mapper: Mapper) -> Iterator[Item]:
    # OpenCV is imported where there is a video only.
    from .video import UnreadableVideoError, read_frames

    with tempfile.TemporaryDirectory(prefix="ssl_backbones_frame_") as folder:
        # Mappers read files: each frame goes through one, without loss.
        path = os.path.join(folder, "frame.bmp")
        try:
            for number, frame in enumerate(read_frames(source.path)):
                Image.fromarray(frame).save(path)
                _, prepared = _prepared(path, mapper)
                yield Item(source, number, frame, prepared)
        except UnreadableVideoError as error:
            raise UnusableImageError(f"video {source.path} cannot be used: {error}") from error


VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


class Source(NamedTuple):
    """A file that is an image, or a video by its name's ending."""

    path: str

    @property
    def is_video(self) -> bool:
        return Path(self.path).suffix.lower() in VIDEO_SUFFIXES


def find_sources(
    inputs: Iterable[str], *, outside: str | os.PathLike
) -> tuple[list[Source], list[str]]:
    """Find the images and videos that `inputs` name, each once.

    A file may have any name. A folder stands for all images and videos below it, told by their endings and
    sorted, without hidden ones; a pattern (`*`, `?`, `[...]`, `**`) for what it matches, sorted.

    Args:
        outside: a folder whose files are not taken from a folder or pattern: that of the drawn pictures.

    Returns:
        What was found, and a line for each input that stands for nothing.
    """
    found: dict[str, Source] = {}
    faults = []
    for word in inputs:
        before = len(found)
        known = False
        for path, is_named in _expand(word):
            absolute = os.path.abspath(path)
            if is_named or not _is_below(absolute, os.path.abspath(outside)):
                known = known or absolute in found
                found.setdefault(absolute, Source(path))
        if len(found) == before and not known:
            faults.append(_why_nothing(word))
    return list(found.values()), faults


def _expand(word: str) -> Iterator[tuple[str, bool]]:
    """The files of one input, each with whether the user named that very file."""
    if os.path.isdir(word):
        yield from ((path, False) for path in _below(word))
    elif os.path.exists(word):
        if os.path.isfile(word):
            yield word, True
    else:
        for match in sorted(glob.glob(word, recursive=True)):
            if os.path.isfile(match) and _is_known(match):
                yield match, False


def _below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        # In place: os.walk then goes on in this order, and not into hidden ones.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if _is_known(name) and not name.startswith("."):
                yield os.path.join(parent, name)


def _is_known(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _why_nothing(word: str) -> str:
    if os.path.isdir(word):
        return f"{word}: no image or video is below this folder"
    if os.path.exists(word):
        return f"{word}: is neither a file nor a folder"
    return f"{word}: there is no such file or folder, and as a pattern it matches no image or video"
