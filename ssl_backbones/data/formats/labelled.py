"""What the formats with a label file for each image have in common, and COCO's form of it."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...progress import progress_bar
from ..annotations.fields import UnsureError
from ..annotations.masks import area_of, box_of
from ..image_folders import SPLIT_WORDS
from ..images import in_threads

ALL = "all"
"""In place of a split, of data that has none."""


class LabelledObject(NamedTuple):
    """An object in an image.

    Attributes:
        name: of its class.
        origin: where it stands, as a message says it: "labels/a.txt line 3".
        bbox: x, y, width, height in pixels; None where it is that of the mask.
        segmentation: its mask in COCO's form, polygons or run lengths; None where there is none.
        keypoints: x, y, visibility of each, as COCO has them; None where there are none.
    """

    name: str
    origin: str
    bbox: list[float] | None = None
    segmentation: Any = None
    keypoints: list[float] | None = None


class LabelledImage(NamedTuple):
    """An image with its objects in the order of its label file.

    Attributes:
        width, height: in pixels, upright, as `images.upright_size` has them.
        notes: how its labels are read where that needs a word; each is said once, with its number of images.
    """

    path: Path
    width: int
    height: int
    objects: list[LabelledObject]
    notes: Sequence[str] = ()


class LabelledData(NamedTuple):
    """What a format finds in a folder by names alone, before the labels are read.

    Attributes:
        kind: whose format it is, as a phrase for the user.
        splits: by "train", "val" and "test" the files that `read` takes, images or label files; of data
            without splits all under `ALL`.
        files: all other files that what is read depends on.
        classes: their names in the model's order, or what makes these of the names of the objects; None for
            the latter by alphabet.
        read: reads one of those files; called in threads. Raises InputError with file and line.
        settle: makes of all images what only all together tell, and says what; None where each tells all.
        notes: what is to be said of the whole.
    """

    kind: str
    splits: dict[str, list[Path]]
    files: list[Path]
    classes: list[str] | Callable[[Iterable[str]], list[str]] | None
    read: Callable[[Path], LabelledImage]
    settle: Callable[[list[LabelledImage]], tuple[list[LabelledImage], list[str]]] | None = None
    notes: Sequence[str] = ()

    @property
    def form(self) -> str:
        """What it was taken for: the kind, and the splits if it has any."""
        return self.kind if ALL in self.splits else f"{self.kind}: {', '.join(self.splits)}"


def in_order(found: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """The splits that hold something: train, val, test, and `ALL`."""
    return {split: found[split] for split in (*SPLIT_WORDS, ALL) if found.get(split)}


def as_coco(
    data: LabelledData, root: Path
) -> tuple[Path, dict[str, tuple[dict[str, Any], list[str]]]]:
    """Read all labels: each split's content in COCO's own form, with what is to be said of it.

    Images are in the order of their paths, and numbered so from 1, as are annotations, whose `origin` says
    where they stand.

    Args:
        root: the folder of the data.

    Returns:
        The folder that the file names are relative to, `root` if all images are inside, and by split its
        content and sentences.

    Raises:
        InputError: the first thing found wrong, with file and line.
    """
    files = list(itertools.chain(*data.splits.values()))
    with progress_bar(len(files)) as advance:

        def read(path: Path) -> LabelledImage:
            image = data.read(path)
            advance()
            return image

        images = list(in_threads(read, files))
    said = [*data.notes, *_notes(images)]
    if data.settle:
        images, more = data.settle(images)
        said += more
    classes = data.classes
    if not isinstance(classes, list):
        classes = (classes or sorted)({one.name for image in images for one in image.objects})
    if not classes:
        raise InputError(f"{root}: {data.form}: no label file has an object; label some images")
    folders = {image.path.parent for image in images}
    inside = all(folder.is_relative_to(root) for folder in folders)
    folder = root if inside else Path(os.path.commonpath(folders))
    rest, contents = iter(images), {}
    for split, paths in data.splits.items():
        own = list(itertools.islice(rest, len(paths)))
        contents[split] = (_content(own, classes, folder), said)
        said = []  # once
    return folder, contents


def _notes(images: Iterable[LabelledImage]) -> list[str]:
    of_note: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        for note in image.notes:
            of_note[note].append(image.path)
    return [f"{len(of)} images (first: {of[0]}): {note}" for note, of in of_note.items()]


def _content(
    images: Sequence[LabelledImage], classes: Sequence[str], folder: Path
) -> dict[str, Any]:
    """COCO's form of the images of a split."""
    named = {os.path.relpath(image.path, folder).replace(os.sep, "/"): image for image in images}
    if len(named) < len(images):
        twice = Counter(image.path for image in images).most_common(1)[0][0]
        raise InputError(f"{twice} is labelled by two files; remove one of them")
    ids = {name: number for number, name in enumerate(classes, 1)}
    coco_images, annotations = [], []
    for number, (name, image) in enumerate(sorted(named.items()), 1):
        size = {"width": image.width, "height": image.height}
        coco_images.append({"id": number, "file_name": name, **size})
        for one in image.objects:
            id_ = len(annotations) + 1
            of = {"id": id_, "image_id": number, "category_id": ids[one.name], "iscrowd": 0}
            shape = _shape(one, (image.height, image.width))
            annotations.append({**of, "origin": one.origin, **shape})
    categories = [{"id": id_, "name": name} for name, id_ in ids.items()]
    return {"images": coco_images, "annotations": annotations, "categories": categories}


def _shape(one: LabelledObject, size: tuple[int, int]) -> dict[str, Any]:
    """Box, area and mask of an object; what is not given follows from the mask, as in COCO's files."""
    # Detectron2 cuts what it scales of whole numbers down to whole pixels.
    mask = one.segmentation
    if isinstance(mask, list):
        mask = [list(map(float, part)) for part in mask]
    try:
        box = list(map(float, one.bbox or box_of(mask)))
        area = area_of(mask, size) if mask else box[2] * box[3]
    except UnsureError as error:
        raise InputError(f"{one.origin}: its box or area {error.reason}; {error.mend}") from error
    shape: dict[str, Any] = {"bbox": box, "area": area}
    if mask:
        shape["segmentation"] = mask
    if one.keypoints:
        shape["keypoints"] = one.keypoints
        shape["num_keypoints"] = sum(flag > 0 for flag in one.keypoints[2::3])
    return shape
