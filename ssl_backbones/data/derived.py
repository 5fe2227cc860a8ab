"""COCO files made of other files, kept in the cache folder for as long as these stay as they are."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ..fast.annotations.coco_json import collector_paused
from ..fast.annotations.packed_cache import SETTLED, AnnotationCache
from ..files import cache_folder, cache_lock
from ..hashing import fingerprint_of

_MAKING = 2
"""Of what is made: to be raised when the same files give other content."""


class Made(NamedTuple):
    """What was made of some files.

    Attributes:
        images: the folder that the file names are relative to.
        contents: COCO's content of each split, with what is to be said of it.
        files: all files that it depends on.
    """

    images: Path
    contents: dict[str, tuple[dict[str, Any], list[str]]]
    files: Iterable[Path]


class Derived(NamedTuple):
    """A COCO file in the cache folder, the folder of its images, and what is to be said of it."""

    annotations: Path
    images: Path
    said: list[str]


def derive(facts: list[Any], make: Callable[[], Made]) -> dict[str, Derived]:
    """What `make` makes, by split; not made again while its files have the sizes and times that they had.

    Args:
        facts: what it is made of, in JSON's types: the names of the files at least.

    Raises:
        InputError: whatever `make` raises; or the cache folder cannot be written to.
    """
    cache, key = AnnotationCache(), fingerprint_of(facts)
    known = _remembered(cache, key)
    if known is not None:
        return known
    # Each process of a run comes here, and what one of them makes takes gigabytes of large data.
    with cache_lock(cache_folder(), f"{key[:16]}-{_MAKING}"):
        known = _remembered(cache, key)
        return _make(cache, key, make) if known is None else known


def _make(cache: AnnotationCache, key: str, make: Callable[[], Made]) -> dict[str, Derived]:
    """Called with the lock of this key."""
    start = time.time()
    with collector_paused():
        made = make()
        derived = {}
        for split, (content, said) in made.contents.items():
            path = cache.keep_copy(key, _MAKING, json.dumps(content))
            derived[split] = Derived(path, made.images, said)
    try:
        states = {path: _state(path) for path in {*map(os.fspath, made.files)}}
    except OSError:
        return derived
    # A file that changes once more within a moment may keep its times.
    if all(max(times) / 1e9 < start - SETTLED for _, *times in states.values()):
        splits = {
            split: [os.fspath(one.annotations), cache.sha256(os.fspath(one.annotations)), one.said]
            for split, one in derived.items()
        }
        text = json.dumps({"images": os.fspath(made.images), "splits": splits, "files": states})
        cache.set_checked(key, _MAKING, text)
    return derived


def _remembered(cache: AnnotationCache, key: str) -> dict[str, Derived] | None:
    try:
        known = json.loads(cache.checked(key, _MAKING))
        if any(_state(path) != state for path, state in known["files"].items()):
            return None
        derived = {}
        for split, (path, sha256, said) in known["splits"].items():
            if cache.sha256(path) != sha256:
                return None
            derived[split] = Derived(Path(path), Path(known["images"]), said)
        return derived
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _state(path: str | os.PathLike) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
