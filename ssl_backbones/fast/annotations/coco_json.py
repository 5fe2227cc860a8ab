"""COCO's annotation files, read to the records of Detectron2's `load_coco_json` in a fraction of its time."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import locale
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pycocotools.mask
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import coco as stock
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ..acceleration import optional

logger = logging.getLogger(__name__)

KNOWN_FAULTY = "minival"
"""Detectron2 lets annotation ids repeat in files of that name: COCO 2014's minival files do."""


class Facts(NamedTuple):
    """What Detectron2 says of a file besides its records, in the log and in the dataset's metadata."""

    category_ids: list[int]  # ascending
    class_names: list[str]  # in this order
    num_images: int
    num_annotations: int
    num_matched: int  # annotations of images that are in the file
    num_without_mask: int  # annotations left out for want of a polygon of three points


class UnusualError(Exception):
    """A file with something in it that is left to Detectron2's own function: its keypoints or its faults."""


def load_coco_json(
    json_file: str,
    image_root: str | os.PathLike,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict[str, Any]]:
    """What `detectron2.data.datasets.load_coco_json` returns, sets in the metadata, logs and raises.

    Most of the time is won by msgspec's parser and by keeping Python's garbage collector from looking
    through the growing heap. Keypoints, extra keys and files with faults take Detectron2's own way.
    """
    if dataset_name is not None and not extra_annotation_keys:
        with collector_paused():
            try:
                records, facts = read_records(json_file, image_root)
            except UnusualError as reason:
                logger.info(f"{json_file} is read by Detectron2's own function: {reason}")
            else:
                announce(facts, PathManager.get_local_path(json_file), dataset_name)
                return records
    with collector_paused():
        return stock.load_coco_json(json_file, image_root, dataset_name, extra_annotation_keys)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the search for reference cycles from looking through millions of new objects that have none."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    try:
        yield
    finally:
        if not frozen:
            # All that was made goes to the oldest generation unseen; the next search is for younger ones.
            gc.freeze()
            gc.unfreeze()
        if enabled:
            gc.enable()


def parse_json(data: bytes) -> Any:
    """What `json.loads` makes of a file's bytes, and its `ValueError` where it refuses them."""
    msgspec = optional("msgspec", "Reading annotation files")
    if msgspec is not None:
        # It refuses a little of what Python's parser takes: NaN, lone surrogates, numbers past the floats.
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            return msgspec.json.decode(data)
    return json.loads(data)


def read_records(
    json_file: str, image_root: str | os.PathLike
) -> tuple[list[dict[str, Any]], Facts]:
    """The records of a COCO file with categories numbered from 0, and what is to be said of it.

    Raises:
        UnusualError: the file is better left to Detectron2's own function, for the reason given.
        OSError: it cannot be read.
    """
    path = PathManager.get_local_path(json_file)
    with open(path, "rb") as file:
        data = file.read()
    return parse_records(data, path, image_root)


def parse_records(
    data: bytes, path: str, image_root: str | os.PathLike
) -> tuple[list[dict[str, Any]], Facts]:
    """`read_records` of the bytes that were read at `path`, whose name tells what faults it may have.

    Raises:
        UnusualError: the file is better left to Detectron2's own function, for the reason given.
    """
    if optional("msgspec", "Reading annotation files") is None:
        raise UnusualError("msgspec is not there")
    # Detectron2 opens the file in the locale's encoding.
    utf8 = locale.getpreferredencoding(False).lower() in ("utf-8", "utf8")
    if not utf8 and not data.isascii():
        raise UnusualError("it is not ASCII, and the locale's encoding is not UTF-8")
    try:
        return _records(content_decoder().decode(data), path, image_root)
    except UnusualError:
        raise
    except Exception as error:
        # A fault, in whatever place: Detectron2 then says what it says of it.
        raise UnusualError(f"{type(error).__name__}: {error}") from error


@functools.cache
def content_decoder() -> Any:
    """Msgspec's decoder of what Detectron2 reads of a COCO file, which skips the rest of it."""
    import msgspec

    unset = msgspec.UNSET  # stands for a key that is not there where null would be another thing
    # Values are Any: whatever stands there, Detectron2 hands on. No field is part of a reference cycle.
    struct = functools.partial(msgspec.defstruct, gc=False)
    image = struct("Image", [(key, Any) for key in ("id", "file_name", "height", "width")])
    annotation = struct(
        "Annotation",
        [
            ("id", Any),
            ("image_id", Any),
            ("category_id", Any),
            ("iscrowd", Any, unset),
            ("bbox", Any, unset),
            ("segmentation", Any, None),
            ("keypoints", Any, unset),
            ("ignore", Any, 0),
        ],
    )
    content = struct(
        "Content",
        [
            ("images", list[image]),
            ("categories", list[dict[str, Any]]),
            ("annotations", list[annotation], []),
        ],
    )
    return msgspec.json.Decoder(content)


