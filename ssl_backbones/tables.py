"""Tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self, style: str = "simple") -> str:
        """Laid out in one of tabulate's styles."""
        from tabulate import tabulate

        return tabulate(self.rows, self.columns, tablefmt=style, disable_numparse=True)
