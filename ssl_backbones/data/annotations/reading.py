"""Files in COCO's format whose form is odd, read as what they mean; refused where the meaning is not sure."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from ...errors import InputError
from ...fast.annotations.coco_json import collector_paused, parse_json
from .fields import (
    ABSENT,
    Change,
    Read,
    Rows,
    UnsureError,
    are_finite,
    find_odd,
    form_of,
    number_of,
    quote,
    read_field,
    whole_number_of,
)
from .foreign import foreign_format
from .identifiers import are_ids, are_ids_of_objects, read_ids
from .masks import are_masks, area_of, box_of, read_mask

_FORMAT = "see https://cocodataset.org/#format-data"


class Reading(NamedTuple):
    """A file in COCO's form: every value of the type that COCO gives it."""

    content: dict[str, Any]
    changes: list[str]  # what stands otherwise in the file, a sentence for each kind with its count


def read_coco(data: bytes, where: str, root: str | None = None) -> Reading:
    """Read a file in COCO's format; one in COCO's own form gives what it holds, and no changes.

    Ids, heights and widths become int, boxes four numbers, `iscrowd` 0 or 1, `area` a number (in square
    pixels), masks polygons or run lengths; an object without a mask has no `segmentation`, or an empty one.
    What is missing and follows from the rest is filled in. Whether the values make sense is not asked here:
    an id may stand there twice, a reference lead nowhere, a box lie outside the image.

    Args:
        data: the file's bytes, in UTF-8, or UTF-16 or UTF-32 with or without a byte order mark.
        where: what the file is, as the first words of a message.
        root: the folder of the images, where it is known: a backslash stays in the name of a file there.

    Raises:
        InputError: the file is not JSON, another tool's or not COCO's; or holds something whose meaning is
            not sure, of which the first is named, with how many there are.
    """
    with collector_paused():
        content, changes = _parsed(data, where)
        _refuse_other_content(content, data, where)
        images, categories, annotations = (
            Rows(where, kind, rows, find_odd(rows, forms))
            for kind, rows, forms in (
                ("image", content["images"], _IMAGES),
                ("category", content["categories"], {"id": are_ids}),
                ("annotation", content.get("annotations", []), _ANNOTATIONS),
            )
        )
        changes += read_ids(images, categories, annotations)
        changes += _read_images(images, root)
        changes += _read_names(categories)
        changes += _read_annotations(annotations, images)
    return Reading(content, changes)


def _parsed(data: bytes, where: str) -> tuple[Any, list[str]]:
    changes = []
    try:
        encoding = json.detect_encoding(data)
        if encoding != "utf-8":
            data = data.decode(encoding).encode()
            name = {"utf-8-sig": "UTF-8 with a byte order mark"}.get(encoding, encoding.upper())
            changes.append(f"the file is written in {name}: read as that")
        return parse_json(data), changes
    except ValueError as error:
        _refuse_foreign(data, None, where)
        raise InputError(f"{where}: is not JSON: {error}; give a file in COCO's format") from error
    except RecursionError as error:
        raise InputError(
            f"{where}: has lists in lists too deep to be read; give a file in COCO's format"
        ) from error


def _refuse_foreign(data: bytes, content: Any, where: str) -> None:
    found = foreign_format(data, content)
    if found is not None:
        raise InputError(f"{where}: {found}")


def _refuse_other_content(content: Any, data: bytes, where: str) -> None:
    """Refuse what has not COCO's lists of objects."""
    keys = ["images", "categories"]
    if type(content) is dict and "annotations" in content:
        keys.append("annotations")
    for key in keys:
        rows = content.get(key) if type(content) is dict else None
        if type(rows) is list and set(map(type, rows)) <= {dict}:
            continue
        _refuse_foreign(data, content, where)
        if type(rows) is not list:
            raise InputError(f"{where}: is not in COCO's format: has no list of `{key}`; {_FORMAT}")
        wrong = [(place, row) for place, row in enumerate(rows, 1) if type(row) is not dict]
        raise InputError(
            f"{where}: is not in COCO's format: {quote(wrong[0][1])} stands at place {wrong[0][0]} of "
            f"`{key}`, which is no object ({len(wrong):,} of {len(rows):,}); {_FORMAT}"
        )


def _read_images(images: Rows, root: str | None) -> list[str]:
    changes = []
    for key, read in (
        ("height", _read_side),
        ("width", _read_side),
        ("file_name", partial(_read_file_name, root=root)),
    ):
        if key in images.odd:
            changes += read_field(images, key, read)
    return changes


