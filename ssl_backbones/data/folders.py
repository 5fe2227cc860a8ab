"""From a folder, a COCO file or a data.yaml to each split's annotations and the folder of its images.

The layouts are Detectron2's and COCO's, those of the exports of Roboflow, CVAT and Label Studio, and a JSON
file for each split beside its images. Nothing is written, and no more than the names in a few folders and the
beginnings of a few files are read.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .annotations.foreign import YOLO, foreign_format
from .data_yaml import read_data_yaml
from .image_folders import (
    HEAD,
    SAMPLE,
    SPLIT_WORDS,
    Refusal,
    files_in,
    first_file_names,
    folders_in,
    image_folder,
    is_folder,
    read_bytes,
    split_of,
    split_word,
)

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
_ROBOFLOW = "_annotations.coco.json"
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_YOLO_NAMES = ("classes.txt", "obj.names")

_USELESS = ("captions", "panoptic")
_SECOND = ("person_keypoints", "stuff", "image_info")
"""COCO's files beside its instances: the first have no boxes, the second count where no other is there."""

_GENERIC = {*itertools.chain(*SPLIT_WORDS.values()), *_ANNOTATION_FOLDERS, "images"}
_GENERIC_FILES = {"instances", "default", "coco", "data", "dataset", "result", "results", *_GENERIC}
"""Words that are no name of a dataset."""


class Split(NamedTuple):
    """A COCO file, and the folder that its file names are relative to; both absolute."""

    annotations: Path
    images: Path


class FoundData(NamedTuple):
    """What a path holds.

    Attributes:
        name: of the dataset, of letters, digits, "_" and "-" alone.
        form: what it was taken for, as a phrase for the user.
        splits: by "train", "val" and "test"; of a single file, "train" alone.
        classes: a data.yaml's own names in their order; None elsewhere.
    """

    name: str
    form: str
    splits: dict[str, Split]
    classes: list[str] | None


def find_splits(path: str | os.PathLike) -> FoundData:
    """Find the annotations and images of a dataset.

    Args:
        path: a folder, a COCO file, or a data.yaml with Ultralytics' keys path, train, val, test and names,
            whose splits are COCO files or folders that hold one.

    Raises:
        InputError: nothing is there or cannot be read; no COCO file is found, or several for one split; it is
            another tool's; or the images are nowhere near their annotations.
    """
    found = Path(os.path.abspath(os.path.expanduser(path)))
    if is_folder(found):
        return _in_folder(found)
    if found.suffix.lower() in (".yaml", ".yml"):
        return _in_yaml(found)
    word = split_of(found.stem) or "train"
    split = _as_split(found, first_file_names(found), word)
    return FoundData(_dataset_name(found), "a single COCO file", {word: split}, None)


def _as_split(path: Path, names: list[str] | Refusal, split: str) -> Split:
    if isinstance(names, Refusal):
        raise InputError(f"{path} {names.reason}")
    return Split(path, image_folder(path, names, split))


def _dataset_name(path: Path) -> str:
    """The first name from the path upwards that says more than a split or a kind of file."""
    names = [parent.name for parent in path.parents]
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        words = re.findall(r"[^\W\d_]+", path.stem.lower())
        names[:0] = [] if _GENERIC_FILES.issuperset(words) else [path.stem]
    else:
        names.insert(0, path.name)
    telling = (name for name in names if name.lower().rstrip("0123456789") not in {*_GENERIC, ""})
    return re.sub(r"[^A-Za-z0-9_-]+", "-", next(telling, "")).strip("-_")[:60] or "data"


def _in_folder(root: Path) -> FoundData:
    inside = folders_in(root)
    places = [root, *(one for one in inside if one.name.lower() in _ANNOTATION_FOLDERS)]
    of_split = [
        one for one in inside if split_of(one.name) and split_word(one.name) == one.name.lower()
    ]
    files: dict[str | None, list[Path]] = {split: [] for split in (*SPLIT_WORDS, None)}
    for path in _instances([path for place in places for path in _json_files(place)]):
        files[split_of(path.stem)].append(path)
    for folder in of_split:
        files[split_of(folder.name)] += _json_files(folder)
    splits: dict[str, Split] = {}
    refused: list[tuple[Path, Refusal]] = []
    for split, paths in files.items():
        if split is None and splits:
            break  # what else lies there, such as a list of the classes
        good, bad = _sorted_out(paths, split)
        if not good:
            _refuse_lost(bad, split)
        refused += bad
        for path, names in good.items():
            splits[split or "train"] = _as_split(path, names, split or "train")
    if splits:
        paths = [split.annotations for split in splits.values()]
        return FoundData(_dataset_name(root), _form(root, paths), splits, None)
    for path in files_in(root, _YAML):
        return _in_yaml(path)
    raise InputError(_why_nothing(root, [*places, *of_split], refused))


