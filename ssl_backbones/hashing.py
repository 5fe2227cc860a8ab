"""Hashes of files and of values, and the checksum that stands beside a file; needs no numpy."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from .errors import InputError
from .files import write_atomically

_PIECE = 2 << 20  # of the file, read and hashed at once: about a millisecond's work


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file.

    Raises:
        InputError: the file cannot be read, or is not a regular file.
    """
    return Sha256(path).hexdigest()


def digest_of(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hexadecimal hash of a file, by any algorithm of hashlib.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    return digests_of(path, algorithm)[algorithm]


def digests_of(path: str | os.PathLike, *algorithms: str) -> dict[str, str]:
    """Hexadecimal hashes of a file by their algorithms, all in one reading; raises as `digest_of`."""
    # MD5 tells a damaged file from a whole one here, also on systems that forbid it for security.
    states = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def take(piece: memoryview) -> bool:
        for state in states.values():
            state.update(piece)
        return True

    _read(path, take)
    return {name: state.hexdigest() for name, state in states.items()}


class Sha256:
    """Hashes a file in a thread of its own from construction on.

    As a context manager it gives the work up when the block is left before `hexdigest` was called.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._digest = hashlib.sha256()
        self._error: OSError | None = None
        self._given_up = False
        self._whole = False
        self._thread = threading.Thread(target=self._run, name="sha256", daemon=True)
        self._thread.start()

    def __enter__(self) -> Sha256:
        return self

    def __exit__(self, *_error: object) -> None:
        self._given_up = True
        self._thread.join()

    def hexdigest(self) -> str:
        """Wait for the end of the file.

        Raises:
            InputError: the file cannot be read, or is not a regular file.
        """
        self._thread.join()
        if self._error is not None:
            reason = self._error.strerror or self._error
            raise InputError(f"cannot read {self._path}: {reason}; check the path")
        if not self._whole:
            raise RuntimeError("the hash was given up before the end of the file")
        return self._digest.hexdigest()

    def _run(self) -> None:
        try:
            self._whole = _read(self._path, self._take)
        except OSError as error:
            self._error = error

    def _take(self, piece: memoryview) -> bool:
        self._digest.update(piece)
        return not self._given_up


def _read(path: str | os.PathLike, take: Callable[[memoryview], bool]) -> bool:
    """Hand a file over piece by piece until `take` has enough; whether it was read to its end."""
    with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        piece = memoryview(bytearray(_PIECE))
        while count := file.readinto(piece):
            if not take(piece[:count]):
                return False
    return True


def open_without_waiting(path: str, flags: int) -> int:
    """Open such that a named pipe is refused instead of waited for; for `open`'s `opener`."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class HashingFile:
    """Hands what is written on to `file` and keeps its sha256, so that nothing is read back for it."""

    def __init__(self, file: BinaryIO):
        self._file, self._hash = file, hashlib.sha256()

    def write(self, data) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fingerprint_of(value: Any) -> str:
    """Hexadecimal sha256 of what JSON can hold, whatever the order of names in it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# The checksum beside a file, one line as `sha256sum -c` reads it


def checksum_beside(path: str | os.PathLike) -> str:
    """Where the checksum of the file `path` stands."""
    return f"{os.fspath(path)}.sha256"


def write_checksum(path: str | os.PathLike, sha256: str) -> None:
    """Record that the content of `path` has this sha256."""
    line = f"{sha256}  {os.path.basename(path)}\n"
    write_atomically(checksum_beside(path), lambda file: file.write(line.encode()))


def why_unusable(path: str | os.PathLike) -> str | None:
    """What is wrong with the file `path` by its checksum; None if nothing is.

    A file without a checksum is one whose writing was interrupted, or another program's.
    """
    for file in (path, checksum_beside(path)):
        if not os.path.exists(file):
            name = os.path.basename(file)
            return f"{name} is missing: its writing was interrupted, or it was removed"
    try:
        with open(checksum_beside(path), encoding="utf-8") as file:
            expected = file.read(65).split()[0]
        found = sha256_of(path)
    except (OSError, IndexError, UnicodeDecodeError, InputError) as error:
        return f"it cannot be read: {error}"
    if found != expected:
        return "its content is not what was written: its SHA-256 differs"
    return None
