"""The sha256 of a file, beside other work: it needs neither numpy nor the file in memory."""

from __future__ import annotations

import hashlib
import os
import stat
import threading

from .errors import InputError

_PIECE = 2 << 20  # of the file, read and hashed at once: about a millisecond's work


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
            with open(self._path, "rb", buffering=0, opener=open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError("it is not a regular file")
                piece = memoryview(bytearray(_PIECE))
                while not self._given_up:
                    count = file.readinto(piece)
                    if not count:
                        self._whole = True
                        break
                    self._digest.update(piece[:count])
        except OSError as error:
            self._error = error


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file.

    Raises:
        InputError: the file cannot be read, or is not a regular file.
    """
    return Sha256(path).hexdigest()


def open_without_waiting(path: str, flags: int) -> int:
    """Open such that a named pipe is refused instead of waited for; for `open`'s `opener`."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
