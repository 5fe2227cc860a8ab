"""Videos, frame by frame, where OpenCV can read them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import cv2
import numpy as np

from ..errors import InputError
from ..files import write_atomically

_USUAL_RATE = 25.0  # frames a second, for a video that does not tell
_LOST = 0.1  # share of the announced frames from which on a video counts as cut off: some guess


class UnreadableVideoError(Exception):
    """A video that cannot be read, or not to its end: its text says why."""


def count_frames(path: str) -> int:
    """How many frames a video announces; 0 if it does not, or cannot be read."""
    capture = cv2.VideoCapture(path)
    try:
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def frame_rate(path: str) -> float:
    """Frames a second."""
    capture = cv2.VideoCapture(path)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return rate if 0 < rate < 1000 else _USUAL_RATE


def read_frames(path: str) -> Iterator[np.ndarray]:
    """Yield the frames of a video, uint8 RGB (H, W, 3), turned as the file says.

    Raises:
        UnreadableVideoError: it cannot be opened, or ended long before its announced end.
    """
    if not os.path.isfile(path):
        raise UnreadableVideoError("there is no such file")
    announced, count = count_frames(path), 0
    capture = cv2.VideoCapture(path)
    try:
        while True:
            there_is_one, frame = capture.read()
            if not there_is_one:
                break
            count += 1
            yield np.ascontiguousarray(frame[:, :, ::-1])
    finally:
        capture.release()
    if count == 0:
        raise UnreadableVideoError("OpenCV cannot read it, or it holds no frame")
    if count < (1 - _LOST) * announced:
        raise UnreadableVideoError(
            f"it ends after {count} of the {announced} frames that it announces"
        )


class VideoFile:
    """An MPEG-4 video that is written frame by frame, and stands at `path` once it is closed.

    Raises (`add` and `close`): InputError if it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, rate: float):
        self._path, self._rate = os.fspath(path), rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._folder = tempfile.TemporaryDirectory(prefix="ssl_backbones_video_")
        self._temporary = os.path.join(self._folder.name, "video.mp4")

    def add(self, picture: np.ndarray) -> None:
        """Append a frame, uint8 RGB, of the size of the first one; encoders want an even one."""
        height, width = (side + side % 2 for side in picture.shape[:2])
        if self._writer is None:
            self._size = (width, height)
            code = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(self._temporary, code, self._rate, self._size)
            if not self._writer.isOpened():
                raise InputError(
                    f"cannot write {self._path}: OpenCV has no encoder for it here; --no-pictures leaves "
                    "videos and pictures out"
                )
        frame = np.pad(
            picture[:, :, ::-1],
            ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)),
            "edge",
        )
        if (width, height) != self._size:
            frame = cv2.resize(frame, self._size)
        self._writer.write(np.ascontiguousarray(frame))

    def close(self) -> None:
        """Finish the file and put it in its place."""
        try:
            if self._writer is not None:
                self._writer.release()
                with open(self._temporary, "rb") as source:
                    write_atomically(self._path, lambda file: shutil.copyfileobj(source, file))
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing of what was written so far."""
        self._folder.cleanup()
