"""Tables as people and programs read them: text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self, style: str = "simple") -> str:
        """Laid out in one of tabulate's styles."""
        from tabulate import tabulate

        return tabulate(self.rows, self.columns, tablefmt=style, disable_numparse=True)


def format_row(cells: Iterable[Any]) -> str:
    """A line of a Markdown table; what stands in the cells is Markdown already."""
    return f"| {' | '.join(map(str, cells))} |"


def format_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line for the columns' names and one a row; empty where a row has not the column.

    Raises:
        ValueError: a row has what no column is for.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
