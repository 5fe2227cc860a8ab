"""What a benchmark is made of: rows, each the same work done by two sides, and which rows there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "rows"


class Disagreement(AssertionError):
    """The two sides did not give the same result: their times mean nothing."""


class Comparison(NamedTuple):
    """The work of a row, prepared: inputs are made, whatever is not to be measured is done.

    Attributes:
        stock: does the work as a user would without this project; returns the result.
        ours: does the same with this project; returns the result.
        check: takes stock's and our result and raises `Disagreement` where they differ.
        opponent: what `stock` is, in words.
        limit: measures what no implementation can go below, in the row's unit: (words, value); or None.
        measured: the two sides return (result, value) and have measured the value themselves, in the row's
            unit: the peak memory of a process, say. Otherwise the wall time of each call is taken.
        notes: what else a reader of the result must know, a sentence each; called after the last repeat.
    """

    stock: Callable[[], Any]
    ours: Callable[[], Any]
    check: Callable[[Any, Any], None]
    opponent: str = "Detectron2"
    limit: Callable[[], tuple[str, float]] | None = None
    measured: bool = False
    notes: Callable[[], list[str]] = list


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: as in `make benchmark ROW=name`, which also takes the beginning of names.
        what: what is measured, on what input.
        same: what "the same result" means.
        goal: largest ratio of ours to stock that is hoped for; None for a row that only tells.
        must: largest ratio that is acceptable; None if there is no such bound.
        prepare: `prepare(folder, small)` makes the inputs in `folder` and returns the comparison; with
            `small`, of a size that a test can afford.
        unit: "s" or "MiB".
        needs: None, or a function that says why the row cannot run here ("no GPU"), None if it can.
        absolute: goal and must bound our own value, in the row's unit, instead of the ratio.
        long: takes many minutes: one repeat without a warm-up, and no test runs it.
    """

    name: str
    what: str
    same: str
    goal: float | None
    must: float | None
    prepare: Callable[[Path, bool], Comparison]
    unit: str = "s"
    needs: Callable[[], str | None] | None = None
    absolute: bool = False
    long: bool = False


class UnknownRowError(Exception):
    """A name that is no row's, nor the beginning of one's; says which there are."""


def all_rows() -> list[Row]:
    """`ROWS` of each module in rows/, in the order of the modules' names, and as each lists them."""
    modules = [
        importlib.import_module(f"{__package__}.rows.{file.stem}")
        for file in sorted(FOLDER.glob("*.py"))
    ]
    rows = [row for module in modules for row in module.ROWS]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), f"two rows have one name: {sorted(names)}"
    return rows


def select(names: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The rows of these names; a name that is none's stands for all that begin with it. Without names, all.

    Raises:
        UnknownRowError: no row's name begins so.
    """
    chosen = []
    for name in names:
        exact = [row for row in rows if row.name == name]
        found = exact or [row for row in rows if row.name.startswith(name)]
        if not found:
            known = ", ".join(row.name for row in rows)
            raise UnknownRowError(f"no row is called {name!r}; there are {known}")
        chosen += [row for row in found if row not in chosen]
    return chosen if names else list(rows)
