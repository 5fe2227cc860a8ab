"""YOLO's labels: for each image a text file with a row of numbers for each object.

A row is "class x y width height", the box's centre and size as shares of the upright image, or a polygon,
"class x1 y1 x2 y2 x3 y3 ...". Where labels lie and how far a share may leave 0 to 1 is as in Ultralytics
(`img2label_paths` and `verify_image_label`, ultralytics/data/utils.py).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from ...errors import InputError
from ..annotations.fields import UnsureError, number_of, quote, whole_number_of
from ..annotations.foreign import is_yolo
from ..data_yaml import DataYaml
from ..image_folders import (
    HEAD,
    SAMPLE,
    files_in,
    folders_in,
    lines_of,
    read_bytes,
    split_named,
    split_of,
)
from ..images import IMAGE_SUFFIXES, upright_size
from .labelled import ALL, LabelledData, LabelledImage, LabelledObject, in_order

_NAMES = ("classes.txt", ".names", "_darknet.labels")  # the last is Roboflow's
_MOST_CLASSES = 10_000  # of data without names, where a slip would make as many
_ROW = "write class x y width height, or class x1 y1 x2 y2 x3 y3 ..., as shares of the image"


def find_yolo(root: Path, yaml: DataYaml | None = None) -> LabelledData | None:
    """Find images with YOLO's labels; None where nothing in the labels is a row of YOLO's.

    Args:
        root: the folder of the data; absolute.
        yaml: what its data.yaml says; None to know the splits by the names of folders.

    Raises:
        InputError: something cannot be read, a split has no image, a label's image is not there, or the names
            of classes contradict each other.
    """
    for places in _layouts(root, yaml):
        splits = {
            split: sorted(dict.fromkeys(chain(*map(_images, of)))) for split, of in places.items()
        }
        labels, others = _labels(chain(*splits.values()))
        if any(map(_is_label, labels.values())):
            break
    else:
        return None
    empty = [split for split, images in splits.items() if not images]
    for split in empty:
        if split != "test":
            where = f"{yaml.file}: {split} ({yaml.places[split]})" if yaml else f"{root}: {split}"
            raise InputError(f"{where} is not there or has no image; correct the path or fill it")
    # Roboflow's data.yaml names a test, there or not.
    notes = ["test is not there or has no image, and is left out"] if empty else []
    lost = [path for path in others if _is_label(path) is not False]
    if lost:
        raise InputError(
            f"{lost[0]} is the label of an image that is not there ({len(lost):,} such files); bring the "
            "images, or take these labels away"
        )
    image_of = {label: image for image, label in labels.items()}
    for image, label in labels.items():
        if image_of[label] != image:
            raise InputError(f"{label} is of {image} and {image_of[label]}; give each its own name")
    if yaml and yaml.classes:
        listed = {yaml.file: yaml.classes}
    else:
        listed = _lists_of_names(
            [root, root / "labels", *(path.parent for path in labels.values())]
        )
    names = _agreed(listed)
    if not names:
        notes.append("there is no classes.txt or other list of names: classes are called by number")
    lists = [place for place in chain(*places.values()) if place.suffix.lower() == ".txt"]
    return LabelledData(
        kind=f"{yaml.file.name}, YOLO" if yaml else "YOLO",
        splits=in_order(splits),
        files=[*labels.values(), *lists, *listed, *([yaml.file] if yaml else [])],
        classes=names or _up_to_largest,
        read=partial(_read, root, labels, names, yaml and yaml.keypoints),
        notes=notes,
    )


def _layouts(root: Path, yaml: DataYaml | None) -> list[dict[str, list[Path]]]:
    """Folders, lists and images by split, as they may be meant: the most telling first."""
    if yaml:
        return [{split: [place] for split, place in yaml.places.items()}]
    inside = folders_in(root)
    images = [folder for folder in inside if folder.name.lower() == "images"]
    within = [one for folder in images for one in folders_in(folder)]
    lists = files_in(root, (".txt",))
    by_split = [_by_split(lists), _by_split(within, split_of), _by_split(inside)]
    return [*by_split, {ALL: images}, {ALL: files_in(root, IMAGE_SUFFIXES)}]


def _by_split(
    places: Iterable[Path], told: Callable[[str], str | None] = split_named
) -> dict[str, list[Path]]:
    """Those whose name tells a split: train2017, valid.txt and CVAT's obj_train_data.

    Raises:
        InputError: several tell the same.
    """
    found = defaultdict(list)
    for place in places:
        split = told(place.stem.removeprefix("obj_").removesuffix("_data"))
        if split:
            found[split].append(place)
    if "val" in found:
        # Both together, which are there by themselves as well.
        both = [place for place in found["train"] if place.stem.lower() == "trainval"]
        found["train"] = [place for place in found["train"] if place not in both] or both
    for split, of_split in found.items():
        if len(of_split) > 1:
            raise InputError(
                f"{of_split[0]} and {of_split[1]} may both be {split}; leave one there, or name it in a "
                "data.yaml"
            )
    return in_order(found)


def _images(place: Path) -> list[Path]:
    """The image that this is, those that a list names, or those in a folder, its images/ and inside."""
    found, seen = [], set()
    if os.path.isfile(place):
        if place.suffix.lower() != ".txt":
            return [place] if place.suffix.lower() in IMAGE_SUFFIXES else []
        for name in filter(None, lines_of(place)):
            name = name.replace("\\", "/")
            # CVAT and darknet write data/ for the folder of the list.
            near = [place.parent / name, place.parent / name.removeprefix("data/")]
            found.append(Path(os.path.normpath(next(filter(os.path.isfile, near), near[0]))))
        return found
    folders = [place / "images" if os.path.isdir(place / "images") else place]
    for folder in folders if os.path.lexists(place) else ():
        if (real := os.path.realpath(folder)) not in seen:
            seen.add(real)  # a link may lead back
            found += files_in(folder, IMAGE_SUFFIXES)
            folders += [one for one in folders_in(folder) if one.name[0] != "."]
    return found


def _labels(images: Iterable[Path]) -> tuple[dict[Path, Path], list[Path]]:
    """The labels of those images that have any, and what else is there that is no image's."""
    of_folder = defaultdict(list)
    for image in images:
        of_folder[image.parent].append(image)
    labels, others = {}, []
    for folder in filter(os.path.isdir, of_folder):
        texts = {path.stem: path for path in files_in(_label_folder(folder), (".txt",))}
        labels |= {one: texts[one.stem] for one in of_folder[folder] if one.stem in texts}
        if texts.keys() - (there := {image.stem for image in of_folder[folder]}):
            # A list may leave images out, whose labels are not lost.
            there = {image.stem for image in files_in(folder, IMAGE_SUFFIXES)}
        others += [path for stem, path in texts.items() if stem not in there]
    return labels, others


