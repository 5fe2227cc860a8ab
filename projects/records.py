"""What a study keeps: a CSV with a row for each of its runs, and the settings that all of them have."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssl_backbones.errors import InputError
from ssl_backbones.files import write_atomically
from ssl_backbones.tables import format_csv

Row = Mapping[str, str]


def read_rows(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Rows by what stands in their first column; {} where there is no file.

    Raises:
        InputError: the file has other columns.
    """
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != tuple(columns):
            raise InputError(f"{path} is not the record of this study: move it away")
        return {row[columns[0]]: row for row in table}


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    text = format_csv(columns, rows)
    write_atomically(path, lambda file: file.write(text.encode()))


def check_settings(path: Path, settings: Mapping[str, object]) -> None:
    """Write what the whole study depends on, or refuse to go on with other settings than it began with.

    Args:
        settings: as JSON gives them back.

    Raises:
        InputError: naming the first setting that differs.
    """
    text = json.dumps(settings, indent=1) + "\n"
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        write_atomically(path, lambda file: file.write(text.encode()))
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: give another --output, or remove it") from error
    for name, value in settings.items():
        if before.get(name) != value:
            raise InputError(
                f"{path.parent} holds a study with {name}={before.get(name)} and this one has {value}: give "
                "the same, or another --output"
            )
