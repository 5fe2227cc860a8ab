"""From a folder, a COCO file or a data.yaml to each split's annotations and the folder of its images.

The layouts are Detectron2's and COCO's, those of the exports of Roboflow, CVAT and Label Studio, and a JSON
file for each split beside its images. Of these no more than the names in a few folders and the beginnings of
a few files are read. Labels in other formats, and data that is to be divided, become COCO files in the cache
folder; nothing is written elsewhere.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..fast.annotations.coco_json import collector_paused
from ..fast.annotations.packed_cache import AnnotationCache
from .annotations.foreign import LABELME, VOC, YOLO, foreign_format
from .annotations.reading import read_coco
from .data_yaml import read_data_yaml
from .derived import Derived, Made, derive
from .dividing import VAL_SHARE, absent_classes, divide
from .formats.labelled import ALL, LabelledData, as_coco
from .formats.labelme import find_labelme
from .formats.voc_xml import find_voc
from .formats.yolo import find_yolo
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
    split_named,
    split_of,
    split_word,
)
from .images import IMAGE_SUFFIXES

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
_ROBOFLOW = "_annotations.coco.json"
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_YOLO_NAMES = ("classes.txt", "obj.names")
_NO_ROW = (
    "is YOLO's, and no image here has a label with a row, class x y width height: put the images beside the "
    "labels, or in images/ beside labels/, and correct the rows"
)

_USELESS = ("captions", "panoptic")
_SECOND = ("person_keypoints", "stuff", "image_info")
"""COCO's files beside its instances: the first have no boxes, the second count where no other is there."""

_GENERIC = {*itertools.chain(*SPLIT_WORDS.values()), *_ANNOTATION_FOLDERS, "images"}
_GENERIC_FILES = {"instances", "default", "coco", "data", "dataset", "result", "results", *_GENERIC}
"""Words that are no name of a dataset."""


class Split(NamedTuple):
    """A COCO file, and the folder that its file names are relative to; both absolute.

    Attributes:
        origin: what the user has, of a COCO file in the cache folder that was made of it; None of their own.
        said: how that was read, a sentence each.
    """

    annotations: Path
    images: Path
    origin: Path | None = None
    said: tuple[str, ...] = ()

    @property
    def shown(self) -> Path:
        """What a message calls it."""
        return self.origin or self.annotations


class FoundData(NamedTuple):
    """What a path holds.

    Attributes:
        name: of the dataset, of letters, digits, "_" and "-" alone.
        form: what it was taken for, as a phrase for the user.
        splits: by "train", "val" and "test"; of data without a split that is not divided, "train" alone.
        classes: a data.yaml's own names in their order, beside COCO files; None elsewhere.
        val_share: the share of the images that was put aside to test on; None where nothing was divided.
    """

    name: str
    form: str
    splits: dict[str, Split]
    classes: list[str] | None
    val_share: float | None = None


def find_splits(
    path: str | os.PathLike, *, divides: bool = False, val_share: float | None = None
) -> FoundData:
    """Find the annotations and images of a dataset; of labels in another format, COCO's form of them.

    Args:
        path: a folder, a COCO file, or a data.yaml with Ultralytics' keys path, train, val, test and names,
            whose splits are COCO files, folders that hold one, or YOLO's folders and lists of images.
        divides: whether data without a split is divided into "train" and "val".
        val_share: of the images, for "val"; None for `VAL_SHARE` of data that names no split. With a number a
            single named split is divided, too; 0 divides nothing.

    Raises:
        InputError: nothing is there or cannot be read; no annotations are found, or several files for one
            split; a label file holds what is not sure; the images are nowhere near their annotations; or
            `val_share` is given for data that has several splits.
    """
    root = Path(os.path.abspath(os.path.expanduser(path)))
    if is_folder(root):
        found = _in_folder(root)
    elif root.suffix.lower() in (".yaml", ".yml"):
        found = _in_yaml(root)
    else:
        word = split_of(root.stem)
        split = _as_split(root, first_file_names(root), word or "train")
        found = FoundData(_dataset_name(root), "a single COCO file", {word or ALL: split}, None)
    if val_share is not None:
        # A config may hold anything.
        if type(val_share) not in (int, float) or not 0 <= val_share < 1:
            raise InputError(f"--val-share {val_share}: give a share from 0 to below 1, as 0.2")
        if val_share and len(found.splits) > 1:
            raise InputError(
                f"{root} has splits of its own ({', '.join(found.splits)}): leave --val-share out"
            )
    if divides and (val_share or (val_share is None and ALL in found.splits)):
        return _divided(found, root, VAL_SHARE if val_share is None else val_share)
    splits = {("train" if name == ALL else name): one for name, one in found.splits.items()}
    return found._replace(splits=splits)


