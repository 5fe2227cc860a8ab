#!/usr/bin/env python
"""Say what came out of runs, and how sure it is: one page with numbers, curves, errors and pictures."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_backbones.errors import InputError, run_command

if TYPE_CHECKING:
    from ssl_backbones.report.content import Report

PAGE = "report.html"
EXAMPLES = """
examples:
  one run; the page lies in its folder:
    tools/report.py output/moco_1x
  is the second better than the first? Also as tables for a README and for a spreadsheet:
    tools/report.py output/moco_1x output/swav_1x --out moco_or_swav.html \\
        --markdown moco_or_swav.md --csv moco_or_swav.csv
  runs on a test set that Detectron2 does not know by name:
    tools/report.py output/mine --annotations datasets/mine/test.json --images datasets/mine/test

what it leaves:
  report.html                      one file that loads nothing: open it in a browser, send it to others
  in the folder of each run:       results.csv, results.png, pr_curves_box.png, pr_curves_mask.png,
                                   confusion_matrix.png, predictions_beside_labels.jpg

What a run lacks is said on the page. The first run is the one that the others are compared with.
Exit status: 0 the page is written, 2 a folder does not exist or an option is wrong.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="report.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a train.output_dir")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the page (default {PAGE}, of a single run in its folder)",
    )
    add("--markdown", type=Path, metavar="FILE", help="also tables for a README")
    add("--csv", type=Path, metavar="FILE", help="also a table with a row for each run")
    add(
        "--min-score",
        type=float,
        default=0.5,
        metavar="S",
        help="detections below it are not drawn, and do not count in the confusion matrix (default 0.5)",
    )
    add(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="of the test images, for the intervals (default 1000)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the resamples and the random pictures (default 0)",
    )
    add(
        "--num-pictures",
        type=int,
        default=4,
        metavar="N",
        help="of the best, of the worst and of random test images (default 4); 0 for none",
    )
    add("--annotations", type=Path, metavar="FILE", help="COCO JSON of the test set")
    add("--images", type=Path, metavar="DIR", help="the test set's images")
    add("--no-run-files", action="store_true", help="write nothing into the folders of the runs")
    return result


def run(args: argparse.Namespace) -> int:
    _check(args)
    # What is not installed is said before the long analysis.
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401

    from ssl_backbones.report import csv_tables, markdown, page
    from ssl_backbones.report.building import build

    report = build(
        args.runs,
        min_score=args.min_score,
        resamples=args.resamples,
        seed=args.seed,
        annotations=args.annotations,
        image_root=args.images,
        command_line=sys.argv,
    )
    out = args.out or (args.runs[0] / PAGE if len(args.runs) == 1 else Path(PAGE))
    texts = {out: page.render(report, num_pictures=args.num_pictures)}
    if args.markdown:
        texts[args.markdown] = markdown.render(report)
    if args.csv:
        texts[args.csv] = csv_tables.runs_csv(report)
    for path, text in texts.items():
        _write(path, text)
    if not args.no_run_files:
        _write_run_files(report)
    print(_closing_words(args, report, out))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.num_pictures < 0:
        raise InputError(f"--num-pictures {args.num_pictures}: give 0 or more")
    if (args.images is None) != (args.annotations is None):
        raise InputError("--annotations and --images belong together: give both")
    named = [path for path in (args.out, args.markdown, args.csv) if path]
    if len({path.resolve() for path in named}) < len(named):
        raise InputError("--out, --markdown and --csv: give different files")
    for path in named:
        if not path.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no folder {path.parent}")


def _write(path: Path, text: str) -> None:
    from ssl_backbones.files import write_atomically

    write_atomically(path, lambda file: file.write(text.encode()))


def _write_run_files(report: Report) -> None:
    """Into the folders that can be written: a run of somebody else's may be read only."""
    from ssl_backbones.progress import progress_bar
    from ssl_backbones.report.csv_tables import write_results
    from ssl_backbones.report.run_files import write_run_files

    with progress_bar(len(report.runs)) as advance:
        for content in report.runs:
            try:
                write_results(content)
                write_run_files(report, content)
            except InputError as error:
                print(f"left out: {error}", file=sys.stderr)
            advance()


def _closing_words(args: argparse.Namespace, report: Report, out: Path) -> str:
    """The verdict, where everything is, and what to run next."""
    from ssl_backbones.report.content import TASKS
    from ssl_backbones.report.page import sentences

    lines = [
        sentence
        for task, word in TASKS.items()
        if any(f"{task}/AP" in content.verdicts for content in report.runs)
        for sentence in sentences(report.runs, task, word)
    ]
    for content in report.runs:
        lines += [f"{content.name}: {problem}" for problem in content.problems]
    lines += report.problems
    lines.append(f"Page: {out} (open it in a browser)")
    lines += [f"Tables: {path}" for path in (args.markdown, args.csv) if path]
    if not args.no_run_files:
        folders = ", ".join(str(folder) for folder in args.runs)
        lines.append(f"Curves, confusion matrix and predictions as files: {folders}")
    if len(args.runs) == 1:
        command = shlex.join(["tools/report.py", str(args.runs[0]), "OTHER_RUN"])
        lines.append(f"Next, is another run better: {command}")
    else:
        command = shlex.join(["tools/compare_runs.py", *map(str, args.runs[:2])])
        lines.append(f"Next, in which fields do they differ: {command}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
