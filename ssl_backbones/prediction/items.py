"""Images and frames of videos, read and prepared one after the other; what cannot be read is passed over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image

from ..data.images import Mapper, UnusableImageError, load
from .inputs import Source


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
    sources: Iterable[Source], mapper: Mapper, on_fault: Callable[[str], None]
) -> Iterator[Item]:
    """Yield every image and frame that can be read.

    Args:
        mapper: prepares an image of Detectron2's dataset format, as in evaluation.
        on_fault: called with one line for each source that cannot be read.
    """
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
