"""A checkpoint's checksum: a file beside it that `sha256sum -c` reads as well."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from ...errors import InputError
from ...files import write_atomically
from ...hashing import sha256_of


class HashingFile:
    """Hands what is written on to `file` and keeps its SHA-256, so that nothing is read back for it."""

    def __init__(self, file: BinaryIO):
        self._file, self._hash = file, hashlib.sha256()

    def write(self, data) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def beside(path: str) -> str:
    """Where the checksum of the file `path` stands."""
    return f"{path}.sha256"


def write_checksum(path: str, digest: str) -> None:
    """Record that the content of `path` has the SHA-256 `digest`."""
    line = f"{digest}  {os.path.basename(path)}\n"
    write_atomically(beside(path), lambda file: file.write(line.encode()))


def why_unusable(path: str) -> str | None:
    """What is wrong with the file `path` by its checksum; None if nothing is.

    A file without a checksum is one whose writing was interrupted, or another program's.
    """
    for file in (path, beside(path)):
        if not os.path.exists(file):
            name = os.path.basename(file)
            return f"{name} is missing: its writing was interrupted, or it was removed"
    try:
        with open(beside(path), encoding="utf-8") as file:
            expected = file.read(65).split()[0]
        found = sha256_of(path)
    except (OSError, IndexError, UnicodeDecodeError, InputError) as error:
        return f"it cannot be read: {error}"
    if found != expected:
        return "its content is not what was written: its SHA-256 differs"
    return None
