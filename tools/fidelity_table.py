#!/usr/bin/env python
"""Print a fidelity.yaml as a Markdown table, or put it into a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssl_backbones.errors import InputError, run_command

EXAMPLES = """
examples:
  tools/fidelity_table.py projects/voc_c4/fidelity.yaml
  put it into a page, between the markers of its folder:
    tools/fidelity_table.py projects/voc_c4/fidelity.yaml --into docs/protocols.md

tests/configs/test_fidelity.py says whether the tables in the pages are up to date.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="fidelity_table.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("file", type=Path, metavar="FILE", help="a fidelity.yaml")
    add(
        "--into",
        type=Path,
        metavar="PAGE",
        help="replace what is between the folder's markers in this page",
    )
    return result


def run(args: argparse.Namespace) -> int:
    from ssl_backbones.fidelity import insert, read, table
    from ssl_backbones.files import write_atomically

    text = table(read(args.file))
    if args.into is None:
        print(text, end="")
        return 0
    try:
        page = args.into.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {args.into}: {error.strerror}") from error
    page = insert(page, text, args.file.resolve().parent.name)
    write_atomically(args.into, lambda file: file.write(page.encode()))
    print(f"table: {args.into}\nnext: python -m pytest tests/configs/test_fidelity.py")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