def _are_sides(values: list[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) > 0 and max(values) < 2**31


def _read_side(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
    number = whole_number_of(value)
    if number is None or not 0 < number < 2**31:
        reason = "" if value is ABSENT else "is not a whole number of pixels above 0"
        raise UnsureError(reason, "give it the size of the image file in pixels")
    if type(value) is int:
        return value, None
    return number, Change(form_of(value), "read as the whole number")


def _are_file_names(values: list[Any]) -> bool:
    if set(map(type, values)) != {str} or not all(values):
        return False
    joined = "".join(values)
    return "\\" not in joined and _is_name(joined)


def _is_name(text: str) -> bool:
    """Whether a file may be called so."""
    try:
        # Python gives names of files that are not UTF-8 with lone surrogates in them.
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _read_file_name(value: Any, row: dict[str, Any], root: str | None) -> tuple[Any, Change | None]:
    if value is ABSENT and "coco_url" in row:
        # LVIS's images are found by their addresses.
        return ABSENT, None
    if type(value) is not str or not value or not _is_name(value):
        reason = "" if value is ABSENT else "is not the name of a file"
        raise UnsureError(reason, "give it the name of the image file")
    if "\\" not in value or (root is not None and os.path.isfile(os.path.join(root, value))):
        return value, None
    return value.replace("\\", "/"), Change("has backslashes", "read as slashes")


def _read_names(categories: Rows) -> list[str]:
    changes = read_field(categories, "name", _read_name)
    ids: dict[str, list[int]] = {}
    for row in categories.rows:
        ids.setdefault(row["name"], []).append(row["id"])
    for name, same in ids.items():
        # One category that stands there twice is not two of one name.
        if len(set(same)) == 1:
            continue
        for row in categories.rows:
            if row["name"] == name:
                row["name"] = f"{name} ({row['id']})"
        listed = ", ".join(map(str, same))
        changes.append(
            f"{len(same)} categories have the name {quote(name)} (ids {listed}): each is kept, with its id "
            "behind the name"
        )
    _refuse_taken_names(categories)
    return changes


def _refuse_taken_names(categories: Rows) -> None:
    """Refuse a name with an id behind it that is another category's own."""
    counts = Counter(name for name, _ in {(row["name"], row["id"]) for row in categories.rows})
    for name, count in counts.items():
        if count > 1:
            raise InputError(
                f"{categories.where}: {count} categories have the name {quote(name)} once the ids of two of "
                "one name stand behind it; give each its own name"
            )


def _read_name(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
    if type(value) in (int, float) and number_of(value) is not None:
        return str(value), Change("is a number", "read as its text")
    if type(value) is not str or not value.strip():
        raise UnsureError("" if value is ABSENT else "is no name", "give it a name")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnsureError("is not text that can be written", "give it a name") from None
    return value, None


def _read_annotations(annotations: Rows, images: Rows) -> list[str]:
    """Bring masks into COCO's form, then boxes, which may follow from these, then what follows from both."""
    changes = []
    for key, read in (
        ("segmentation", read_mask),
        ("bbox", _read_box),
        ("area", _area_reader(images)),
        ("iscrowd", _read_crowd),
    ):
        if key in annotations.odd:
            changes += read_field(annotations, key, read)
    return changes


def _are_boxes(values: list[Any]) -> bool:
    return (
        set(map(type, values)) == {list}
        and set(map(len, values)) == {4}
        and are_finite(list(chain.from_iterable(values)))
    )


def _are_areas(values: list[Any]) -> bool:
    return are_finite(values) and min(values) >= 0


def _are_crowd_marks(values: list[Any]) -> bool:
    return set(map(type, values)) == {int} and set(values) <= {0, 1}


def _read_box(value: Any, row: dict[str, Any]) -> tuple[Any, Change | None]:
    if value is ABSENT or value is None:
        mask = row.get("segmentation")
        if not mask:
            mend = "give it x, y, width, height, or a segmentation"
            raise UnsureError("" if value is ABSENT else "is not x, y, width, height", mend)
        return box_of(mask), Change(_none(value), "computed from the mask")
    numbers = [number_of(number) for number in value] if type(value) is list else []
    if len(numbers) != 4 or None in numbers:
        raise UnsureError("is not x, y, width, height")
    if str not in set(map(type, value)):
        return value, None
    return numbers, Change("has numbers that are text", "read as numbers")


def _none(value: Any) -> str:
    return "is missing" if value is ABSENT else "is null"


def _area_reader(images: Rows) -> Read:
    sizes = {row["id"]: (row["height"], row["width"]) for row in images.rows}

    def read_area(value: Any, row: dict[str, Any]) -> tuple[Any, Change | None]:
        if value is ABSENT or value is None:
            mask = row.get("segmentation")
            if mask:
                area: int | float = area_of(mask, sizes.get(row["image_id"]))
                return area, Change(_none(value), "counted in the mask")
            width, height = row["bbox"][2:]
            area = max(width, 0) * max(height, 0)
            if number_of(area) is None:
                raise UnsureError("does not follow from the box, which is too large")
            return area, Change(_none(value), "computed as the box's width x height")
        number = number_of(value)
        if number is None or number < 0:
            mend = "correct it, or leave it out to have it computed"
            raise UnsureError("is not a number of square pixels", mend)
        return number, Change("is text", "read as the number") if type(value) is str else None

    return read_area


def _read_crowd(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
    if value is ABSENT or value is None:
        return 0, Change(_none(value), "read as 0")
    number = int(value) if type(value) is bool else number_of(value)
    if number not in (0, 1):
        raise UnsureError("is neither 0 nor 1", "write 1 for a crowd and 0 for an object")
    if type(value) is int:
        return value, None
    state = "is true or false" if type(value) is bool else form_of(value)
    return int(number), Change(state, "read as 1 or 0")


_IMAGES = {
    "id": are_ids,
    "height": _are_sides,
    "width": _are_sides,
    "file_name": _are_file_names,
}
_ANNOTATIONS = {
    "id": are_ids_of_objects,
    "image_id": are_ids,
    "category_id": are_ids,
    "segmentation": are_masks,
    "bbox": _are_boxes,
    "area": _are_areas,
    "iscrowd": _are_crowd_marks,
}
"""COCO's own form of the fields that are read here, for `find_odd`."""


def categories_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The categories of a file's content by ascending id, which is how Detectron2 numbers them."""
    return sorted(content["categories"], key=lambda category: category["id"])