def _json_files(folder: Path) -> list[Path]:
    """JSON files of a folder, by name; Roboflow's alone where it is there."""
    found = files_in(folder, (".json",))
    return [path for path in found if path.name.lower() == _ROBOFLOW] or found


def _instances(paths: Sequence[Path]) -> list[Path]:
    useful = [path for path in paths if not path.name.lower().startswith(_USELESS)]
    return [path for path in useful if not path.name.lower().startswith(_SECOND)] or useful


def _sorted_out(
    paths: Sequence[Path], split: str | None
) -> tuple[dict[Path, list[str]], list[tuple[Path, Refusal]]]:
    """The one COCO file among the first of some files, with its file names, and why the others are none.

    Raises:
        InputError: there are several.
    """
    looked = {path: first_file_names(path) for path in paths[:SAMPLE]}
    good = {path: names for path, names in looked.items() if not isinstance(names, Refusal)}
    if len(good) > 1:
        first, second, *more = good
        others = f" and {len(more)} more" if more else ""
        raise InputError(
            f"{first} and {second}{others} may all be the annotations{f' of {split}' if split else ''}; give "
            "one file, or a data.yaml whose train and val name the files to use"
        )
    return good, [(path, it) for path, it in looked.items() if isinstance(it, Refusal)]


def _refuse_lost(bad: Sequence[tuple[Path, Refusal]], split: str | None) -> None:
    """Refuse to go on without a split whose file is there and cannot be used."""
    for path, refusal in bad:
        is_named = split_of(path.stem) is not None or path.name.lower() == _ROBOFLOW
        if split and is_named and refusal.is_told:
            raise InputError(f"{path} {refusal.reason}")


def _form(root: Path, paths: Sequence[Path]) -> str:
    if all(path.name.lower() == _ROBOFLOW for path in paths):
        return f"Roboflow's COCO export: {', '.join(path.parent.name for path in paths)}"
    words = ", ".join(split_word(path.name) or path.name for path in paths)
    if all(path.parent.name.lower() == "annotations" for path in paths):
        return f"COCO's layout, with a folder of annotations: {words}"
    return f"COCO files in {root.name or root}: {words}"


def _why_nothing(
    root: Path, places: Sequence[Path], refused: Sequence[tuple[Path, Refusal]]
) -> str:
    for path, refusal in refused:
        if refusal.is_told:
            return f"{path} {refusal.reason}"
    for path in _other_files(places):
        is_yolo = path.name.lower() in _YOLO_NAMES
        phrase = YOLO if is_yolo else foreign_format(read_bytes(path, HEAD))
        if phrase:
            return f"{path} {phrase}"
    return (
        f"{root} has no COCO annotations: no JSON file there, in annotations/ or in train/, val/ or test/ "
        "lists images; give the COCO file itself, or a data.yaml that names it"
    )


def _other_files(places: Sequence[Path]) -> Iterator[Path]:
    """A few files that are neither images nor JSON, of the folders and of YOLO's inside them."""
    inside = [one for place in places for one in folders_in(place) if one not in places]
    yolo = [one for one in inside if "labels" in (one.name.lower(), one.parent.name.lower())]
    endings = (".xml", ".txt", ".names", ".csv", ".ndjson", ".jsonl", ".zip", ".gz", ".pkl")
    for place in [*places, *yolo[:SAMPLE]]:
        yield from files_in(place, endings)[:SAMPLE]


def _in_yaml(path: Path) -> FoundData:
    places, classes = read_data_yaml(path)
    splits = {}
    for split, place in places.items():
        try:
            splits[split] = _in_place(place, split)
        except InputError as error:
            raise InputError(f"{path}: {split}: {error}") from error
    return FoundData(_dataset_name(path), f"{path.name}: {', '.join(splits)}", splits, classes)


def _in_place(place: Path, split: str) -> Split:
    """The split that a COCO file, or the only one of a folder, holds."""
    if not is_folder(place):
        names = first_file_names(place)
        if isinstance(names, Refusal) and place.suffix.lower() == ".txt":
            # A list of images, which YOLO's labels belong to.
            raise InputError(f"{place} {YOLO}")
        return _as_split(place, names, split)
    good, bad = _sorted_out(_json_files(place), split)
    for path, names in good.items():
        return _as_split(path, names, split)
    if _has_yolo(place):
        raise InputError(f"{place} {YOLO}")
    for path, refusal in bad:
        if refusal.is_told:
            raise InputError(f"{path} {refusal.reason}")
    raise InputError(f"{place} holds no COCO file; name the JSON file itself")


def _has_yolo(images: Path) -> bool:
    """Whether YOLO's labels belong to a folder of images: beside them, or where images is labels."""
    parts = ["labels" if part == "images" else part for part in images.parts]
    places = {images, images / "labels", images.parent / "labels", Path(*parts)}
    return any(files_in(place, (".txt",)) for place in places if os.path.isdir(place))
