"""Annotations that would end a run hours later, or train it on something else, found before it starts."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from ...fast.annotations.coco_json import KNOWN_FAULTY, collector_paused, parse_json
from ...fast.annotations.packed_cache import AnnotationCache
from ...hashing import fingerprint_of
from .voc import check_voc, voc_files

_CHECKS = 4
"""To be raised with any further check: what passed the checks of this number is not read again."""


def check_annotations(name: str, *, evaluated: bool = False) -> None:
    """Refuse a registered dataset in COCO's or VOC's format whose annotations contradict themselves.

    The files themselves are read, since Detectron2 silently merges images that share an id. Annotations of
    images that are not in a COCO file are ignored, as Detectron2 does with a warning. A dataset of another
    kind passes: Detectron2 itself checks the categories of any when it loads it.

    Args:
        evaluated: whether it is tested on, for which VOC's XML must hold more; one without annotations may
            be, with no result.

    Raises:
        InputError: a file is not COCO's JSON; an id stands there twice; an annotation's category does not
            exist, its box is not four finite numbers, its mask is not of its image's size, or it has
            another number of key points than the dataset's classes; the categories are not those that the
            dataset is registered with; it has no images, no annotations of them, or none with a key point
            where it is registered with some; an image file is missing from the folder that it is registered
            with, if that is there. Of VOC: as `check_voc`.
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
    # LVIS's images are found by their addresses in it, whatever else it calls them.
    is_lvis = metadata.get("evaluator_type") == "lvis"
    root = None if is_lvis else _image_folder(metadata.get("image_root"))
    cache = AnnotationCache()
    try:
        # The folder's time of change tells whether an image was taken out since.
        folder = None if root is None else [root, os.stat(root).st_mtime_ns]
        facts = [classes and list(classes), points and list(points), evaluated, folder]
        if cache.is_checked(_key(cache.sha256(path), facts), _CHECKS):
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
        _refuse_nothing(content, points, where, evaluated)
        is_flat = root is None or _check_image_files(content, root, where)
    # Under such a name it passes with faults that are refused under another one.
    if KNOWN_FAULTY not in where and is_flat:
        # Of the bytes that were looked at: the file may have changed since.
        cache.set_checked(_key(hashlib.sha256(data).hexdigest(), facts), _CHECKS)


def _key(sha256: str, facts: list[Any]) -> str:
    """SHA-256 of a file's content and of what the dataset is registered with."""
    return fingerprint_of([sha256, *facts])


def _image_folder(root: str | os.PathLike | None) -> str | None:
    """None where there is no such folder: who needs the images says so."""
    if root is None:
        return None
    folder = os.path.realpath(PathManager.get_local_path(str(root)))
    return folder if os.path.isdir(folder) else None


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
    # Detectron2 registers LVIS with each category's first synonym, which is not the name of all.
    synonyms = [(category.get("synonyms") or [None])[0] for category in categories]
    if classes and list(classes) not in (names, synonyms):
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


def _refuse_nothing(
    content: Any, points: Sequence[str] | None, where: str, evaluated: bool
) -> None:
    """Refuse a file with nothing to train on or to find in it."""
    known = {image["id"] for image in content["images"]}
    if not known:
        raise InputError(f"{where}: has no images; give a file that lists some")
    if evaluated and "annotations" not in content:
        return
    annotations = [one for one in content.get("annotations", ()) if one["image_id"] in known]
    if not annotations:
        raise InputError(
            f"{where}: has no annotations of its {len(known)} images; give a file that has some"
        )
    if points and not any(any((one.get("keypoints") or ())[2::3]) for one in annotations):
        raise InputError(
            f"{where}: is registered with {len(points)} key points, and no annotation has one that is "
            "labelled; give the file with key points, or register it without them"
        )


def _check_image_files(content: Any, root: str, where: str) -> bool:
    """Refuse a file that names images which are not in the folder.

    Returns:
        Whether all are in the folder itself, not in others inside it.
    """
    names = [os.path.normpath(one["file_name"]) for one in content["images"] if "file_name" in one]
    present = {
        folder: _files(os.path.join(root, folder)) for folder in set(map(os.path.dirname, names))
    }
    missing = [
        name for name in names if os.path.basename(name) not in present[os.path.dirname(name)]
    ]
    if missing:
        raise InputError(
            f"{where}: the image {os.path.join(root, missing[0])} is not there ({len(missing)} of "
            f"{len(names)} are missing); get it, or take it out of the file"
        )
    return set(present) <= {""}


def _files(folder: str) -> set[str]:
    """Names of what is in a folder; none of one that is not there."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


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
    """Refuse a run-length mask that does not fit its image.

    One of another size fails in Detectron2's mapper; over one whose runs do not fill the image, pycocotools
    may loop for ever.
    """
    if not isinstance(mask, dict):
        return
    if mask.get("size") != size:
        raise InputError(
            f"{what} has a mask of height and width {mask.get('size')}, its image {size}; correct it"
        )
    counts, pixels = mask.get("counts"), size[0] * size[1]
    if isinstance(counts, list) and (min(counts, default=0) < 0 or sum(counts) != pixels):
        raise InputError(
            f"{what} has a mask whose runs do not add up to the {pixels} pixels of its image; correct it"
        )
