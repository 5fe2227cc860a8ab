#!/usr/bin/env python
"""Say what came out of runs, and how sure it is: one page with numbers, curves, errors and pictures."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_backbones import tool_command
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.report.wording import encodable

if TYPE_CHECKING:
    from ssl_backbones.report.content import Report

COMMAND, PAGE = "tools/report.py", "report.html"
EXAMPLES = """
examples:
  one run; the page lies in its folder:
    tools/report.py output/moco_1x
  is the second better than the first? Also as tables for a README and for a spreadsheet:
    tools/report.py output/moco_1x output/swav_1x --out moco_or_swav.html \\
        --markdown moco_or_swav.md --csv moco_or_swav.csv
  only the pictures in the run's folder, without the page and its intervals:
    tools/report.py output/moco_1x --pictures-only
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
    add(
        "--data",
        metavar="PATH",
        help="where data of your own lies now, if it has moved since the runs",
    )
    add("--annotations", type=Path, metavar="FILE", help="COCO JSON of the test set")
    add("--images", type=Path, metavar="DIR", help="the test set's images")
    add("--no-run-files", action="store_true", help="write nothing into the folders of the runs")
    add(
        "--pictures-only",
        action="store_true",
        help="write the files of the runs' folders and no page: no interval is computed",
    )
    return result


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Make the report that `words`, from which `args` are, ask for."""
    out, remark = _page_path(args)
    _check(args, out)
    # What is not installed is said before the long analysis.
    import matplotlib  # noqa: F401

    if not args.pictures_only:
        import jinja2  # noqa: F401

    if args.data:
        from ssl_backbones.data.folders import find_splits
        from ssl_backbones.data.own_data import read_record, split_for

        tested = [entry for run in args.runs for entry in read_record(run).get("test", ())]
        shares = [entry["derived"]["val_share"] for entry in tested if entry.get("derived")]
        share = next((share for share in shares if share is not None), None)
        found = find_splits(args.data, divides=share is not None, val_share=share)
        split = found.splits[split_for(found, "test", args.data)]
        args.annotations, args.images = split.annotations, split.images

    from ssl_backbones.report.comparing.building import build
    from ssl_backbones.report.page.exports import format_csv, format_markdown
    from ssl_backbones.report.page.html_page import format_page

    report = build(
        args.runs,
        min_score=args.min_score,
        # The pictures show no interval.
        resamples=1 if args.pictures_only else args.resamples,
        seed=args.seed,
        annotations=args.annotations,
        image_root=args.images,
        command_line=[COMMAND, *words],
    )
    if args.pictures_only:
        lines = [
            f"{content.name}: {words}" for content in report.runs for words in content.problems
        ]
        lines += _in_folders(_write_run_files(report))
        page_command = shlex.join([COMMAND, *map(str, args.runs)])
        print(encodable("\n".join([*lines, f"Next, the page with the intervals: {page_command}"])))
        return 0
    texts = {out: format_page(report, num_pictures=args.num_pictures)}
    if args.markdown:
        texts[args.markdown] = format_markdown(report)
    if args.csv:
        texts[args.csv] = format_csv(report)
    for path, text in texts.items():
        _write(path, text)
    files = {} if args.no_run_files else _write_run_files(report)
    lines = [*_verdict(report), *remark, f"Page: {out} (open it in a browser)"]
    lines += [f"Tables: {path}" for path in (args.markdown, args.csv) if path]
    lines += _in_folders(files)
    print(encodable("\n".join([*lines, *_next(args, report)])))
    return 0


def _in_folders(files: dict[str, list[str]]) -> list[str]:
    return [f"In {folder}: {', '.join(names)}" for folder, names in files.items()]


def _page_path(args: argparse.Namespace) -> tuple[Path, list[str]]:
    """Where the page goes, and a sentence where that is not where it was to be expected."""
    if args.out or len(args.runs) > 1:
        return args.out or Path(PAGE), []
    usual = args.runs[0] / PAGE
    # That there is no such folder is said by what reads it.
    if not args.runs[0].is_dir() or not (reason := _why_not(usual)):
        return usual, []
    return Path(PAGE), [
        f"The page is not in the folder of the run: cannot write {usual}: {reason}."
    ]


def _why_not(path: Path) -> str:
    """Why a file cannot be written; "" if it can be."""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _check(args: argparse.Namespace, out: Path) -> None:
    if args.num_pictures < 0:
        raise InputError(f"--num-pictures {args.num_pictures}: give 0 or more")
    if args.data and args.annotations:
        raise InputError("--data stands for --annotations and --images: give one or the other")
    if (args.images is None) != (args.annotations is None):
        raise InputError("--annotations and --images belong together: give both")
    if args.pictures_only and (args.out or args.markdown or args.csv or args.no_run_files):
        raise InputError(
            "--pictures-only writes into the runs' folders alone: leave --out, --markdown, --csv and "
            "--no-run-files out"
        )
    for folder in args.runs:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give the folder of a run")
    named = [path for path in (out, args.markdown, args.csv) if path and not args.pictures_only]
    if len({path.resolve() for path in named}) < len(named):
        raise InputError("--out, --markdown and --csv: give different files")
    for path in named:
        if reason := _why_not(path):
            raise InputError(f"cannot write {path}: {reason}; give a file that can be written")


def _write(path: Path, text: str) -> None:
    from ssl_backbones.files import write_atomically

    write_atomically(path, lambda file: file.write(encodable(text).encode()))


def _write_run_files(report: Report) -> dict[str, list[str]]:
    """Into the folders that can be written: a run of somebody else's may be read only.

    Returns:
        By folder the names of the files that were written.
    """
    from ssl_backbones.progress import progress_bar
    from ssl_backbones.report.page.exports import write_results
    from ssl_backbones.report.page.run_files import write_run_files

    written = defaultdict(list)
    with progress_bar(len(report.runs)) as advance:
        for content in report.runs:
            try:
                written[content.folder].append(write_results(content).name)
                for path in write_run_files(report, content):
                    written[content.folder].append(path.name)
            except InputError as error:
                print(f"left out: {encodable(str(error))}", file=sys.stderr)
            advance()
    return {folder: names for folder, names in written.items() if names}


def _verdict(report: Report) -> list[str]:
    """What came out, and what is missing."""
    from ssl_backbones.report.content import TASKS
    from ssl_backbones.report.page.html_page import sentences

    lines = [
        sentence
        for task, word in TASKS.items()
        if any(f"{task}/AP" in content.verdicts for content in report.runs)
        for sentence in sentences(report.runs, task, word)
    ]
    for content in report.runs:
        lines += [f"{content.name}: {problem}" for problem in content.problems]
    return lines + report.problems


def _next(args: argparse.Namespace, report: Report) -> list[str]:
    """What to run next; nothing where no command would tell more."""
    if len(args.runs) == 1:
        from ssl_backbones.data.own_data import is_of_own_data

        words, run = [COMMAND], str(args.runs[0])
        if is_of_own_data(run):
            words, run = tool_command("report"), os.path.abspath(run)
        command = shlex.join([*words, run, "OTHER_RUN"])
        return [f"Next, is another run better: {command}"]
    recorded = [content.folder for content in report.runs if content.record]
    if len(recorded) < 2:
        return []
    command = shlex.join(["tools/compare_runs.py", *recorded[:2]])
    return [f"Next, in which fields do they differ: {command}"]


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(words)
    return run_command(lambda: run(args, words))


if __name__ == "__main__":
    sys.exit(main())
