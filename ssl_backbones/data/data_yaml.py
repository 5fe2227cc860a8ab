"""A data.yaml with Ultralytics' keys path, train, val, test, names and kpt_shape."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import InputError
from .image_folders import SPLIT_WORDS, read_bytes


class DataYaml(NamedTuple):
    """What the file says.

    Attributes:
        file: itself.
        places: where each split is, absolute.
        classes: their names in order; None without any.
        keypoints: how many an object has, and 2 or 3 numbers of each: x, y and its visibility; None without.
    """

    file: Path
    places: dict[str, Path]
    classes: list[str] | None
    keypoints: tuple[int, int] | None


def read_data_yaml(path: Path) -> DataYaml:
    """Read where the splits are, without looking there.

    Args:
        path: absolute; its folder is what the file's own paths are relative to.

    Raises:
        InputError: it cannot be read, is not YAML, names no split, a split with several paths, classes that
            are no text or not as many as it says, or another kpt_shape.
    """
    content = _content(path)
    below = path.parent / _text(content.get("path") or ".", "path", path)
    places = {
        split: _place(below, _text(content[split], split, path), path)
        for split in SPLIT_WORDS
        if content.get(split) is not None
    }
    if not places:
        raise InputError(
            f"{path} has no train, val or test; give the paths of images or COCO files"
        )
    classes = _classes(content.get("names"), content.get("nc"), path)
    return DataYaml(path, places, classes, _keypoints(content.get("kpt_shape"), path))


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_bytes(path).decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML: {reason}; correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} has no keys train, val and names; write them as Ultralytics does")
    return content


def _text(value: Any, key: str, path: Path) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or "\0" in value:
        raise InputError(f"{path}: {key} is {value!r}, and one path is needed; correct it")
    return value.replace("\\", "/")


def _place(below: Path, text: str, path: Path) -> Path:
    """A split's path; one that leads out of the folder is taken inside it where that is there.

    Roboflow writes ../train/images for train/images, and Ultralytics reads it so where only the latter is
    there.

    Raises:
        InputError: both are there.
    """
    place = Path(os.path.normpath(below / text))
    inside = Path(os.path.normpath(below / text.removeprefix("../")))
    if place != inside and os.path.exists(place) and os.path.exists(inside):
        raise InputError(
            f"{path}: {text} may be {place} or {inside}; write the whole path of the one that is meant"
        )
    return inside if os.path.exists(inside) else place


def _classes(names: Any, number: Any, path: Path) -> list[str] | None:
    """The classes of a list, or of a mapping from 0, 1, ... to them."""
    if names is None:
        return None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: names is neither a list nor numbered from 0; correct it")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise InputError(
                f"{path}: class {index} of names is {name!r}; write its name in quotes"
            )
    if number is not None and number != len(names):
        raise InputError(
            f"{path}: nc is {number!r}, and names has {len(names)}; correct one of them"
        )
    return names


def _keypoints(shape: Any, path: Path) -> tuple[int, int] | None:
    if shape is None:
        return None
    if type(shape) is list and list(map(type, shape)) == [int, int]:
        count, length = shape
        if count > 0 and length in (2, 3):
            return count, length
    raise InputError(
        f"{path}: kpt_shape is {shape!r}; give how many key points, and 2 or 3 numbers"
    )