def announce(facts: Facts, path: str, dataset_name: str) -> None:
    """Set the dataset's metadata and write to the log what Detectron2 does when it reads the file."""
    meta = MetadataCatalog.get(dataset_name)
    ids = facts.category_ids
    meta.thing_classes = facts.class_names
    if not (min(ids) == 1 and max(ids) == len(ids)) and "coco" not in dataset_name:
        stock.logger.warning(
            "\nCategory ids in annotations are not in [1, #categories]! We'll apply a mapping for you.\n"
        )
    meta.thing_dataset_id_to_contiguous_id = {id_: index for index, id_ in enumerate(ids)}
    if facts.num_matched < facts.num_annotations:
        stock.logger.warning(
            f"{path} contains {facts.num_annotations} annotations, but only {facts.num_matched} of them "
            "match to images in the file."
        )
    stock.logger.info(f"Loaded {facts.num_images} images in COCO format from {path}")
    if facts.num_without_mask:
        stock.logger.warning(
            f"Filtered out {facts.num_without_mask} instances without valid segmentation. There might be "
            "issues in your dataset generation process.  Please check "
            "https://detectron2.readthedocs.io/en/latest/tutorials/datasets.html carefully"
        )


def _records(
    content: Any, path: str, image_root: str | os.PathLike
) -> tuple[list[dict[str, Any]], Facts]:
    categories = {category["id"]: category["name"] for category in content.categories}
    category_ids = sorted(categories)
    if not category_ids or not all(type(id_) is int for id_ in category_ids):
        raise UnusualError("its categories are not numbered")
    if len(categories) < len(content.categories):
        raise UnusualError("category ids stand there twice")
    objects: dict[Any, list[dict[str, Any]]] = {image.id: [] for image in content.images}
    num_ids = len({each.id for each in content.annotations})
    if num_ids < len(content.annotations) and KNOWN_FAULTY not in path:
        # Among annotations of images that are not there, Detectron2 does not mind.
        ids = [each.id for each in content.annotations if each.image_id in objects]
        if len(set(ids)) < len(ids):
            raise UnusualError("annotation ids stand there twice")
    contiguous = {id_: index for index, id_ in enumerate(category_ids)}
    num_matched, num_without_mask = _fill(objects, content.annotations, contiguous)
    # Where an id stands there twice, the last image has it.
    images = {image.id: image for image in content.images}
    records = [
        {
            "file_name": os.path.join(image_root, images[id_].file_name),
            "height": images[id_].height,
            "width": images[id_].width,
            "image_id": id_,
            "annotations": objects[id_],
        }
        for id_ in sorted(images)
    ]
    names = [categories[id_] for id_ in category_ids]
    return records, Facts(category_ids, names, len(images), num_ids, num_matched, num_without_mask)


def _fill(
    objects: Mapping[Any, list[dict[str, Any]]],
    annotations: Sequence[Any],
    contiguous: Mapping[int, int],
) -> tuple[int, int]:
    """Add each annotation to its image's.

    Returns:
        How many have an image, and how many of these were left out for want of a polygon.
    """
    from msgspec import UNSET as absent

    num_matched = num_without_mask = 0
    mode = BoxMode.XYWH_ABS
    for annotation in annotations:
        of_image = objects.get(annotation.image_id)
        if of_image is None:
            continue
        num_matched += 1
        if annotation.ignore != 0 or annotation.keypoints is not absent:
            raise UnusualError("it has keypoints, or annotations to ignore")
        # The order of the keys is Detectron2's.
        one = {
            "iscrowd": annotation.iscrowd,
            "bbox": annotation.bbox,
            "category_id": contiguous[annotation.category_id],
        }
        if annotation.iscrowd is absent:
            del one["iscrowd"]
        if annotation.bbox is absent:
            del one["bbox"]
        elif len(annotation.bbox) == 0:
            raise UnusualError("a box is empty")
        mask = annotation.segmentation
        if mask:
            if type(mask) is dict:
                mask = compressed(mask)
            else:
                mask = [part for part in mask if len(part) >= 6 and len(part) % 2 == 0]
            if not mask:
                num_without_mask += 1
                continue
            one["segmentation"] = mask
        one["bbox_mode"] = mode
        of_image.append(one)
    return num_matched, num_without_mask


def compressed(mask: dict[str, Any]) -> dict[str, Any]:
    """A mask in run lengths as pycocotools takes it: with these compressed."""
    if isinstance(mask["counts"], list):
        return pycocotools.mask.frPyObjects(mask, *mask["size"])
    return mask
