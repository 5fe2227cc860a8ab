"""Which folder near a COCO file its images are in, told by the first file names in it."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..fast.annotations.coco_json import collector_paused, parse_json
from .annotations.foreign import foreign_format

SPLIT_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLITS = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels", "coco", "json", "jsons")
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "data")

SAMPLE = 20
"""So many file names say where the images are."""
HEAD = 1 << 20
"""Bytes at the beginning of a file, where those that write COCO mostly put the images."""
_ENTRIES = 2_000_000
"""Of a folder with more names than that something else is meant."""


class Refusal(NamedTuple):
    """Why a file is not taken for COCO's, to follow its name.

    Attributes:
        is_told: whether it is sure that somebody took it for annotations: it is a damaged COCO file, no JSON,
            or another tool's; JSON of any other content is not.
    """

    reason: str
    is_told: bool


def split_word(name: str) -> str | None:
    """The word of a name that says a split, with its year: "val2017" of "instances_val2017.json"."""
    words = re.findall(r"[a-z]+\d*", name.lower())
    return next((word for word in words if word.rstrip("0123456789") in _SPLITS), None)


def split_of(name: str) -> str | None:
    """ "train", "val" or "test", as a word of the name says; None where none does."""
    word = split_word(name)
    return word and _SPLITS[word.rstrip("0123456789")]


def split_named(name: str) -> str | None:
    """The split that all of a name says, as train2017; None of one that has such a word among others."""
    return split_of(name) if split_word(name) == name.lower() else None


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and not a file.

    Raises:
        InputError: nothing is there, or neither.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        link = f" (a link to {os.readlink(path)})" if os.path.islink(path) else ""
        raise InputError(
            f"{path}{link} cannot be read: {reason}; give a folder or a COCO file that is there"
        ) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise InputError(f"{path} is neither a folder nor a file; give one of these")
    return stat.S_ISDIR(mode)


def files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files of a folder whose names end so in any case, by name; hidden ones are left out.

    A link to nothing counts as one: who reads it says so, where leaving it out would lose a split.

    Raises:
        InputError: the folder cannot be read.
    """
    entries = (e for e in _entries(folder) if e.name.lower().endswith(endings) and e.name[0] != ".")
    # As in `folders_in`: a file costs no question to the disk.
    return [
        Path(e.path)
        for e in entries
        if e.is_file(follow_symlinks=False) or os.path.isfile(e.path) or _is_broken(e.path)
    ]


def folders_in(folder: Path) -> list[Path]:
    """Folders of a folder, by name, without hidden ones, and links to nothing, as in `files_in`.

    Raises:
        InputError: the folder cannot be read.
    """
    # Asked of the entry first, which knows it of itself: a folder may hold 100,000 images.
    entries = (
        e for e in _entries(folder) if not e.is_file(follow_symlinks=False) and e.name[0] != "."
    )
    return [Path(e.path) for e in entries if os.path.isdir(e.path) or _is_broken(e.path)]


def _is_broken(path: str) -> bool:
    return os.path.islink(path) and not os.path.exists(path)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(itertools.islice(entries, _ENTRIES + 1), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}; mend that") from error
    if len(found) > _ENTRIES:
        raise InputError(
            f"{folder} holds more than {_ENTRIES:,} files; give a folder of the data alone"
        )
    return found


def read_bytes(path: Path, size: int = -1) -> bytes:
    """A file's first bytes, or all of them.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; mend that") from error


def lines_of(path: Path) -> list[str]:
    """The lines of a text without the blanks around them; empty ones at its end are left out.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start:,}); save it as such") from error
    return [line.strip() for line in text.rstrip().splitlines()]


def first_file_names(path: Path) -> list[str] | Refusal:
    """The first file names of a COCO file's images; none where it lists none.

    The beginning is enough of most files, whatever their size.

    Raises:
        InputError: the file cannot be read.
    """
    head = read_bytes(path, HEAD)
    texts = re.findall(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', head)
    if len(texts) >= SAMPLE:
        with contextlib.suppress(ValueError):
            return [json.loads(text) for text in texts[:SAMPLE]]
    # An archive of gigabytes is told by its head.
    is_text = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[") or b"\0" in head[:4]
    data = read_bytes(path) if len(head) == HEAD and is_text else head
    try:
        with collector_paused():
            content = parse_json(data.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        return Refusal(foreign_format(data) or f"is not JSON: {error}; export it once more", True)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        foreign = foreign_format(data, content)
        reason = 'has no list of "images", so it is not COCO\'s; see https://cocodataset.org/#format-data'
        is_coco = isinstance(content, dict) and not content.keys().isdisjoint(
            ("images", "annotations", "categories")
        )
        return Refusal(foreign or reason, bool(foreign) or is_coco)
    names = (image.get("file_name") for image in images if isinstance(image, dict))
    return list(itertools.islice((name for name in names if isinstance(name, str)), SAMPLE))


def image_folder(annotations: Path, names: Sequence[str], split: str) -> Path:
    """The first of the folders nearby in which the most of the images are.

    Looked at are the file's own folder, inside it those of the split's name and images/, and the same of the
    folder above where the file's own is one of annotations or of a split: elsewhere another data set's images
    of the same names might be there. Of a file without names it is its own folder.

    Args:
        names: of some images, as the file gives them.
        split: "train", "val" or "test", of a file whose own name says none.

    Raises:
        InputError: none of the images is in any of them.
    """
    if not names:
        return annotations.parent
    best, count = annotations.parent, 0
    looked: list[Path] = []
    for folder in _candidates(annotations, split_of(annotations.name) or split):
        if folder in looked:
            continue
        looked.append(folder)
        there = sum(_is_there(folder, name) for name in names)
        if there > count:
            best, count = folder, there
        if count == len(names):
            break
    if not count:
        where = ", ".join(map(str, looked))
        raise InputError(
            f"{annotations}: its image {names[0][:100]!r} is in none of {where}; put the images beside the "
            "file, or into a folder images/ there"
        )
    return best


def _candidates(annotations: Path, split: str) -> Iterator[Path]:
    base = annotations.parent
    word = split_word(annotations.name) or "default"  # CVAT's subset of a task without one
    is_part = base.name.lower() in _ANNOTATION_FOLDERS or split_of(base.name) is not None
    above = [base.parent] if is_part else []
    yield base
    for near in (base, *above):
        # Above the file all may be private.
        with contextlib.suppress(InputError):
            inside = folders_in(near)
            yield from _of_split(inside, split, word)
            for images in inside:
                if images.name.lower() in _IMAGE_FOLDERS:
                    with contextlib.suppress(InputError):
                        yield from _of_split(folders_in(images), split, word)
                    yield images
    yield from above


def _of_split(folders: Sequence[Path], split: str, word: str) -> list[Path]:
    """Folders of a split's images, that of the file's own word first: train2014 is not train2017."""
    own = [folder for folder in folders if folder.name.lower() == word]
    return own + [
        folder for folder in folders if split_of(folder.name) == split and folder not in own
    ]


def _is_there(folder: Path, name: str) -> bool:
    return any(os.path.isfile(folder / one) for one in {name, name.replace("\\", "/")})
