"""Ids as whole numbers, and what refers to them, which files also hold as text or not at all."""

from __future__ import annotations

import itertools
from typing import Any

from ...errors import InputError
from .fields import (
    ABSENT,
    LARGEST,
    Change,
    Rows,
    UnsureError,
    form_of,
    quote,
    read_field,
    such,
    whole_number_of,
)

_MEND = "give each its own whole number"


def are_ids(values: list[Any]) -> bool:
    """Whether all are whole numbers, in little time where they are."""
    return set(map(type, values)) == {int} and min(values) >= -LARGEST and max(values) <= LARGEST


def are_ids_of_objects(values: list[Any]) -> bool:
    """Whether all are whole numbers by which COCO's evaluation can note what it found: any but 0."""
    return are_ids(values) and 0 not in values


def read_ids(images: Rows, categories: Rows, annotations: Rows) -> list[str]:
    """Make the ids of a file whole numbers in place, and `image_id` and `category_id` with them.

    Ids that are text of digits are these numbers. Ids that are all other text (names) are numbered from 1 in
    the order of the file; an `image_id` that names no image gets a number that no image has. Annotations
    without an id are numbered after the largest, and the id 0 becomes the first that is free. Ids that stand
    there twice still do.

    Returns:
        A sentence for each kind of change.

    Raises:
        InputError: an id is neither number nor text, is missing, or is one number in two ways of writing.
    """
    changes = []
    if "id" in annotations.odd:
        changes += _number_missing(annotations)
        changes += _read_own(annotations)[1] + _number_zero(annotations)
    for owner, key in ((images, "image_id"), (categories, "category_id")):
        numbering, said = _read_own(owner) if "id" in owner.odd else (None, [])
        changes += said
        if key in annotations.odd or numbering is not None:
            changes += _read_references(annotations, key, owner, numbering)
    return changes


def _number_missing(annotations: Rows) -> list[str]:
    """Give ids to annotations without one, in the form of those that have one."""
    ids = annotations.column("id")
    if None not in ids and ABSENT not in ids:
        return []
    missing = [place for place, id_ in enumerate(ids) if id_ is None or id_ is ABSENT]
    present = [id_ for id_ in ids if id_ is not None and id_ is not ABSENT]
    first = max((whole_number_of(id_) or 0 for id_ in present), default=0) + 1
    if first + len(missing) > LARGEST or any(whole_number_of(id_) is None for id_ in present):
        raise InputError(
            f"{annotations.where}: {annotations.count(len(missing))} have no id, the first at place "
            f"{missing[0] + 1} of the list, and others have one that is no number; {_MEND}"
        )
    for number, place in enumerate(missing, first):
        annotations.rows[place]["id"] = number
    return [
        f"id is missing in {annotations.count(len(missing))} (first: at place {missing[0] + 1} of the list): "
        f"numbered from {first}"
    ]


def _number_zero(annotations: Rows) -> list[str]:
    """Give another id to the annotation 0: pycocotools takes an object of that id for one not found."""
    ids = set(annotations.column("id"))
    if 0 not in ids:
        return []
    free = next(number for number in itertools.count(1) if number not in ids)
    zeros = [row for row in annotations.rows if row["id"] == 0]
    for row in zeros:
        row["id"] = free
    return [
        f"id is 0 in {annotations.count(len(zeros))}, whose object COCO's evaluation would never find: "
        f"numbered {free}"
    ]


def _read_own(rows: Rows) -> tuple[dict[str, int] | None, list[str]]:
    """The numbers of ids that are names, where they are; and what was changed."""
    ids = rows.column("id")
    if are_ids(ids):
        return None, []
    _refuse_other_kinds(rows, ids)
    numbers = [whole_number_of(id_) for id_ in ids]
    texts = {id_ for id_ in ids if type(id_) is str}
    has_names = None in numbers or len(set(map(whole_number_of, texts))) < len(texts)
    place = next(i for i, id_ in enumerate(ids) if type(id_) is not int)
    first = f"(first: {quote(ids[place])})"
    if has_names and texts.issuperset(ids):
        numbering: dict[str, int] = {}
        for row, id_ in zip(rows.rows, ids, strict=True):
            row["id"] = numbering.setdefault(id_, len(numbering) + 1)
        return numbering, [
            f"id is a name in {rows.count(len(ids))} {first}: numbered from 1 in the order of the file"
        ]
    _refuse_mixed(rows, ids, numbers)
    for row, number in zip(rows.rows, numbers, strict=True):
        row["id"] = number
    changed = sum(type(id_) is not int for id_ in ids)
    return None, [
        f"id {form_of(ids[place])} in {rows.count(changed)} {first}: read as the whole number"
    ]


def _refuse_other_kinds(rows: Rows, ids: list[Any]) -> None:
    """Refuse ids that are neither whole numbers nor text."""
    wrong = [
        (place, id_)
        for place, id_ in enumerate(ids, 1)
        if not (id_.strip() if type(id_) is str else whole_number_of(id_) is not None)
    ]
    if wrong:
        place, id_ = wrong[0]
        whole = "a whole number" + (" below 2**63" if type(id_) is int else "")
        has = "no id" if id_ is ABSENT else f"the id {quote(id_)}, which is not {whole}"
        raise InputError(
            f"{rows.where}: the {rows.kind} at place {place} of the list has {has}"
            f"{such(rows, len(wrong))}; {_MEND}"
        )


def _refuse_mixed(rows: Rows, ids: list[Any], numbers: list[int | None]) -> None:
    """Refuse names among numbers, and text of a number that another row has as a number."""
    taken = {id_ for id_ in ids if type(id_) is not str}
    seen: dict[int, str] = {}
    for id_, number in zip(ids, numbers, strict=True):
        if type(id_) is not str:
            continue
        if number is None or number in taken or seen.setdefault(number, id_) != id_:
            raise InputError(
                f"{rows.where}: the ids of the {rows.kinds} are numbers and text, and {quote(id_)} is no "
                f"number of its own; {_MEND}"
            )


def _read_references(
    annotations: Rows, key: str, owner: Rows, numbering: dict[str, int] | None
) -> list[str]:
    mend = f"give the id of one of the {owner.kinds}"

    def read_number(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
        if type(value) is int and abs(value) <= LARGEST:
            return value, None
        number = whole_number_of(value)
        if number is None:
            raise UnsureError(f"is not a whole number, as the ids of the {owner.kinds} are", mend)
        return number, Change(form_of(value), "read as the whole number")

    def read_name(value: Any, _row: dict[str, Any]) -> tuple[Any, Change | None]:
        if type(value) is not str or (owner.kind == "category" and value not in numbering):
            raise UnsureError(f"is not among the ids of the {owner.kinds}, which are names", mend)
        # Annotations of images that are not in the file are known by a number that no image has.
        number = numbering.setdefault(value, len(numbering) + 1)
        return number, Change("is a name", f"read as the number of its {owner.kind}")

    return read_field(annotations, key, read_number if numbering is None else read_name)
