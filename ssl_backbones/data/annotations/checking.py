"""Annotations that would end a run hours later, or train it on something else, found before it starts."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from .cache import AnnotationCache
from .coco_json import KNOWN_FAULTY, collector_paused, parse_json

_CHECKS = 1
"""To be raised with any further check: what passed the checks of this number is not read again."""


def check_annotations(name: str) -> None:
    """Refuse a registered dataset in COCO's format whose JSON contradicts itself.

    The file itself is read, since Detectron2 silently merges images that share an id. Annotations of images
    that are not in the file are ignored, as Detectron2 does with a warning. A dataset of another kind passes:
    Detectron2 itself checks the categories of any when it loads it.

    Raises:
        InputError: the file is not COCO's JSON; an id stands there twice; an annotation's category does not
            exist, its box is not four finite numbers, or its mask is not of its image's size.
    """
    path = MetadataCatalog.get(name).get("json_file")
    if path is None:
        return
    where = f"dataset {name!r} ({path})"
    path = PathManager.get_local_path(path)
    cache = AnnotationCache()
    try:
        if cache.is_checked(cache.sha256(path), _CHECKS):
            return
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    with collector_paused():
        try:
            content = parse_json(data)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON: {error}") from error
        _check_coco(content, where)
    # Under such a name it passes with faults that are refused under another one.
    if KNOWN_FAULTY not in where:
        # Of the bytes that were looked at: the file may have changed since.
        cache.set_checked(hashlib.sha256(data).hexdigest(), _CHECKS)


def _check_coco(content: Any, where: str) -> None:
    try:
        images = [image["id"] for image in content["images"]]
        sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
        annotations = [a for a in content.get("annotations", ()) if a["image_id"] in sizes]
        ids = [annotation["id"] for annotation in annotations]
        categories = [category["id"] for category in content["categories"]]
        used = [annotation["category_id"] for annotation in annotations]
        boxes = [annotation["bbox"] for annotation in annotations]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: is not in COCO's format ({type(error).__name__}: {error}); see "
            "https://cocodataset.org/#format-data"
        ) from error
    _refuse_twice(images, f"{where}: image id")
    _refuse_twice(categories, f"{where}: category id")
    if KNOWN_FAULTY not in where:
        _refuse_twice(ids, f"{where}: annotation id")
    _refuse_unknown_categories(dict(zip(ids, used, strict=True)), categories, where)
    for id_, box, annotation in zip(ids, boxes, annotations, strict=True):
        _refuse_box(box, f"{where}: annotation {id_}")
        size = sizes[annotation["image_id"]]
        _refuse_mask(annotation.get("segmentation"), size, f"{where}: annotation {id_}")


def _refuse_twice(ids: Iterable[Any], what: str) -> None:
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise InputError(f"{what} {twice[0]}{more} stands there twice; give each its own")


def _refuse_unknown_categories(used: Mapping[Any, Any], known: Iterable[Any], where: str) -> None:
    known = set(known)
    wrong = [(id_, category) for id_, category in used.items() if category not in known]
    if wrong:
        id_, category = wrong[0]
        raise InputError(
            f"{where}: annotation {id_} has category_id {category}, which is not among the categories "
            f"({len(wrong)} such annotations); correct it, or add the category"
        )


def _refuse_box(box: Any, what: str) -> None:
    numbers = isinstance(box, list) and all(isinstance(x, int | float) for x in box)
    if not numbers or len(box) != 4 or not all(map(math.isfinite, box)):
        raise InputError(f"{what} has the box {box}, which is not x, y, width, height; correct it")


def _refuse_mask(mask: Any, size: list[int], what: str) -> None:
    """Refuse a run-length mask of another size than its image, at which Detectron2's mapper would fail."""
    if isinstance(mask, dict) and mask.get("size") != size:
        raise InputError(
            f"{what} has a mask of height and width {mask.get('size')}, its image {size}; correct it"
        )
