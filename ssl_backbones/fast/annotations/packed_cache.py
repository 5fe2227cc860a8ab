"""Packed annotation files in the cache folder, by the sha256 of the file that they were made from.

annotations/SHA16-FORMAT/*.npy    the arrays of `packed.pack`
annotations/SHA16-FORMAT/facts.json   their checksums, and what is to be said of the file
annotations/SHA16-NUMBER.checked  the file passed the checks of that number, and what they say of it
annotations/SHA16-NUMBER-COPY8.json   the file in COCO's own form, where it is of another
                                  (both also of what `data.derived` makes, by its own keys)
annotations/hashes/PATH16.json    size, times and sha256 of a file that was hashed before
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ...files import cache_folder, cache_lock, made_in_cache, write_atomically
from ...hashing import digest_of
from .coco_json import KNOWN_FAULTY, Facts, collector_paused, parse_records
from .packed import FORMAT, PackedRecords, pack

logger = logging.getLogger(__name__)

SETTLED = 2.0  # seconds after which a file that changes again gets another time stamp


class Packed(NamedTuple):
    """Packed annotations, mapped from the folder where they are, and the sha256 of their COCO file."""

    folder: Path
    sha256: str
    records: PackedRecords  # relative to any folder of images
    facts: Facts


def reopen(folder: Path, sha256: str) -> Packed:
    """What `AnnotationCache.packed` gave, whatever became of the COCO file since.

    Raises:
        InputError: it is no longer there, or damaged.
    """
    if opened := _open(folder, sha256):
        return opened
    raise InputError(
        f"the packed annotations in {folder} are gone or damaged while a run needs them; start it anew, "
        "which makes them anew, and leave the folder where it is"
    )


class AnnotationCache:
    """The packed annotations in a cache folder, safe among several processes.

    What is damaged counts as absent and is made anew. What is complete is read without writing.
    """

    def __init__(self):
        self._cache = cache_folder()
        self.folder = self._cache / "annotations"

    def packed(self, path: str) -> Packed:
        """The records of a COCO file, relative to any folder of images, and what is to be said of it.

        Raises:
            InputError: the cache folder cannot be written to, or the file changed meanwhile.
            UnusualError, UnpackableError: the file is better left to Detectron2's own function.
            OSError: it cannot be read.
        """
        sha256 = self.sha256(path)
        # Under such a name it passes with faults that end the reading under another one.
        suffix = f"-{KNOWN_FAULTY}" if KNOWN_FAULTY in path else ""
        folder = self.folder / f"{sha256[:16]}-{FORMAT}{suffix}"
        if opened := _open(folder, sha256):
            return opened
        with cache_lock(self._cache, folder.name):
            opened = _open(folder, sha256)  # another process may have made it while we waited
            if opened is None:
                self._make(folder, path, sha256)
                opened = _open(folder, sha256)
        if opened is None:
            raise InputError(f"{folder} is damaged as soon as it is written; look at its disk")
        return opened

    def sha256(self, path: str) -> str:
        """The hash of a file, remembered as long as the file's size and times stay as they are."""
        path = os.path.realpath(path)
        stat = os.stat(path)
        signature = [path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        memory = self.folder / "hashes" / f"{hashlib.sha256(path.encode()).hexdigest()[:16]}.json"
        try:
            remembered = json.loads(memory.read_text())
            if remembered["signature"] == signature:
                return remembered["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not hashed before, or by a process that was cut off
        sha256 = digest_of(path)
        if time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED:
            self._remember(memory, json.dumps({"signature": signature, "sha256": sha256}))
        return sha256

    def is_checked(self, sha256: str, number: int) -> bool:
        """Whether `set_checked` was called for a file of this content."""
        return self._checked(sha256, number).exists()

    def checked(self, sha256: str, number: int) -> str:
        """What `set_checked` remembered.

        Raises:
            OSError: it did not.
        """
        return self._checked(sha256, number).read_text(encoding="utf-8")

    def set_checked(self, sha256: str, number: int, text: str = "") -> None:
        """Remember that a file of this content passed the checks that have this number, and `text`."""
        self._remember(self._checked(sha256, number), text)

    def keep_copy(self, sha256: str, number: int, text: str) -> Path:
        """Write another form of a file with this hash into the folder; the same text is not written twice.

        Raises:
            InputError: the cache folder cannot be written to.
        """
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        path = (
            made_in_cache(self._cache, "annotations") / f"{sha256[:16]}-{number}-{digest[:8]}.json"
        )
        if not path.is_file() or digest_of(path) != digest:
            write_atomically(path, lambda file: file.write(data))
        return path

    def _checked(self, sha256: str, number: int) -> Path:
        return self.folder / f"{sha256[:16]}-{number}.checked"

    def _remember(self, path: Path, text: str) -> None:
        """Write a small file; a folder that cannot be written to costs the time to find it out again."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda file: file.write(text.encode()))
        except (OSError, InputError) as error:
            logger.debug("not remembered: %s", error)

    def _make(self, folder: Path, path: str, sha256: str) -> None:
        """Called with the lock of this folder's name."""
        with collector_paused():
            records, facts = _read(path, sha256)
            arrays = pack(records)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f".{folder.name}.*"):  # by a process that was killed here
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=self.folder) as place:
                made = Path(place) / "made"
                made.mkdir()
                _write(made, arrays, facts, sha256)
                shutil.rmtree(folder, ignore_errors=True)
                made.rename(folder)
        except OSError as error:
            raise InputError(
                f"cannot write {folder}: {error.strerror or error}; free some space, or set "
                "SSL_BACKBONES_CACHE to a folder that you may write to"
            ) from error


def _read(path: str, sha256: str) -> tuple[list[dict[str, Any]], Facts]:
    """The records of the file, provided that it still has the content of this hash."""
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{path} changed while it was read; start again when it stays as it is")
    return parse_records(data, path, "")


def _write(folder: Path, arrays: dict[str, np.ndarray], facts: Facts, sha256: str) -> None:
    checksums = {}
    for name, array in arrays.items():
        checksums[name] = _checksum(array)
        write_atomically(folder / f"{name}.npy", lambda file, a=array: np.save(file, a))
    content = {"sha256": sha256, "facts": facts._asdict(), "checksums": checksums}
    text = json.dumps(content)
    write_atomically(folder / "facts.json", lambda file: file.write(text.encode()))


def _open(folder: Path, sha256: str) -> Packed | None:
    """None if the folder is not there, not whole, or of another file."""
    try:
        content: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        if content["sha256"] != sha256:
            return None
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in content["checksums"]
        }
        if any(_checksum(arrays[name]) != known for name, known in content["checksums"].items()):
            logger.warning(f"{folder} is damaged: it counts as absent")
            return None
        return Packed(folder, sha256, PackedRecords(arrays), Facts(**content["facts"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        logger.warning(f"{folder} is damaged ({error}): it counts as absent")
        return None


def _checksum(array: np.ndarray) -> int:
    """CRC-32 of the values: the form stands in the file's header, without which they would not load."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
