"""The folder where downloads and converted copies stay, and what is remembered of each.

downloads/NAME                        what an address or a package gave, and NAME.part while it arrives
converted/SOURCE16-VERSION-N.pkl      a converted copy, by its source's sha256 (and package, where it is
                                      fetched out of one), our version and the number of our conversion;
                                      with -TEXT16 behind the source's where text beside it was read
converted/...pkl.sha256               its own sha256, as `sha256sum -c` reads it
known_hashes.json                     the sha256 of each named file at its first download
locks/                                one process at a time for each of the above
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..conversion import CONVERSION
from ..errors import InputError
from ..files import cache_folder, cache_lock, made_in_cache, write_atomically
from ..hashing import sha256_of, why_unusable, write_checksum


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
        """The one in `files.cache_folder`."""
        return cls(cache_folder())

    def downloads(self) -> Path:
        """The folder for what comes from the network, made if it is not there.

        Raises:
            InputError: it cannot be made.
        """
        return made_in_cache(self.folder, "downloads")

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Keep other processes from the work called `name`, as `files.cache_lock` says."""
        return cache_lock(self.folder, name)

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

    def converted(self, sha256: str, text: str = "") -> Path | None:
        """The intact converted copy of the file with this sha256, or None.

        `text` is the fingerprint of the text beside the file; "" where there is none. Copies that an
        earlier conversion made are left alone: an earlier version of this package may still use them.

        The copy is hashed and compared with what was written, some 0.1 s for a ResNet-50: a copy
        that is damaged, or was cut off by a crash, counts as absent.
        """
        copy = self._copy(sha256, text)
        return copy if why_unusable(copy) is None else None

    def keep_converted(
        self, sha256: str, convert: Callable[[Path], object], text: str = ""
    ) -> Path:
        """The converted copy of the file with this sha256, which `convert` writes if it is not here.

        `text` is as in `converted`.

        Raises:
            InputError: what `convert` raises, or the cache is not writable.
        """
        if copy := self.converted(sha256, text):
            return copy
        copy = self._copy(sha256, text)
        with self.lock(copy.name):
            if self.converted(sha256, text) is None:  # nobody made it while we waited
                made_in_cache(self.folder, "converted")
                convert(copy)
                write_checksum(copy, sha256_of(copy))
        return copy

    def _copy(self, sha256: str, text: str) -> Path:
        source = "-".join(part[:16] for part in (sha256, text) if part)
        return self.folder / "converted" / f"{source}-{__version__}-{CONVERSION}.pkl"

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

    def _unreadable(self, reason: str) -> InputError:
        return InputError(
            f"cannot read the recorded hashes in {self.known_hashes} ({reason}); mend the file, or "
            "delete it if you trust the next download"
        )