def _divided(found: FoundData, root: Path, share: float) -> FoundData:
    (split,) = found.splits.values()
    path = os.fspath(split.annotations)

    def make() -> Made:
        with collector_paused():
            data = split.annotations.read_bytes()
            content, changes = read_coco(data, os.fspath(split.shown), str(split.images))
            sides = divide(content, split.images, share)
        train, val = (len(side["images"]) for side in sides.values())
        said = [
            *split.said,
            *changes,
            f"the data has no split: {train} images to train on and {val} to test on, by the SHA-256 of "
            f"their names (--val-share {share:g})",
            *absent_classes(sides),
        ]
        files = [split.annotations, *(split.images / one["file_name"] for one in content["images"])]
        contents = {"train": (sides["train"], said), "val": (sides["val"], [])}
        return Made(split.images, contents, files)

    try:
        sha256 = AnnotationCache().sha256(path)
        derived = derive(["divided", sha256, path, str(split.images), share], make)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}; mend that") from error
    splits = _splits_of(derived, split.shown)
    return found._replace(splits=splits, val_share=share)


def _splits_of(derived: Mapping[str, Derived], origin: Path) -> dict[str, Split]:
    return {
        name: Split(one.annotations, one.images, origin, tuple(one.said))
        for name, one in derived.items()
    }


def _of_labels(data: LabelledData, path: Path) -> FoundData:
    """COCO's form of label files that were found in `path`, a folder or a data.yaml."""
    root = path if path.is_dir() else path.parent
    listed = {split: list(map(os.fspath, paths)) for split, paths in data.splits.items()}
    others = sorted(map(os.fspath, data.files))

    def make() -> Made:
        images, contents = as_coco(data, root)
        # A label file may name an image that lies elsewhere.
        named = [images / one["file_name"] for it, _ in contents.values() for one in it["images"]]
        files = [*itertools.chain(*data.splits.values()), *data.files, *named]
        if path == root and (left := sorted(_images_below(root).difference(files))):
            next(iter(contents.values()))[1].append(
                f"{len(left)} images below {root} are not used (first: {left[0]}): without a label file, or "
                "in folders that are not read"
            )
        return Made(images, contents, files)

    classes = data.classes if isinstance(data.classes, list) else None
    facts = [data.form, str(root), listed, others, classes, list(data.notes)]
    derived = derive(facts, make)
    return FoundData(_dataset_name(path), data.form, _splits_of(derived, path), None)


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


def _images_below(root: Path) -> set[Path]:
    """All that a folder holds, but for what is hidden, and VOC's pictures of pixels."""
    found = set()
    for parent, folders, names in os.walk(root):
        folders[:] = [one for one in folders if not one.startswith((".", "Segmentation"))]
        images = (one for one in names if one.lower().endswith(IMAGE_SUFFIXES) and one[0] != ".")
        found.update(Path(parent, one) for one in images)
    return found


def _labels_in(root: Path) -> tuple[LabelledData, Path] | None:
    """Labels of a format with a file for each image, and the data.yaml or folder that tells of them."""
    for path in _yamls(root):
        if labels := find_yolo(root, read_data_yaml(path)):
            return labels, path
    return next(
        ((labels, root) for find in (find_voc, find_labelme, find_yolo) if (labels := find(root))),
        None,
    )


def _yamls(root: Path) -> list[Path]:
    """The data.yaml of a folder, if there is one.

    Raises:
        InputError: there are several.
    """
    found = [path for path in files_in(root, _YAML) if path.name.lower() in _YAML]
    if len(found) > 1:
        raise InputError(
            f"{found[0]} and {found[1]} may both say what the data is; give one of them"
        )
    return found


