#!/usr/bin/env python
"""Say which initialisation of the backbone is better, and which are tied, from runs with several seeds."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ssl_backbones.errors import run_command

EXAMPLES = """
examples:
  the table of a study, and its figure:
    tools/compare_init.py projects/transfer_study/results/cells.csv --figure ap_against_budget.png
  your own runs, three seeds of two backbones, each with a train.seed of its own:
    tools/compare_init.py output/moco_seed* output/swav_seed*
  what was expected before the runs, and whether it came out:
    tools/compare_init.py projects/transfer_study/results/cells.csv --expect 'supervised > scratch'

A difference of means inside the spread over seeds (the larger one of the two ranges) is called a tie. With
fewer than three seeds there is no verdict. Run folders are told apart by their weights; what else differs
between them than weights, seed, labels and freezing is named.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="compare_init.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="the CSV of a study, or run folders (train.output_dir) with run.json and inference/",
    )
    add(
        "--metric",
        action="append",
        metavar="NAME",
        help="such as bbox/AP50; may be given again (default: bbox/AP and segm/AP)",
    )
    add(
        "--reference",
        default="",
        metavar="ARM",
        help="what the others are compared with (default: the first)",
    )
    add(
        "--expect",
        action="append",
        default=[],
        metavar="'A > B'",
        help="an order that was expected; 'PROTOCOL: A > B' for one protocol; may be given again",
    )
    add("--markdown", type=Path, metavar="FILE", help="write the tables there as well")
    add("--figure", type=Path, metavar="FILE", help="draw AP against the budget of labels as a PNG")
    return result


def run(args: argparse.Namespace) -> None:
    from ssl_backbones.files import write_atomically
    from ssl_backbones.studies.initializations import (
        draw_budget_curves,
        parse_expectation,
        read_results,
        tables,
    )

    expectations = [parse_expectation(text) for text in args.expect]
    results = read_results(args.paths)
    metrics = args.metric or ["bbox/AP", "segm/AP"]
    made = tables(results, metrics, reference=args.reference, expectations=expectations)
    if args.figure:
        draw_budget_curves(results, metrics, args.figure)
    if args.markdown:
        page = (
            "\n\n".join(
                f"## {table.title}\n\n{table.format_markdown(aligned=True)}" for table in made
            )
            + "\n"
        )
        write_atomically(args.markdown, lambda file: file.write(page.encode()))
    for table in made:
        print(f"{table.title}\n{table.format_text()}\n")
    for what, path in (("tables", args.markdown), ("figure", args.figure)):
        if path:
            print(f"{what}: {path}")
    runs = [path for path in args.paths if path.is_dir()]
    if len(runs) > 1:
        print(f"next: tools/compare_runs.py {runs[0]} {runs[1]}")
    elif not args.figure:
        print(f"next: tools/compare_init.py {args.paths[0]} --figure ap_against_budget.png")


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
