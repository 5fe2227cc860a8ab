"""The format of a fidelity.yaml, read strictly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..tables import Table, format_cell

BUILT = "built."
"""How the keys begin of what a config builds, which are no keys of the config."""

_KEYS = {"field", "keys", "code", "published", "wording", "source", "ours", "reason", "configs"}
_TOP = {
    *("published", "configs", "controls", "include", "based_on", "sources", "stock", "inherited"),
    "rows",
}


@dataclass(frozen=True)
class Row:
    """A field of a published recipe.

    Attributes:
        keys: dotted keys of our configs that hold it, each with the same value. `built.` begins those that
            are looked up in what the config builds (see `built.py`), `weights` is what a run starts from.
        published: the published value, in our terms.
        source: `NAME:line` of one of the file's sources, or the name alone.
        ours: our value.
        reason: why it differs; "" exactly if it does not.
        wording: how the source writes its value, where that is not in our terms.
        code: dotted name of the code that holds the field where no config does; both values are words then.
        configs: that have it; () for all of the file.
        based: whether it is a row of the file that this one is based on.
    """

    field: str
    keys: tuple[str, ...]
    published: Any
    source: str
    ours: Any
    reason: str = ""
    wording: str = ""
    code: str = ""
    configs: tuple[str, ...] = ()
    based: bool = False

    @property
    def differs(self) -> bool:
        return bool(self.code) or normal(self.ours) != normal(self.published)


@dataclass(frozen=True)
class Fidelity:
    """What a fidelity.yaml says.

    Attributes:
        published: heading of what is compared with, such as "published (MMDetection)".
        configs: path of each config, by its file's stem.
        controls: those of `configs` that are no published recipe, but one from other weights.
        sources: what the names stand for that rows give as their source.
        stock: our configs' parts, each with the file of Detectron2's model zoo, and the name in it, that
            the inherited fields come from.
        inherited: patterns of fnmatch for the fields that are in no row: each has the value of `stock`.
    """

    published: str
    configs: Mapping[str, Path]
    sources: Mapping[str, str]
    stock: Mapping[str, str]
    inherited: Sequence[str]
    rows: Sequence[Row]
    controls: Sequence[str] = ()

    def rows_of(self, config: str) -> list[Row]:
        return [row for row in self.rows if not row.configs or config in row.configs]


def read(path: str | Path) -> Fidelity:
    """Read a fidelity.yaml.

    With the rows of the files that it includes, and of the config of another file that it is `based_on`, each
    as far as those before them do not replace them.

    Raises:
        InputError: a file is missing or no YAML, a row lacks something or has too much, differs without
            saying why, or says why without differing, or two rows of a config are of the same field.
    """
    path = Path(path)
    content = _content(path)
    base = _base(path, content)
    for missing in {"published", "configs", "rows"} - set(content):
        raise InputError(f"{path} has no `{missing}`")
    configs = {name: path.parent / file for name, file in content["configs"].items()}
    files = [path, *(path.parent / file for file in content.get("include", ()))]
    contents = [content, *map(_content, files[1:])]
    sources = dict(base.sources) if base else {}
    sources |= {k: v for one in contents for k, v in one.get("sources", {}).items()}
    rows, *included = (
        [
            _row(row, f"{file}: row {number}", sources, configs)
            for number, row in enumerate(one.get("rows", ()), 1)
        ]
        for file, one in zip(files, contents, strict=True)
    )
    for one in included:
        rows += _not_replaced(one, rows, configs)
    if base:
        of_base = base.rows_of(content["based_on"]["config"])
        of_base = [replace(row, configs=(), based=True) for row in of_base]
        rows += _not_replaced(of_base, rows, configs)
    stock = (dict(base.stock) if base else {}) | content.get("stock", {})
    inherited = [*(base.inherited if base else ()), *content.get("inherited", ())]
    controls = tuple(content.get("controls", ()))
    fidelity = Fidelity(content["published"], configs, sources, stock, inherited, rows, controls)
    if set(controls) - set(configs):
        raise InputError(f"{path}: {set(controls) - set(configs)} are no configs of this file")
    for problem in _clashes(fidelity):
        raise InputError(f"{path}: {problem}")
    return fidelity


def normal(value: Any) -> Any:
    """`value` as a recipe has it: whole numbers as int, sequences as list."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normal(item) for item in value]
    return value


