"""Annotations that would end a run hours later, or train it on something else, found before it starts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from ...fast.annotations.coco_json import KNOWN_FAULTY, collector_paused
from ...fast.annotations.packed_cache import AnnotationCache
from ...fast.annotations.packed_dataset import is_registered_by
from ...hashing import fingerprint_of
from ..images import format_fault, image_faults, pages_note
from .examining import examine
from .reading import categories_of, read_coco
from .voc import check_voc, voc_files

_CHECKS = 6
"""To be raised with any further check: what passed the checks of this number is not read again."""


@dataclass(frozen=True)
class Verdict:
    """What is known of an annotation file that passed, as it is remembered.

    Attributes:
        path: what to read: the file itself, or its copy in the cache folder, which says the same in COCO's
            own form.
        sha256: of that.
        categories: `id` and `name` of each, by ascending id, which is how Detectron2 numbers them.
        counts: as `examining.Counts` has them.
        changes: how the file is read where its form is not COCO's own, a sentence each.
        warnings: what is odd in it, a sentence each.
    """

    path: str
    sha256: str
    categories: list[dict[str, Any]]
    counts: dict[str, Any]
    changes: list[str]
    warnings: list[str]

    @property
    def names(self) -> list[str]:
        return [category["name"] for category in self.categories]


def check_annotations(
    name: str, *, evaluated: bool = False, masks: bool | None = None
) -> Verdict | None:
    """Refuse a registered dataset in COCO's or VOC's format whose annotations contradict themselves.

    The files themselves are read, since Detectron2 silently merges images that share an id. Annotations of
    images that are not in a COCO file are ignored, as Detectron2 does with a warning. A dataset of another
    kind passes: Detectron2 itself checks the categories of any when it loads it.

    Args:
        evaluated: whether it is tested on, for which VOC's XML must hold more, and images must be readable;
            one without annotations may be, with no result.
        masks: whether a model learns masks from it.

    Returns:
        What is known of a COCO file; None of a dataset of another kind.

    Raises:
        InputError: the first thing found wrong in it: as `read_coco` and `examine` say, or other categories
            or key points than it is registered with, or images that are not there. Of VOC: as `check_voc`.
    """
    voc = voc_files(name)
    if voc is not None:
        return check_voc(name, voc, evaluated=evaluated)
    metadata = MetadataCatalog.get(name)
    path = metadata.get("json_file")
    if path is None:
        return None
    return verdict_of(
        path,
        # LVIS's images are found by their addresses in it, whatever else it calls them.
        None if metadata.get("evaluator_type") == "lvis" else metadata.get("image_root"),
        f"dataset {name!r} ({metadata.get('origin', metadata.get('source_file', path))})",
        evaluated=evaluated,
        masks=masks,
        # What is registered here has the classes of its file, or is meant to have others.
        classes=None if metadata.get("source_file") else metadata.get("thing_classes"),
        points=metadata.get("keypoint_names"),
        # Another reader has its own file and its own format.
        copied=is_registered_by(register_coco_instances, name),
    )


def verdict_of(
    path: str | os.PathLike,
    image_root: str | os.PathLike | None,
    where: str,
    *,
    evaluated: bool = False,
    masks: bool | None = None,
    classes: Sequence[str] | None = None,
    points: Sequence[str] | None = None,
    copied: bool = True,
) -> Verdict:
    """What `check_annotations` says of a COCO file by its path; remembered by the file's content.

    Args:
        image_root: the folder of the images; None not to look for them.
        where: what the file is, as the first words of a message.
        copied: whether a file of another form is copied in COCO's own form, to be read instead.
        classes, points: the class and key point names that it is registered with.

    Raises:
        InputError: the first thing found wrong.
    """
    path = PathManager.get_local_path(os.fspath(path))
    root = _image_folder(image_root)
    cache = AnnotationCache()
    facts = [classes and list(classes), points and list(points), evaluated, masks, root]
    try:
        known = _remembered(cache, path, _key(cache.sha256(path), facts))
        if known is not None:
            return known
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{where}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    with collector_paused():
        content, changes = read_coco(data, where, root)
        found = examine(content, where, evaluated=evaluated, masks=masks)
        if found.problems:
            raise InputError(found.problems[0])
        _check_registration(content, classes, points, where)
        if points:
            _refuse_no_points(content, points, where)
        folders = [] if root is None else _check_image_files(content, root, where)
        if evaluated and root is not None:
            for image, reason in image_faults(content["images"], root):
                raise InputError(f"{where}: {format_fault(image, reason)}")
        changes = changes if copied else []
        if changes:
            text = json.dumps(content)
        warnings = list(found.warnings)
        if root is not None:
            names = [image["file_name"] for image in content["images"] if "file_name" in image]
            note = pages_note(os.path.join(root, name) for name in names)
            warnings += [note] if note else []
    copy = cache.keep_copy(sha256, _CHECKS, text) if changes else None
    verdict = Verdict(
        os.fspath(copy or path),
        cache.sha256(copy) if copy else sha256,
        [{"id": one["id"], "name": one["name"]} for one in categories_of(content)],
        found.counts._asdict(),
        changes,
        warnings,
    )
    # Under such a name it passes with faults that are refused under another one.
    if KNOWN_FAULTY not in where:
        # Of the bytes that were looked at: the file may have changed since.
        files = _state_of_files(folder for folder, _ in folders) if evaluated else None
        text = json.dumps({"verdict": asdict(verdict), "folders": folders, "files": files})
        cache.set_checked(_key(sha256, facts), _CHECKS, text)
    return verdict


def _remembered(cache: AnnotationCache, path: str, key: str) -> Verdict | None:
    """The verdict of a file with this key, if its images and what it says to read are still there."""
    try:
        remembered = json.loads(cache.checked(key, _CHECKS))
        known = Verdict(**remembered["verdict"])
        # A folder's time of change tells whether an image was taken out since.
        folders = remembered["folders"]
        if any(os.stat(folder).st_mtime_ns != changed for folder, changed in folders):
            return None
        # The files of a test set were looked at themselves.
        if remembered["files"] not in (None, _state_of_files(folder for folder, _ in folders)):
            return None
        if known.changes:
            return known if cache.sha256(known.path) == known.sha256 else None
        return replace(known, path=path)
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _state_of_files(folders: Iterable[str]) -> str:
    """SHA-256 of names, sizes and times of all files in some folders."""
    states = []
    for folder in folders:
        with os.scandir(folder) as entries:
            found = ((entry.name, entry.stat()) for entry in entries)
            states.append(sorted((name, one.st_size, one.st_mtime_ns) for name, one in found))
    return fingerprint_of(states)


def _key(sha256: str, facts: list[Any]) -> str:
    """SHA-256 of a file's content and of what the dataset is registered with."""
    return fingerprint_of([sha256, *facts])


