"""Training and test sets that do not go together: images in both, or other classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from ...fast.annotations.coco_json import collector_paused, parse_json
from ...fast.annotations.packed_cache import AnnotationCache
from ...hashing import fingerprint_of
from .checking import first_unlike
from .voc import listed, voc_files

logger = logging.getLogger("detectron2")

_CHECKS = -1
"""Of pairs of datasets, apart from the numbers of `checking`; to be lowered with any further check."""


def check_splits(train: Sequence[str], test: Sequence[str]) -> None:
    """Refuse to train on images that are tested on, and to test other classes than are trained.

    One dataset in both roles is meant, and warned of.

    Datasets in COCO's and VOC's formats are looked into, which must have passed `check_annotations`; others
    pass.

    Raises:
        InputError: naming both datasets, and one of the images or classes.
    """
    for name in train:
        for other in test:
            _check_classes(name, other)
            if name == other:
                # As one does to see whether a detector can learn a few images by heart.
                logger.warning(
                    f"Dataset {name!r} is trained and tested on: AP says how well it was learnt"
                )
            else:
                _check_images(name, other)


def _check_classes(train: str, test: str) -> None:
    ours, theirs = (MetadataCatalog.get(name).get("thing_classes") for name in (train, test))
    if not ours or not theirs or list(ours) == list(theirs):
        return
    _, first, second = first_unlike(ours, theirs)
    raise InputError(
        f"dataset {train!r} has the class {first!r} where {test!r} has {second!r}: what is trained on one is "
        "not what is tested on the other; give two with the same classes in the same order"
    )


class _Images(NamedTuple):
    """Where the images of a dataset are: below `root`, as `source` (its JSON or list of images) says."""

    root: str
    source: Path
    is_voc: bool

    def paths(self) -> set[str]:
        if self.is_voc:
            names = [f"{id_}.jpg" for id_ in listed(self.source, str(self.source))]
        else:
            with collector_paused():
                content = parse_json(self.source.read_bytes())
                # LVIS gives addresses instead of names.
                names = [image["file_name"] for image in content["images"] if "file_name" in image]
        return {os.path.normpath(os.path.join(self.root, name)) for name in names}


def _images(name: str) -> _Images | None:
    voc = voc_files(name)
    if voc is not None:
        return _Images(os.path.realpath(voc.folder / "JPEGImages"), voc.list_file, True)
    metadata = MetadataCatalog.get(name)
    path, root = metadata.get("json_file"), metadata.get("image_root")
    if path is None or root is None:
        return None
    source = Path(PathManager.get_local_path(path))
    return _Images(os.path.realpath(PathManager.get_local_path(str(root))), source, False)


def _check_images(train: str, test: str) -> None:
    ours, theirs = _images(train), _images(test)
    if ours is None or theirs is None or not _nested(ours.root, theirs.root):
        return
    cache = AnnotationCache()
    try:
        facts = [[one.root, cache.sha256(str(one.source))] for one in (ours, theirs)]
        key = fingerprint_of(facts)
        if cache.is_checked(key, _CHECKS):
            return
        both = ours.paths() & theirs.paths()
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if both:
        raise InputError(
            f"datasets {train!r}, which is trained on, and {test!r}, which is tested on, share {len(both)} "
            f"images, such as {min(both)}; take them out of one of the two"
        )
    cache.set_checked(key, _CHECKS)


def _nested(one: str, other: str) -> bool:
    """Whether a folder is the other one, or inside it; others have no image in common."""
    return os.path.commonpath([one, other]) in (one, other)