def covers(key: str, field: str) -> bool:
    """Whether a row's key is `field`, or holds it."""
    return field == key or field.startswith(f"{key}.")


def _base(path: Path, content: Mapping[str, Any]) -> Fidelity | None:
    if "based_on" not in content:
        return None
    base = read(path.parent / content["based_on"]["file"])
    if (config := content["based_on"]["config"]) not in base.configs:
        raise InputError(f"{path} is based on {config}, which is none of {', '.join(base.configs)}")
    return base


def _not_replaced(
    base: Sequence[Row], own: Sequence[Row], configs: Mapping[str, Path]
) -> list[Row]:
    """The rows of `base`, each for those of its configs that have no row of their own for its field."""
    kept = []
    for row in base:
        names = [
            name
            for name in (row.configs or configs)
            if not any(
                covers(key, other) or covers(other, key)
                for one in own
                if not one.configs or name in one.configs
                for other in one.keys
                for key in row.keys
            )
        ]
        if names:
            kept.append(replace(row, configs=() if len(names) == len(configs) else tuple(names)))
    return kept


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        InputError: it is missing, or no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {error}") from error


def _content(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) - _TOP:
        raise InputError(f"{path} may have {', '.join(sorted(_TOP))} and nothing else")
    return content


def _row(given: Any, where: str, sources: Mapping[str, str], configs: Mapping[str, Path]) -> Row:
    if not isinstance(given, dict) or set(given) - _KEYS:
        raise InputError(f"{where} may have {', '.join(sorted(_KEYS))} and nothing else")
    for missing in {"field", "published", "source"} - set(given):
        raise InputError(f"{where} has no `{missing}`")
    where = f"{where} ({given['field']})"
    if ("keys" in given) == ("code" in given):
        raise InputError(f"{where} needs either `keys` or `code`")
    keys = given.get("keys", [])
    row = Row(
        field=given["field"],
        keys=(keys,) if isinstance(keys, str) else tuple(keys),
        published=given["published"],
        source=given["source"],
        ours=given.get("ours", given["published"]),
        reason=given.get("reason", ""),
        wording=str(given.get("wording", "")),
        code=given.get("code", ""),
        configs=tuple(given.get("configs", ())),
    )
    if row.source.partition(":")[0] not in sources:
        raise InputError(f"{where}: its source {row.source!r} is none of {', '.join(sources)}")
    if set(row.configs) - set(configs):
        raise InputError(f"{where}: {set(row.configs) - set(configs)} are no configs of this file")
    if row.differs and not row.reason:
        raise InputError(f"{where} differs from what is published and gives no `reason`")
    if row.reason and not row.differs:
        raise InputError(f"{where} gives a `reason` and does not differ")
    return row


def _clashes(fidelity: Fidelity) -> Iterator[str]:
    """Fields that two rows of one config hold."""
    for config in fidelity.configs:
        keys = [(key, row) for row in fidelity.rows_of(config) for key in row.keys]
        for number, (key, row) in enumerate(keys):
            for other, another in keys[number + 1 :]:
                if covers(key, other) or covers(other, key):
                    yield f"{config}: {row.field!r} and {another.field!r} both hold {other}"


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


def format_value(value: Any) -> str:
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
            f"{name}={item if isinstance(item, list) else format_value(item)}"
            for name, item in arguments.items()
        )
        return f"{value['_target_'].rpartition('.')[2]}({inside})"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {format_value(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(format_value, value)) or "none"
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
    value = row.wording or format_value(row.published)
    is_of_controls = set(row.configs or fidelity.configs) <= set(fidelity.controls)
    return f"*not published, a control*: {value}" if is_of_controls else value


def _here(row: Row) -> str:
    if row.code:
        return f"**{format_cell(row.ours)}** (`{row.code.rpartition('.')[2]}`): {format_cell(row.reason)}"
    if row.differs:
        return f"**{format_cell(format_value(row.ours))}**: {format_cell(row.reason)}"
    is_group = isinstance(row.ours, Mapping) and "_target_" not in row.ours
    if not row.wording or is_group:
        return "the same"
    # A name says what the value is of, unless the field's own already does.
    name = row.keys[0].rpartition(".")[2]
    is_name = not (row.keys[0].startswith(BUILT) or name.isdigit() or name == "_target_")
    value = row.ours.rpartition(".")[2] if name == "_target_" else format_value(row.ours)
    return format_cell(f"{name} = {value}" if is_name else value)