def _in_folder(root: Path) -> FoundData:
    inside = folders_in(root)
    places = [root, *(one for one in inside if one.name.lower() in _ANNOTATION_FOLDERS)]
    of_split = [one for one in inside if split_named(one.name)]
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
            splits[split or ALL] = _as_split(path, names, split or "train")
    labelled = _labels_in(root) if not splits or ALL in splits else None
    if splits and labelled:
        raise InputError(
            f"{splits[ALL].annotations} is a COCO file, and there are labels beside it ({labelled[0].form}): "
            "give the file itself, or take it out of the folder"
        )
    if splits:
        paths = [split.annotations for split in splits.values()]
        return FoundData(_dataset_name(root), _form(root, paths), splits, None)
    if labelled:
        return _of_labels(*labelled)
    for path in _yamls(root):
        return _in_yaml(path)
    if len(inside) == 1 and not files_in(root, ("",)) and not os.path.islink(inside[0]):
        # As archives are unpacked.
        return _in_folder(inside[0])
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
        if refusal.reason == LABELME:
            continue  # of an image that is called so
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
        if phrase in (VOC, LABELME):
            return (
                f"{path} {phrase.partition(':')[0]}, and no images are found for such files; put them beside "
                "these, or into JPEGImages/ or images/ beside Annotations/"
            )
        if phrase:
            return f"{path} {_NO_ROW if phrase == YOLO else phrase}"
    return (
        f"{root} has no COCO annotations: no JSON file there, in annotations/ or in train/, val/ or test/ "
        "lists images; nor labels of YOLO, Pascal VOC or labelme with their images; give the COCO file "
        "itself, the folder of the labels, or a data.yaml that names them"
    )


def _other_files(places: Sequence[Path]) -> Iterator[Path]:
    """A few files that are neither images nor JSON, of the folders and of YOLO's inside them."""
    inside = [one for place in places for one in folders_in(place) if one not in places]
    yolo = [one for one in inside if "labels" in (one.name.lower(), one.parent.name.lower())]
    endings = (".xml", ".txt", ".names", ".csv", ".ndjson", ".jsonl", ".zip", ".gz", ".pkl")
    for place in [*places, *yolo[:SAMPLE]]:
        yield from files_in(place, endings)[:SAMPLE]


def _in_yaml(path: Path) -> FoundData:
    content = read_data_yaml(path)
    if labels := find_yolo(path.parent, content):
        return _of_labels(labels, path)
    splits = {}
    for split, place in content.places.items():
        try:
            splits[split] = _in_place(place, split)
        except InputError as error:
            raise InputError(f"{path}: {split}: {error}") from error
    form = f"{path.name}: {', '.join(splits)}"
    return FoundData(_dataset_name(path), form, splits, content.classes)


def _in_place(place: Path, split: str) -> Split:
    """The split that a COCO file, or the only one of a folder, holds."""
    if not os.path.lexists(place):
        raise InputError(f"{place} is not there; correct that path, or `path`, in the file")
    if not is_folder(place):
        names = first_file_names(place)
        if isinstance(names, Refusal) and place.suffix.lower() == ".txt":
            # A list of images, which YOLO's labels belong to.
            raise InputError(f"{place} {_NO_ROW}")
        return _as_split(place, names, split)
    good, bad = _sorted_out(_json_files(place), split)
    for path, names in good.items():
        return _as_split(path, names, split)
    if _has_yolo(place):
        raise InputError(f"{place} {_NO_ROW}")
    for path, refusal in bad:
        if refusal.is_told:
            raise InputError(f"{path} {refusal.reason}")
    raise InputError(
        f"{place} holds neither a COCO file nor images with YOLO's labels; correct the path"
    )


def _has_yolo(images: Path) -> bool:
    """Whether YOLO's labels belong to a folder of images: beside them, or where images is labels."""
    parts = ["labels" if part == "images" else part for part in images.parts]
    places = {images, images / "labels", images.parent / "labels", Path(*parts)}
    return any(files_in(place, (".txt",)) for place in places if os.path.isdir(place))
