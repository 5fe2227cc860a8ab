"""A fidelity.yaml as a Markdown table of docs/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from ..tables import Table, format_cell
from .rows import BUILT, Fidelity, Row

BEGIN = "<!-- fidelity of {}: made by tools/fidelity_table.py, not by hand -->"
END = "<!-- end of fidelity of {} -->"
"""What a table stands between in a page, with the name of the folder that its file is in."""


def table(fidelity: Fidelity) -> str:
    """A row a field: published value, ours, why they differ, source; below, what the sources are.

    What only controls have says so, since nobody has published it. Rows of the file that this one is based
    on are left out.
    """
    rows = [row for row in fidelity.rows if not row.based]
    columns = ["field", format_cell(fidelity.published), "here", "source"]
    fields = Table("", columns, [_cells(row, fidelity) for row in rows])
    used = dict.fromkeys(row.source.partition(":")[0] for row in rows)
    lines = [fields.format_markdown(), "", "Sources:", ""]
    lines += [f"- `{name}`: {fidelity.sources[name]}" for name in used]
    return "\n".join(lines) + "\n"


def insert(page: str, table: str, name: str) -> str:
    """`page` with `table` between the markers of the folder `name`; a page may hold several tables.

    Raises:
        InputError: the page has not one pair of them.
    """
    begin, end = BEGIN.format(name), END.format(name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise InputError(f"the page needs one line {begin} and, below it, one line {end}")
    before, after = page.partition(begin)[0], page.partition(end)[2]
    return f"{before}{begin}\n\n{table}\n{end}{after}"


def shown(value: Any) -> str:
    """A value as one reads it: lazy calls as calls, large numbers in groups of three digits."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, Mapping) and "_target_" in value:
        arguments = {name: item for name, item in value.items() if name != "_target_"}
        inside = ", ".join(
            f"{name}={item if isinstance(item, list) else shown(item)}"
            for name, item in arguments.items()
        )
        return f"{value['_target_'].rpartition('.')[2]}({inside})"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {shown(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def _cells(row: Row, fidelity: Fidelity) -> list[str]:
    only = ""
    if row.configs and set(row.configs) != set(fidelity.configs):
        only = f" ({', '.join(row.configs)})"
    return [
        format_cell(f"{row.field}{only}"),
        format_cell(_published(row, fidelity)),
        _here(row),
        f"`{format_cell(row.source)}`",
    ]


def _published(row: Row, fidelity: Fidelity) -> str:
    value = row.wording or shown(row.published)
    is_of_controls = set(row.configs or fidelity.configs) <= set(fidelity.controls)
    return f"*not published, a control*: {value}" if is_of_controls else value


def _here(row: Row) -> str:
    if row.code:
        return f"**{format_cell(row.ours)}** (`{row.code.rpartition('.')[2]}`): {format_cell(row.reason)}"
    if row.differs:
        return f"**{format_cell(shown(row.ours))}**: {format_cell(row.reason)}"
    is_group = isinstance(row.ours, Mapping) and "_target_" not in row.ours
    if not row.wording or is_group:
        return "the same"
    # A name says what the value is of, unless the field's own already does.
    name = row.keys[0].rpartition(".")[2]
    is_name = not (row.keys[0].startswith(BUILT) or name.isdigit() or name == "_target_")
    value = row.ours.rpartition(".")[2] if name == "_target_" else shown(row.ours)
    return format_cell(f"{name} = {value}" if is_name else value)