def _label_folder(images: Path) -> Path:
    """The folder where the last part "images" of the path is "labels", if it is there; else itself."""
    at = max((at for at, part in enumerate(images.parts) if part.lower() == "images"), default=0)
    near = [Path(*images.parts[:at], one, *images.parts[at + 1 :]) for one in ("labels", "Labels")]
    return next(filter(os.path.isdir, near if at else ()), images)


def _is_label(path: Path) -> bool | None:
    """Whether a row of YOLO's is among the first lines; None of a file that holds nothing."""
    lines = read_bytes(path, HEAD).strip().splitlines()
    return any(map(is_yolo, lines[:SAMPLE])) if lines else None


def _lists_of_names(folders: Iterable[Path]) -> dict[Path, list[str]]:
    """The names, one a line, in classes.txt, obj.names and the like."""
    found = {}
    for folder in filter(os.path.isdir, dict.fromkeys(folders)):
        for path in files_in(folder, _NAMES):
            if path.name.lower() in _NAMES or path.suffix.lower() == ".names":
                found[path] = lines_of(path)
    return found


def _agreed(listed: Mapping[Path, list[str]]) -> list[str]:
    """The names that all lists have; none without a list."""
    first, names = next(iter(listed.items()), (None, []))
    for path, others in listed.items():
        if others != names:
            raise InputError(f"{first} and {path} have other names; keep the one that is right")
    for name in names:
        if names.count(name) > 1 or not name:
            raise InputError(
                f"{first}: the name {quote(name)} is empty or there twice; give each class its own"
            )
    return names


