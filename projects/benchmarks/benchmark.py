"""Side by side with what a user would take instead: every row, or those named.

Each row is measured in a process of its own, both sides in turn, and their results are compared: a row
whose results disagree fails. The table goes to results/MACHINE.{json,md} beside this file, where the rows
that were measured replace their old selves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # In place of this folder, whose profile.py would hide Python's own.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.benchmarks import measuring, results
from projects.benchmarks.machine import circumstances, file_stem, machine
from projects.benchmarks.row import Row, UnknownRowError, all_rows, select

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/benchmarks/benchmark.py\n"
            "  python projects/benchmarks/benchmark.py --row mapper --row masks --repeats 9\n\n"
            "The exit status is 1 if a row's results disagree or a row ends with an error; a goal that is "
            "missed is stated and no failure."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--row",
        action="append",
        default=[],
        metavar="NAME",
        help="a row's name or the beginning of several's; may be given again (default: every row)",
    )
    add("--repeats", type=int, default=5, metavar="N", help="of each side (default: 5)")
    add("--small", action="store_true", help="tiny inputs, and no results are kept: does it run?")
    add(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="where the table goes (default: results/ beside this file)",
    )
    add("--folder", metavar="FOLDER", help="where inputs are made (default: a temporary folder)")
    add("--list", action="store_true", help="say what each row measures and end")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    every = all_rows()
    try:
        rows = select(options.row, every)
    except UnknownRowError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name:28} {row.what}")
        return 0
    folder = options.results or (None if options.small else HERE / "results")
    measured: dict[str, dict[str, Any]] = {}
    try:
        measure_all(rows, options, every, folder, measured)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        show(measured)
    return int(any(row["verdict"] in measuring.BAD for row in measured.values()))


def measure_all(
    rows: list[Row],
    options: argparse.Namespace,
    every: list[Row],
    folder: Path | None,
    measured: dict[str, dict[str, Any]],
) -> None:
    """Measure each row, add it to `measured`, and keep it in `folder` at once, whatever comes after it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    kind = machine()
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(rows))
        for row in rows:
            before = circumstances()
            result = in_own_process(
                row,
                options,
                lambda step, n=row.name: progress.update(task, description=f"{n}: {step}"),
            )
            measured[row.name] = results.record(row, result, before)
            if folder is not None:
                path = folder / f"{file_stem(kind)}.json"
                order = [each.name for each in every]
                results.write(path, results.merge(path, kind, measured, order))
            progress.advance(task)


def in_own_process(row: Row, options: argparse.Namespace, on_step) -> dict[str, Any]:
    """`measuring.measure` of the row in a new process; what it prints is shown only if it fails."""
    receive, send = os.pipe()
    command = [sys.executable, "-m", measuring.__name__, row.name]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, folder, "--repeats", str(options.repeats), "--report", str(send)]
            + ["--small"] * options.small,
            cwd=CHECKOUT,
            pass_fds=[send],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        os.close(send)
        result = None
        try:
            with os.fdopen(receive) as report:
                for line in report:
                    event = json.loads(line)
                    result = event.get("result", result)
                    if "step" in event:
                        on_step(event["step"])
        finally:
            process.wait()
        if result is None:
            result = {
                "verdict": measuring.FAILED,
                "reason": f"its process ended with status {process.returncode}",
            }
        if result["verdict"] == measuring.FAILED:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
    return result


def show(measured: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("row", "other", "ours", "ratio", "goal (must)", "verdict")
    for name, row in measured.items():
        table.add_row(*results.cells(name, row))
    if measured:
        # Off a terminal rich would break the lines at 80 columns.
        Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    sys.exit(main())
