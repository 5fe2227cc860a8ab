"""Every row there is: `ROWS` of each module in rows/."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from .row import Row

FOLDER = Path(__file__).parent / "rows"


class UnknownRowError(Exception):
    """A name that is no row's, nor the beginning of one's; says which there are."""


def all_rows() -> list[Row]:
    """In the order of the modules' names, and within a module as it lists them."""
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
