#!/usr/bin/env python
"""Print the fields in which two runs differ: those that affect the result, then versions and machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssl_backbones.errors import run_command

EXAMPLES = """
examples:
  tools/compare_runs.py output/moco_1x output/moco_1x_again
  only say by the exit status whether they are the same recipe:
    tools/compare_runs.py output/moco_1x output/moco_1x_again > /dev/null

Exit status: 0 nothing that affects the result differs, 1 something does, 2 a folder has no record.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="compare_runs.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("run_a", "run_b"):
        result.add_argument(
            name, type=Path, metavar=name.upper(), help="a train.output_dir with its run.json"
        )
    return result


def run(args: argparse.Namespace) -> int:
    from ssl_backbones.engine.record import differences, environment_differences
    from ssl_backbones.tables import Table

    recipe = differences(args.run_a, args.run_b)
    around = environment_differences(args.run_a, args.run_b)
    for what, rows in (
        ("affecting the result", recipe),
        ("of versions, machine and code", around),
    ):
        differences = "difference" if len(rows) == 1 else "differences"
        print(f"{len(rows) or 'no'} {differences} {what}" + (":" if rows else ""))
        if rows:
            table = Table("", ("field", str(args.run_a), str(args.run_b)), rows)
            print(table.format_text(widths=[None, 40, 40]))
    return 1 if recipe else 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
