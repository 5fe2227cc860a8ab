"""Annotations that would end a run hours later, or train it on something else, found before it starts."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from .cache import AnnotationCache
from .coco_json import KNOWN_FAULTY, collector_paused, parse_json
from .voc import check_voc, voc_files

_CHECKS = 2
"""To be raised with any further check: what passed the checks of this number is not read again."""


def check_annotations(name: str, *, evaluated: bool = False) -> None:
    """Refuse a registered dataset in COCO's or VOC's format whose annotations contradict themselves.

    The files themselves are read, since Detectron2 silently merges images that share an id. Annotations of
    images that are not in a COCO file are ignored, as Detectron2 does with a warning. A dataset of another
    kind passes: Detectron2 itself checks the categories of any when it loads it.

    Args:
        evaluated: whether it is tested on, for which VOC's XML must hold more.

    Raises:
        InputError: a file is not COCO's JSON; an id stands there twice; an annotation's category does not
            exist, its box is not four finite numbers, its mask is not of its image's size, or it has
            another number of key points than the dataset's classes; the categories are not those that the
            dataset is registered with. Of VOC: as `check_voc`.
    """
    voc = voc_files(name)
    if voc is not None:
        return check_voc(name, voc, evaluated=evaluated)
    metadata = MetadataCatalog.get(name)
    path = metadata.get("json_file")
    if path is None:
        return None
    where = f"dataset {name!r} ({path})"
    path = PathManager.get_local_path(path)
    classes, points = metadata.get("thing_classes"), metadata.get("keypoint_names")
    cache = AnnotationCache()
    try:
        if cache.is_checked(_key(cache.sha256(path), classes, points), _CHECKS):
            return None
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    with collector_paused():
        try:
            content = parse_json(data)
        except ValueError as error:
            raise InputError(f"{where}: is not JSON: {error}") from error
        check_content(content, where)
        _check_registration(content, classes, points, where)
    # Under such a name it passes with faults that are refused under another one.
    if KNOWN_FAULTY not in where:
        # Of the bytes that were looked at: the file may have changed since.
        cache.set_checked(_key(hashlib.sha256(data).hexdigest(), classes, points), _CHECKS)


def _key(sha256: str, classes: Sequence[str] | None, points: Sequence[str] | None) -> str:
    """SHA-256 of a file's content and of what the dataset is registered with."""
    facts = [sha256, *(None if names is None else list(names) for names in (classes, points))]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def check_content(content: Any, where: str) -> None:
    """Refuse what `check_annotations` refuses, in a file's content.

    Args:
        where: what the content is of, as the first words of a message.

    Raises:
        InputError: as `check_annotations`.
    """
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


def _check_registration(
    content: Any, classes: Sequence[str] | None, points: Sequence[str] | None, where: str
) -> None:
    """Refuse other categories, or key points, than the dataset is registered with: Detectron2 would fail."""
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = [category.get("name") for category in categories]
    if classes and names != list(classes):
        pairs = zip([*names, None], [*classes, None], strict=False)
        theirs, ours = next(pair for pair in pairs if pair[0] != pair[1])
        raise InputError(
            f"{where}: has {len(names)} categories and is registered with {len(classes)} classes; the first "
            f"that differs is {theirs!r} in the file and {ours!r} in the registration; correct the file, or "
            "register it under another name"
        )
    for annotation in content.get("annotations", ()) if points else ():
        values = annotation.get("keypoints")
        if values is not None and len(values) != 3 * len(points):
            raise InputError(
                f"{where}: annotation {annotation['id']} has {len(values)} numbers for key points, and "
                f"{len(points)} of x, y and visibility are {3 * len(points)}; correct it"
            )


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
