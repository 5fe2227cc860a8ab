"""A table, written as text, Markdown, CSV or HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """Rows of cells below the names of their columns; the title is "" where something else says it.

    How a number is rounded is decided by whoever makes the table: a cell is written as `str` has it, None as
    nothing.
    """

    title: str
    columns: Sequence[Any]
    rows: Sequence[Sequence[Any]]

    @classmethod
    def of_records(
        cls, title: str, records: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
    ) -> Table:
        """A row a mapping, with nothing in place of what it lacks.

        Args:
            columns: keys of the mappings; all that there are, as they come, if none are given.

        Raises:
            ValueError: a mapping has what no column is for.
        """
        records = list(records)
        keys = dict.fromkeys(key for record in records for key in record)
        columns = list(keys if columns is None else columns)
        if unknown := keys.keys() - columns:
            raise ValueError(f"no column is for {', '.join(sorted(unknown))}")
        return cls(title, columns, [[record.get(key) for key in columns] for record in records])

    def format_text(
        self, style: str = "simple", *, widths: Sequence[int | None] | None = None
    ) -> str:
        """In columns, for a terminal.

        Args:
            style: of tabulate: "simple" has a line below the names, "plain" has none.
            widths: characters of each column beyond which its cells are broken; None for any.
        """
        from tabulate import tabulate

        options = {"tablefmt": style, "disable_numparse": True, "maxcolwidths": widths}
        return tabulate(self.rows, self.columns, **options)

    def format_markdown(self, *, aligned: bool = False, rule: str = "---") -> str:
        """As GitHub shows it, the title left out; cells are Markdown (`format_cell` makes it of text).

        Args:
            aligned: pad cells, so that columns stand below each other in the file as well.
            rule: what stands below the name of a column, where cells are not padded.
        """
        if aligned:
            return self.format_text("github")
        rows = [self.columns, *self.rows]
        head, *body = (f"| {' | '.join(map(_text, row))} |" for row in rows)
        return "\n".join([head, f"|{f'{rule}|' * len(self.columns)}", *body])

    def format_csv(self) -> str:
        """With a line of the columns' names; a float to its last bit."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(self.columns)
        table.writerows(self.rows)
        return text.getvalue()

    def format_html(self, css_class: str) -> Markup:
        """A <table> with the title for its caption, in which the first cell of a row is its head.

        Cells are text, and escaped, but for those that are `Markup`.
        """
        from markupsafe import Markup

        cell, head = Markup("<td>{}</td>"), Markup('<th scope="col">{}</th>')
        row = Markup('<tr><th scope="row">{}</th>{}</tr>\n')
        rows = (
            row.format(first, Markup("").join(map(cell.format, rest)))
            for first, *rest in (
                ["" if one is None else one for one in cells] for cells in self.rows
            )
        )
        page = Markup(
            '<table class="{}"><caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table>'
        )
        heads = Markup("").join(map(head.format, self.columns))
        return page.format(css_class, self.title, heads, Markup("").join(rows))


def format_cell(value: Any) -> str:
    """Markdown on one line that a table can hold: what would end a cell or begin HTML is written out."""
    return " ".join(_text(value).split()).replace("|", "\\|").replace("<", "&lt;")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
