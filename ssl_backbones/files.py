"""Files are written whole: a crash leaves the old file or the new one, never a part.

Here is also where the cache folder lies, and how processes take turns in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from .errors import InputError

Made = TypeVar("Made")


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`.

    The data reach the disk before the rename and the rename before the return, so that a power cut leaves
    the old file or the new one. The temporary file is removed whatever goes wrong.

    Raises:
        InputError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        # Not NamedTemporaryFile: its file could not be renamed while open on every platform.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space or give a path in a "
            "folder that exists and that you may write to"
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def write_folder(path: str | os.PathLike, fill: Callable[[Path], Made]) -> Made:
    """Let `fill` make things in a new folder, then put that in the place of `path`; return what it returns.

    The folder appears whole or not at all. What stood at `path` is removed: ask before.

    Raises:
        InputError: the place is not writable, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            result = fill(made)
            if path.exists():
                path.rename(Path(temporary) / "replaced")
            made.rename(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space or give a folder that you "
            "may write to"
        ) from error
    return result


def cache_folder() -> Path:
    """$SSL_BACKBONES_CACHE, else ssl_backbones in $XDG_CACHE_HOME, else in ~/.cache; it may not be there."""
    if named := os.environ.get("SSL_BACKBONES_CACHE"):
        return Path(named).expanduser().absolute()
    # The XDG base directory specification: a relative path is to be ignored.
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return (caches if caches.is_absolute() else Path.home() / ".cache") / "ssl_backbones"


def made_in_cache(cache: Path, name: str) -> Path:
    """The folder `name` of a cache folder, made if it is not there.

    Raises:
        InputError: it cannot be made.
    """
    folder = cache / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable_cache(cache, error) from error
    return folder


@contextmanager
def cache_lock(cache: Path, name: str) -> Iterator[None]:
    """Keep other processes from the work called `name` in a cache folder; the system frees it if we die.

    Raises:
        InputError: the cache is not writable.
    """
    import logging

    # filelock comes with torch and, unlike a lock file of our own, leaves no stale locks.
    from filelock import FileLock, Timeout

    lock = FileLock(made_in_cache(cache, "locks") / f"{name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logging.getLogger(__name__).info("waiting for another process that is busy with %s", name)
        lock.acquire()
    except OSError as error:
        raise _unwritable_cache(cache, error) from error
    try:
        yield
    finally:
        lock.release()


def _unwritable_cache(cache: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write to the cache folder {cache} ({error.strerror or error}); set "
        "SSL_BACKBONES_CACHE to a folder that you may write to"
    )


def _umask() -> int:
    """The process's umask, which mkstemp ignores in favour of 0600."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable; a no-op where folders cannot be opened (Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
