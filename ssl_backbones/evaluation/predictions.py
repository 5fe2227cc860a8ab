"""The detections of an evaluation under way: on disk image by image, so that a killed one goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from ..errors import InputError

_LAST_PIECE = 1 << 16
"""Bytes read at a time from a file's end in the search for its last whole line."""


class Predictions:
    """Detections by index of the image, a line of JSON each, in a file of each process.

    They lie in `folder`/`key`; what other keys left there is removed. Every process must make one, and call
    `gather` and `remove`. Where the machines share no file system, each process counts what it sees.

    Attributes:
        done: indices of the images that are there already, seen by any process.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, key: str):
        self._folder = Path(folder) / key
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for other in self._folder.parent.iterdir():
                if other != self._folder:
                    shutil.rmtree(other, ignore_errors=True)
            path = self._folder / f"rank_{comm.get_rank()}.jsonl"
            self._file = open(path, "ab")  # noqa: SIM115 (open as long as this object is in use)
            _cut_unfinished_line(path)
        except OSError as error:
            raise _cannot_write(self._folder, error) from error
        # Nobody reads before everybody has cut.
        comm.synchronize()
        seen = {index for index, _ in self._lines()}
        views = comm.all_gather(seen)
        self.done: set[int] = set().union(*views)
        # Several processes may see the same file: the first of them answers for it.
        self._own = seen.difference(*views[: comm.get_rank()])

    def append(self, index: int, predictions: list[dict[str, Any]]) -> None:
        """Add the detections of image `index`; they outlast the process from here on.

        Raises:
            InputError: they cannot be written.
        """
        line = json.dumps({"index": index, "predictions": predictions}) + "\n"
        try:
            self._file.write(line.encode())
            self._file.flush()
        except OSError as error:
            raise _cannot_write(self._folder, error) from error
        self._own.add(index)

    def gather(
        self, indices: Iterable[int], kept: Callable[[dict[str, Any]], Any] = dict
    ) -> list[Any]:
        """All detections of the images `indices`, in this order, on the main process; [] on the others.

        Args:
            kept: in which form they are held in memory and sent between processes.
        """
        own = {
            index: [kept(one) for one in found]
            for index, found in self._lines()
            if index in self._own
        }
        merged: dict[int, list] = {}
        for part in comm.gather(own):
            merged |= part
        return [one for index in indices for one in merged[index]] if merged else []

    def remove(self) -> None:
        """Remove the files of all processes."""
        self.close()
        comm.synchronize()
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._folder.parent.rmdir()
        # Before anybody makes the same folder anew.
        comm.synchronize()

    def close(self) -> None:
        """Leave the files as they are, for another time."""
        # A disk that was full is still full: that was said by `append`.
        with contextlib.suppress(OSError):
            self._file.close()

    def _lines(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for path in sorted(self._folder.glob("rank_*.jsonl")):
            with open(path, "rb") as file:
                for line in file:
                    try:
                        content = json.loads(line)
                        index, predictions = content["index"], content["predictions"]
                    except (ValueError, TypeError, KeyError):
                        # Damaged, or cut off in a file that nobody continues: an image to be done again.
                        continue
                    yield index, predictions


def _cut_unfinished_line(path: Path) -> None:
    """Remove what follows the last line break: a line that a killed process did not finish."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _LAST_PIECE)
            file.seek(start)
            line_break = file.read(end - start).rfind(b"\n")
            if line_break >= 0:
                end = start + line_break + 1
                break
            end = start
        file.truncate(end)


def _cannot_write(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot keep detections in {folder}: {error.strerror or error}; free some space or set "
        "train.output_dir to a folder that you may write to"
    )
