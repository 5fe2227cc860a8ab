"""The folder where downloads and converted copies stay, and what is remembered of each.

downloads/NAME                        what an address gave, and NAME.part while it arrives
converted/SOURCE16-VERSION.pkl        a converted copy, by its source's sha256 and our version
converted/SOURCE16-VERSION.pkl.sha256 its own sha256, as `sha256sum -c` reads it
known_hashes.json                     the sha256 of each named file at its first download
locks/                                one process at a time for each of the above
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import write_atomically

logger = logging.getLogger(__name__)


def digest(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hash of a file's bytes in hexadecimal."""
    # MD5 tells a damaged file from a whole one here, also on systems that forbid it for security.
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


@dataclass(frozen=True)
class KnownFile:
    """What was recorded of a named file when it first came in."""

    url: str
    sha256: str
    recorded: str  # ISO 8601, UTC


class Cache:
    """Downloads, converted copies and known hashes in one folder, safe among several processes.

    What is complete is read without a lock and without writing, so a folder that was filled once
    may be shared read-only.

    Args:
        folder: made when something is first written to it.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.known_hashes = self.folder / "known_hashes.json"

    @classmethod
    def from_environment(cls) -> Cache:
        """$SSL_BACKBONES_CACHE, else ssl_backbones in $XDG_CACHE_HOME, else in ~/.cache."""
        if named := os.environ.get("SSL_BACKBONES_CACHE"):
            return cls(Path(named).expanduser().absolute())
        # The XDG base directory specification: a relative path is to be ignored.
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return cls((caches if caches.is_absolute() else Path.home() / ".cache") / "ssl_backbones")

    def downloads(self) -> Path:
        """The folder for what comes from the network, made if it is not there.

        Raises:
            InputError: it cannot be made.
        """
        return self._made("downloads")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep other processes from the work called `name`; the system frees it if we die.

        Raises:
            InputError: the cache is not writable.
        """
        # filelock comes with torch and, unlike a lock file of our own, leaves no stale locks.
        from filelock import FileLock, Timeout

        lock = FileLock(self._made("locks") / f"{name}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            logger.info("waiting for another process that is busy with %s", name)
            lock.acquire()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def known(self, name: str) -> KnownFile | None:
        """What is recorded of the named file, or None before its first download.

        Raises:
            InputError: the record cannot be read.
        """
        entry = self._known_hashes().get(name)
        try:
            return None if entry is None else KnownFile(**entry)
        except TypeError as error:
            raise self._unreadable(f"a wrong entry {name!r}") from error

    def record(self, name: str, url: str, sha256: str) -> None:
        """Remember a file's hash at its first download; what is recorded stays as it is.

        Raises:
            InputError: the record cannot be read or written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self.lock(self.known_hashes.name):
            entries = {name: asdict(KnownFile(url, sha256, now)), **self._known_hashes()}
            text = json.dumps(entries, indent=2) + "\n"
            write_atomically(self.known_hashes, lambda file: file.write(text.encode()))

    def converted(self, sha256: str) -> Path | None:
        """The intact converted copy of the file with this sha256, or None.

        The copy is hashed and compared with what was written, some 0.1 s for a ResNet-50: a copy
        that is damaged, or was cut off by a crash, counts as absent.
        """
        copy = self._copy(sha256)
        try:
            intact = _hash_file(copy).read_text() == _hash_line(copy)
        except OSError:
            return None
        return copy if intact else None

    def convert(self, source: Path, sha256: str, *, selfsup: str = "auto") -> Path:
        """The converted copy of `source`, whose sha256 is given: made and proved at the first call.

        Raises:
            InputError: the conversion refuses the file, or the cache is not writable.
        """
        if copy := self.converted(sha256):
            return copy
        from ..conversion import convert

        copy = self._copy(sha256)
        with self.lock(copy.name):
            if self.converted(sha256) is None:  # nobody made it while we waited
                self._made("converted")
                convert(source, copy, selfsup=selfsup, force=True)
                line = _hash_line(copy)
                write_atomically(_hash_file(copy), lambda file: file.write(line.encode()))
                logger.info("converted %s to %s", source, copy)
        return copy

    def _copy(self, sha256: str) -> Path:
        return self.folder / "converted" / f"{sha256[:16]}-{__version__}.pkl"

    def _known_hashes(self) -> dict[str, dict[str, str]]:
        try:
            entries = json.loads(self.known_hashes.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(str(error)) from error
        if not isinstance(entries, dict):
            raise self._unreadable("not a JSON object")
        return entries

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return folder

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write to the cache folder {self.folder} ({error.strerror or error}); set "
            "SSL_BACKBONES_CACHE to a folder that you may write to"
        )

    def _unreadable(self, reason: str) -> InputError:
        return InputError(
            f"cannot read the recorded hashes in {self.known_hashes} ({reason}); mend the file, or "
            "delete it if you trust the next download"
        )


def _hash_file(copy: Path) -> Path:
    return copy.with_name(copy.name + ".sha256")


def _hash_line(copy: Path) -> str:
    return f"{digest(copy)}  {copy.name}\n"
