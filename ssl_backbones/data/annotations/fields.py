"""A field of many images, annotations or categories: what is odd is read and counted, or refused."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from ...errors import InputError

ABSENT: Any = object()
"""Stands for a field that is not there, where null is another thing."""

_BATCH = 2048
"""Rows whose values stay in the processor's cache while they are looked at several times."""

LARGEST = 2**63 - 1
"""Of whole numbers: what int64 holds, in which tools keep ids."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class UnsureError(Exception):
    """A value whose meaning is not sure: `reason` ends the words "which ...", `mend` says what to do.

    There is no `reason` where the value is not there.
    """

    def __init__(self, reason: str, mend: str = "correct it"):
        super().__init__(reason)
        self.reason, self.mend = reason, mend


class Rows(NamedTuple):
    """The images, annotations or categories of a file."""

    where: str  # the file, as the first words of a message
    kind: str  # "image", "annotation" or "category"
    rows: list[dict[str, Any]]
    odd: Set[str]  # fields that are not in COCO's own form in some of them, as `find_odd` tells

    @property
    def kinds(self) -> str:
        return "categories" if self.kind == "category" else f"{self.kind}s"

    def column(self, key: str) -> list[Any]:
        return [row.get(key, ABSENT) for row in self.rows]

    def count(self, number: int) -> str:
        return f"{number:,} {self.kind if number == 1 else self.kinds}"


def batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """All rows in turn, as many at once as are quick to look at several times."""
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def find_odd(
    rows: list[dict[str, Any]], forms: Mapping[str, Callable[[list[Any]], bool]]
) -> set[str]:
    """The fields that are not in COCO's own form in all rows.

    Args:
        forms: of a field, whether all of some values are in this form (`ABSENT`: one that is not there), in
            little time where they are.
    """
    odd: set[str] = set()
    for batch in batches(rows):
        for key, are_canonical in forms.items():
            if key not in odd and not are_canonical([row.get(key, ABSENT) for row in batch]):
                odd.add(key)
    return odd


class Change(NamedTuple):
    """How a value differs from COCO's form and what it is read as, as in "is null" and "read as 0"."""

    state: str
    outcome: str


Read = Callable[[Any, dict[str, Any]], tuple[Any, Change | None]]
"""From a value and its row to the value in COCO's form (`ABSENT`: none) and what was changed."""


def read_field(rows: Rows, key: str, read: Read) -> list[str]:
    """Bring a field of every row into COCO's form, in place; the rows' ids must be numbers already.

    Returns:
        A sentence for each kind of change, with its count and the first row.

    Raises:
        InputError: `read` finds a value unsure: the first such, and how many are so for the same reason.
    """
    changes: dict[Change, list[Any]] = {}
    faults: dict[tuple[bool, str, str], list[tuple[Any, Any]]] = {}
    for row in rows.rows:
        value = row.get(key, ABSENT)
        try:
            new, change = read(value, row)
        except UnsureError as fault:
            place = (value is ABSENT, fault.reason, fault.mend)
            faults.setdefault(place, []).append((row["id"], value))
            continue
        if change is not None:
            changes.setdefault(change, []).append(row["id"])
            if new is ABSENT:
                del row[key]
            else:
                row[key] = new
    for (is_absent, reason, mend), places in faults.items():
        id_, value = places[0]
        has = f"no {key}" if is_absent else f"the {key} {quote(value)}"
        which = f", which {reason}" if reason else ""
        raise InputError(
            f"{rows.where}: {rows.kind} {id_} has {has}{which}{such(rows, len(places))}; {mend}"
        )
    return [
        f"{key} {state} in {rows.count(len(ids))} (first: {ids[0]}): {outcome}"
        for (state, outcome), ids in changes.items()
    ]


def such(rows: Rows, number: int) -> str:
    """How many rows share a fault, where it is not one alone."""
    return f" ({number:,} such {rows.kinds})" if number > 1 else ""


def quote(value: Any) -> str:
    """A value of a file for a message: short, on one line, in JSON's words where it is a constant."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)


def number_of(value: Any) -> int | float | None:
    """The finite number that this is, or is the text of; None where it is none."""
    if type(value) is str:
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        value = float(text) if _NUMBER.fullmatch(text) else None
    if type(value) not in (int, float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        # A whole number past the floats.
        return None


def whole_number_of(value: Any) -> int | None:
    """The whole number that this is, or is the text of; None where it is none, or past int64."""
    number = number_of(value)
    if type(number) is float:
        # Past 2**53, neighbours share a float.
        number = int(number) if number.is_integer() and abs(number) < 2**53 else None
    return number if number is not None and abs(number) <= LARGEST else None


def form_of(value: Any) -> str:
    """How a number is written that is not in COCO's form."""
    return "is text" if type(value) is str else "is written with a decimal point"


def are_finite(numbers: list[Any]) -> bool:
    """Whether all in a list are finite numbers and none a bool, in little time where they are."""
    if not set(map(type, numbers)) <= {int, float}:
        return False
    try:
        # Infinity and NaN stay in a sum. One that overflows is looked through.
        return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))
    except OverflowError:
        return all(number_of(number) is not None for number in numbers)
