"""Reads any checkpoint without torch and without running anything from it.

Four `containers` are read: torch's zip files, its older format (pickles, then the raw storages), plain
pickles of numpy arrays, and safetensors. Tensors become read-only arrays over the mapped file, so that
only what is used is ever read from the disk.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..hashing import open_without_waiting
from .containers import Refused, other_kinds, safetensors
from .containers.torch_files import LEGACY_MAGIC, read_legacy, read_zip
from .containers.unpickling import Machine


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        container: "torch-zip", "torch-legacy", "pickle" or "safetensors".
        content: the pickled object, or the tensors of a safetensors file by name. Tensors and
            arrays are read-only numpy arrays over the file, not always aligned: copy one before
            torch gets it. bfloat16 comes as float32 (exact); the byte order is the machine's.
        foreign: types in whose place an inert placeholder stands.
        metadata: what a safetensors file says beside its tensors; empty in other containers.
    """

    path: str
    container: str
    content: object
    foreign: tuple[str, ...]
    metadata: Mapping[str, str]
    _data: mmap.mmap = field(repr=False)

    def release(self) -> None:
        """Give back the memory of what was read so far; it is read again where it is used again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._data.madvise(mmap.MADV_DONTNEED)


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a file that may come from anybody: nothing in it is run.

    Raises:
        InputError: no such file; a folder or a file that is no checkpoint (and what it is); a damaged
            one; or one that names anything that checkpoints do not need.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f"{path} {other_kinds.folder(Path(path))}")
    try:
        with open(path, "rb", opener=open_without_waiting) as file:
            if reason := other_kinds.by_name(Path(path)):
                raise InputError(f"{path} {reason}")
            return read_open_file(file, path)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}; check the path"
        ) from error


def read_open_file(file, name: str) -> Checkpoint:
    """Like `read_checkpoint`, of a file that is open for reading; `name` is for messages."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name} is not a regular file; save it to disk first and give that path")
    if status.st_size == 0:
        raise InputError(f"{name} is empty: the download failed; get it again")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return Checkpoint(name, *_read(data), data)
    except Refused as refusal:
        raise InputError(f"{name} {refusal}") from refusal


def _read(data: mmap.mmap) -> tuple[str, object, tuple[str, ...], Mapping[str, str]]:
    if safetensors.is_such_a_file(data):
        content, metadata = safetensors.read(data)
        return "safetensors", content, (), metadata
    if data[:4] == b"PK\x03\x04":
        return "torch-zip", *read_zip(data), {}
    if data[:1] != b"\x80":
        raise Refused(other_kinds.looks_like(data[:512]))
    machine = Machine(data, 0, len(data))
    content = machine.load()
    if type(content) is int and content == LEGACY_MAGIC:
        return "torch-legacy", *read_legacy(data, machine.end), {}
    return "pickle", content, tuple(sorted(machine.foreign)), {}


def provenance_of(checkpoint: Checkpoint) -> Mapping[str, object]:
    """The provenance that a converted file carries, in whichever format; {} where it has none.

    Anybody may have written it: fields of a wrong type are left out, and all of it where it holds
    what no converted file does.
    """
    content = checkpoint.content
    found = content.get("provenance") if isinstance(content, dict) else None
    if found is None and isinstance(content, dict) and isinstance(content.get("meta"), dict):
        found = content["meta"].get("provenance")
    if found is None and "provenance" in checkpoint.metadata:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(checkpoint.metadata["provenance"])
    if not isinstance(found, dict) or not _is_plain(found):
        return {}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, _FIELD_TYPES.get(name, object))
    }


_FIELD_TYPES = {
    **dict.fromkeys(("source", "source_sha256", "package", "license"), str),
    **dict.fromkeys(("method", "layout", "tool", "date"), str),
    "branch": str | None,
    **dict.fromkeys(("architecture", "input_stated_by", "texts_beside"), dict),
    "input": dict | None,
}
_MOST_VALUES = 1000  # of a provenance; an honest one has about 80


def _is_plain(value: object) -> bool:
    """Whether it is made of text, numbers, None, lists and dictionaries, and of not too many."""
    waiting, count = [value], 0
    while waiting and count + len(waiting) <= _MOST_VALUES:
        value = waiting.pop()
        count += 1
        if type(value) is dict and all(type(key) is str for key in value):
            waiting += value.values()
        elif type(value) is list:
            waiting += value
        elif type(value) is int:
            if abs(value) >= 1 << 31:  # more than is ever written
                return False
        elif type(value) not in (str, float, bool, type(None)):
            return False
    return not waiting


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name before what is said about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{os.fspath(path)} {error}") from error