def _up_to_largest(names: Iterable[str]) -> list[str]:
    return [str(number) for number in range(max(map(int, names), default=-1) + 1)]


def _read(
    root: Path,
    labels: Mapping[Path, Path],
    names: Sequence[str],
    keypoints: tuple[int, int] | None,
    image: Path,
) -> LabelledImage:
    size = upright_size(image)
    label = labels.get(image)
    if label is None:
        return LabelledImage(image, *size, [], ["there is no label file: read as without objects"])
    objects, shown = [], os.path.relpath(label, root)
    for number, line in enumerate(lines_of(label), 1):
        try:
            if line:
                kind, shape = _object(line.split(), size, len(names), keypoints)
                name = names[kind] if names else str(kind)
                objects.append(LabelledObject(name, f"{shown} line {number}", **shape))
        except UnsureError as error:
            raise InputError(f"{label} line {number}: {error.reason}; {error.mend}") from error
    return LabelledImage(image, *size, objects)


def _object(
    words: Sequence[str], size: tuple[int, int], classes: int, keypoints: tuple[int, int] | None
) -> tuple[int, dict[str, list]]:
    """The class of a row, and its box, polygon or key points in pixels, as a `LabelledObject` has them."""
    numbers = [number_of(word) for word in words]
    if None in numbers:
        raise UnsureError(f"{quote(words[numbers.index(None)])} is not a finite number", _ROW)
    count = len(numbers)
    points, length = keypoints or (0, 0)
    if count == 6 and not keypoints:
        raise UnsureError("six numbers are a prediction, with a score", "give labels, without it")
    if keypoints:
        row = f"write a class, a box and {points} key points of {length} numbers by kpt_shape"
        fits = count == 5 + points * length
    else:
        row, fits = _ROW, count > 4 and count % 2 == 1
    if not fits:
        raise UnsureError(f"there are {count} numbers", row)
    kind = whole_number_of(numbers[0])
    if kind is None or not 0 <= kind < (classes or _MOST_CLASSES):
        known = f"the {classes} classes, 0 to {classes - 1}" if classes else "0, 1, 2, ..., a class"
        raise UnsureError(f"{quote(words[0])} is none of {known}", "correct it, or the names")
    shares = list(map(float, numbers[1:]))
    marks = shares[6::3] if length == 3 else []
    if marks:
        del shares[6::3]
    if not {0, 1, 2}.issuperset(marks):
        raise UnsureError("the visibility of a key point is not 0, 1 or 2", "correct it")
    outside = [share for share in shares if not -0.01 <= share <= 1.01]
    if outside:
        mend = "give shares of the image; of pixels, divide x by its width and y by its height"
        raise UnsureError(f"{outside[0]} is not from 0 to 1", mend)
    pixels = [share * size[at % 2] for at, share in enumerate(shares)]
    if count > 5 and not keypoints:
        return kind, {"segmentation": [pixels]}
    x, y, width, height = shares[:4]
    if min(width, height) <= 0:
        raise UnsureError("width or height is not above 0", "correct it, or take the row away")
    shape = {"bbox": [(x - width / 2) * size[0], (y - height / 2) * size[1], *pixels[2:4]]}
    if keypoints:
        xs, ys = pixels[4::2], pixels[5::2]
        marks = marks or [2 * any(point) for point in zip(xs, ys, strict=True)]
        of_points = zip(xs, ys, map(int, marks), strict=True)
        shape["keypoints"] = [*chain(*of_points)]
    return kind, shape