def _image_folder(root: str | os.PathLike | None) -> str | None:
    """None where there is no such folder: who needs the images says so."""
    if root is None:
        return None
    folder = os.path.realpath(PathManager.get_local_path(str(root)))
    return folder if os.path.isdir(folder) else None


def _check_registration(
    content: Any, classes: Sequence[str] | None, points: Sequence[str] | None, where: str
) -> None:
    """Refuse other categories, or key points, than the dataset is registered with: Detectron2 would fail."""
    categories = categories_of(content)
    names = [category["name"] for category in categories]
    # Detectron2 registers LVIS with each category's first synonym, which is not the name of all.
    synonyms = [(category.get("synonyms") or [None])[0] for category in categories]
    if classes and list(classes) not in (names, synonyms):
        _, theirs, ours = first_unlike(names, classes)
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


def first_unlike(one: Sequence[str], other: Sequence[str]) -> tuple[int, str | None, str | None]:
    """Where two unlike lists of names differ first, and what each has there; None past its end."""
    pairs = zip([*one, None], [*other, None], strict=False)
    return next((n, *pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])


def _refuse_no_points(content: Any, points: Sequence[str], where: str) -> None:
    known = {image["id"] for image in content["images"]}
    annotations = [one for one in content.get("annotations", ()) if one["image_id"] in known]
    if annotations and not any(any((one.get("keypoints") or ())[2::3]) for one in annotations):
        raise InputError(
            f"{where}: is registered with {len(points)} key points, and no annotation has one that is "
            "labelled; give the file with key points, or register it without them"
        )


def _check_image_files(content: Any, root: str, where: str) -> list[tuple[str, int]]:
    """Refuse a file that names images which are not in the folder.

    Returns:
        The folders that they are in, and when each changed last.
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
    folders = [os.path.join(root, folder) for folder in sorted(present)]
    return [(folder, os.stat(folder).st_mtime_ns) for folder in folders]


def _files(folder: str) -> set[str]:
    """Names of what is in a folder; none of one that is not there."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error
