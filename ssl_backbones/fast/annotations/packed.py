"""Records of Detectron2's dataset format as a few flat arrays, which processes can map and share.

A record comes out as it went in: the same keys in the same order, values of the same types.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

FORMAT = 1
"""Of the arrays: to be raised with any change of what they mean."""

_NO_MASK, _POLYGONS, _RUN_LENGTHS = range(3)
_MASK_KINDS = {list: _POLYGONS, dict: _RUN_LENGTHS}
_FLOATS, _INTS, _MIXED = range(3)
_LARGEST = 2**53  # up to here a float64 holds every integer
_RECORD = ["file_name", "height", "width", "image_id", "annotations"]
_MASKS = {
    ("size", "counts", bytes): 0,  # as pycocotools compresses them
    ("size", "counts", str): 1,
    ("counts", "size", str): 2,
}


class UnpackableError(Exception):
    """A record that the arrays cannot hold, such as one with keypoints; says what is in the way."""


def pack(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays that hold the records of a COCO file, as `load_coco_json` gives them, with absolute names
    or such as are relative to a folder of images.

    For n images, m annotations, p polygons, k numbers in them and r masks of run lengths:

    images (n, 3) id, height, width; names: their UTF-8, one after another; name_ends (n + 1);
    annotation_ends (n + 1); crowds (m), -1 where nothing is said; categories (m); boxes (m, 4);
    mask_kinds (m); polygon_ends (m + 1); number_ends (p + 1); numbers (k); number_kinds (p);
    box_integers, integers: a bit for each number, whether it is an integer; run_length_owners (r): the
    annotation's index; run_length_kinds (r), run_length_sizes (r, 2), run_length_ends (r + 1), run_lengths.

    Raises:
        UnpackableError: a record has something else.
    """
    for record in records:
        if list(record) != _RECORD:
            raise UnpackableError(f"an image has {', '.join(record)}")
    annotations = list(chain.from_iterable(record["annotations"] for record in records))
    try:
        return {
            **_images(records),
            **_annotations(annotations),
            **_polygons(annotations),
            **_run_lengths(annotations),
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnpackableError(f"{type(error).__name__}: {error}") from error


def _images(records: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    rows = [[record["image_id"], record["height"], record["width"]] for record in records]
    _only(int, chain.from_iterable(rows))
    names = [record["file_name"].encode() for record in records]
    return {
        "images": np.array(rows, np.int64).reshape(-1, 3),
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": _ends(names),
        "annotation_ends": _ends([record["annotations"] for record in records]),
    }


def _annotations(annotations: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    for annotation in annotations:
        if annotation.keys() - {"iscrowd", "segmentation"} != {"bbox", "category_id", "bbox_mode"}:
            raise UnpackableError(f"an annotation has {', '.join(annotation)}")
        if annotation["bbox_mode"] is not BoxMode.XYWH_ABS or len(annotation["bbox"]) != 4:
            raise UnpackableError("a box is not x, y, width and height")
        if not 0 <= annotation.get("iscrowd", 0) < 128:  # below 0 stands what says nothing
            raise UnpackableError(f"an annotation has {annotation['iscrowd']} for iscrowd")
    crowds = [annotation.get("iscrowd", -1) for annotation in annotations]
    categories = [annotation["category_id"] for annotation in annotations]
    _only(int, chain(crowds, categories))
    kinds = [_mask_kind(annotation.get("segmentation")) for annotation in annotations]
    boxes = list(chain.from_iterable(annotation["bbox"] for annotation in annotations))
    return {
        "crowds": np.array(crowds, np.int8),
        "categories": np.array(categories, np.int32),
        "boxes": _floats(boxes).reshape(-1, 4),
        "box_integers": np.packbits(_integers(boxes)),
        "mask_kinds": np.array(kinds, np.uint8),
    }


def _mask_kind(mask: Any) -> int:
    if not mask:
        return _NO_MASK
    try:
        return _MASK_KINDS[type(mask)]
    except KeyError:
        raise UnpackableError(f"a mask is a {type(mask).__name__}") from None


def _polygons(annotations: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    masks = [annotation.get("segmentation") for annotation in annotations]
    masks = [mask if type(mask) is list else [] for mask in masks]
    polygons = list(chain.from_iterable(masks))
    numbers = list(chain.from_iterable(polygons))
    ends = _ends(polygons)
    integers = _integers(numbers)
    # The numbers of a polygon are an integer array to Detectron2's mapper if all of them are integers.
    before = np.concatenate([[0], np.cumsum(integers, dtype=np.int64)])
    counts = before[ends[1:]] - before[ends[:-1]]
    kinds = np.full(len(polygons), _MIXED, np.uint8)
    kinds[counts == np.diff(ends)] = _INTS
    kinds[counts == 0] = _FLOATS
    return {
        "polygon_ends": _ends(masks),
        "number_ends": ends,
        "numbers": _floats(numbers),
        "number_kinds": kinds,
        "integers": np.packbits(integers),
    }


def _run_lengths(annotations: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    owners, kinds, sizes, texts = [], [], [], []
    for index, annotation in enumerate(annotations):
        mask = annotation.get("segmentation")
        if type(mask) is dict:
            counts = mask["counts"]
            owners.append(index)
            kinds.append(_MASKS[(*mask, type(counts))])
            sizes.append(mask["size"])
            texts.append(counts if type(counts) is bytes else counts.encode("ascii"))
    _only(int, chain.from_iterable(sizes))
    return {
        "run_length_owners": np.array(owners, np.int64),
        "run_length_kinds": np.array(kinds, np.uint8),
        "run_length_sizes": np.array(sizes, np.int64).reshape(-1, 2),
        "run_length_ends": _ends(texts),
        "run_lengths": np.frombuffer(b"".join(texts), np.uint8),
    }


def _only(kind: type, values: Any) -> None:
    """Booleans are integers to numpy, and would come out as such."""
    others = set(map(type, values)) - {kind}
    if others:
        raise UnpackableError(
            f"a {others.pop().__name__} stands where a {kind.__name__} is expected"
        )


def _ends(lists: Sequence[Any]) -> np.ndarray:
    """Where each of the lists ends when they are put one after another; 0 before the first."""
    return np.concatenate([[0], np.cumsum([len(each) for each in lists], dtype=np.int64)])


def _floats(values: Sequence[float]) -> np.ndarray:
    array = np.array(values, np.float64)
    if array.size and not np.abs(array).max() < _LARGEST:
        raise UnpackableError("a number has more than 53 bits")
    return array


def _integers(values: Sequence[float]) -> np.ndarray:
    """Which of the numbers are integers."""
    kinds = list(map(type, values))
    others = set(kinds) - {int, float}
    if others:
        raise UnpackableError(f"a {others.pop().__name__} stands where a number is expected")
    return np.array([kind is int for kind in kinds], bool)


class PackedRecords:
    """The records in arrays of `pack`, each made anew whenever it is asked for."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        # Slices of np.memmap itself take several times as long.
        self._of = {name: array.view(np.ndarray) for name, array in arrays.items()}

    def __len__(self) -> int:
        return len(self._of["images"])

    @property
    def sizes(self) -> np.ndarray:
        """Heights and widths of the images (n, 2)."""
        return self._of["images"][:, 1:]

    @property
    def plain_categories(self) -> np.ndarray:
        """The categories of all annotations that are no crowds."""
        return self._of["categories"][self._of["crowds"] <= 0]

    def with_plain_annotations(self) -> np.ndarray:
        """The indices of the images that have an annotation that is no crowd."""
        before = np.concatenate([[0], np.cumsum(self._of["crowds"] <= 0)])
        ends = self._of["annotation_ends"]
        return np.flatnonzero(before[ends[1:]] > before[ends[:-1]])

    def record(self, index: int, image_root: str | os.PathLike) -> dict[str, Any]:
        """The record at an index from 0, its file below `image_root`."""
        of = self._of
        start, stop = of["name_ends"][index : index + 2].tolist()
        id_, height, width = of["images"][index].tolist()
        return {
            "file_name": os.path.join(image_root, of["names"][start:stop].tobytes().decode()),
            "height": height,
            "width": width,
            "image_id": id_,
            "annotations": self._annotations(*of["annotation_ends"][index : index + 2].tolist()),
        }

    def _annotations(self, start: int, stop: int) -> list[dict[str, Any]]:
        of = self._of
        crowds = of["crowds"][start:stop].tolist()
        categories = of["categories"][start:stop].tolist()
        kinds = of["mask_kinds"][start:stop].tolist()
        boxes = self._boxes(start, stop)
        polygons = self._polygons(start, stop)
        annotations = []
        for index, kind in enumerate(kinds):
            one = {
                "iscrowd": crowds[index],
                "bbox": boxes[index],
                "category_id": categories[index],
            }
            if crowds[index] < 0:
                del one["iscrowd"]
            if kind == _POLYGONS:
                one["segmentation"] = polygons[index]
            elif kind == _RUN_LENGTHS:
                one["segmentation"] = self._run_lengths(start + index)
            one["bbox_mode"] = BoxMode.XYWH_ABS
            annotations.append(one)
        return annotations

    def _boxes(self, start: int, stop: int) -> list[list[float]]:
        boxes = self._of["boxes"][start:stop].tolist()
        integers = _bits(self._of["box_integers"], 4 * start, 4 * stop)
        for place in np.flatnonzero(integers).tolist():
            box = boxes[place // 4]
            box[place % 4] = int(box[place % 4])
        return boxes

    def _polygons(self, start: int, stop: int) -> list[list[list[float]]]:
        """For each of the annotations, its polygons."""
        of = self._of
        owners = of["polygon_ends"][start : stop + 1].tolist()
        ends = of["number_ends"][owners[0] : owners[-1] + 1].tolist()
        kinds = of["number_kinds"][owners[0] : owners[-1]].tolist()
        offset = ends[0]
        numbers = of["numbers"][offset : ends[-1]].tolist()
        polygons = [
            numbers[ends[i] - offset : ends[i + 1] - offset]
            if kind == _FLOATS
            else self._with_integers(ends[i], ends[i + 1])
            for i, kind in enumerate(kinds)
        ]
        first = owners[0]
        return [polygons[owners[i] - first : owners[i + 1] - first] for i in range(len(owners) - 1)]

    def _with_integers(self, start: int, stop: int) -> list[float]:
        numbers = self._of["numbers"][start:stop].tolist()
        integers = _bits(self._of["integers"], start, stop).tolist()
        return [int(x) if whole else x for x, whole in zip(numbers, integers, strict=True)]

    def _run_lengths(self, annotation: int) -> dict[str, Any]:
        of = self._of
        row = int(np.searchsorted(of["run_length_owners"], annotation))
        start, stop = of["run_length_ends"][row : row + 2].tolist()
        *keys, kind = list(_MASKS)[of["run_length_kinds"][row]]
        counts = of["run_lengths"][start:stop].tobytes()
        mask = {
            "size": of["run_length_sizes"][row].tolist(),
            "counts": counts if kind is bytes else counts.decode("ascii"),
        }
        return {key: mask[key] for key in keys}


def _bits(packed: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Some of the bits of np.packbits."""
    first = start // 8
    return np.unpackbits(packed[first : (stop + 7) // 8])[start - 8 * first : stop - 8 * first]
