#!/usr/bin/env python
"""Say what is in data of your own, how it is read, and what is wrong with it, before anything is trained."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ssl_backbones.errors import InputError, one_line, run_command

if TYPE_CHECKING:
    from ssl_backbones.data.annotations.examining import Counts
    from ssl_backbones.data.folders import FoundData, Split
    from ssl_backbones.tables import Table

COMMAND = "tools/check_data.py"
EXAMPLES = """
examples:
  a folder of COCO, YOLO, Pascal VOC or labelme, such as an export of Roboflow, CVAT or Label Studio:
    tools/check_data.py ~/shapes
  one of its splits:
    tools/check_data.py ~/shapes --split val
  one file, and its images elsewhere:
    tools/check_data.py annotations.json --images ~/photographs
  a copy in COCO's own form, in which all is mended that needs no guess:
    tools/check_data.py ~/shapes/train.json --fix ~/shapes/train_mended.json
  the COCO file of one split of a folder in another format:
    tools/check_data.py ~/yolo --split train --fix ~/yolo_train.json
  a page to look at: counts, classes, sizes, annotated images and the odd ones:
    tools/check_data.py ~/shapes --page

The same is looked at before each run. What is read otherwise than it is written, or is odd, is said; a
problem is what no run should start with.
Exit status: 0 there is no problem, 2 there are some, or PATH is not what can be read.
"""

_LISTED = 10
"""Images that cannot be used, of a split; more are counted."""


class Checked(NamedTuple):
    """What was found in one split, each a sentence; its content is None if the file could not be read.

    Attributes:
        paths: of the images that have a file name.
        faults: path -> why the image file cannot be used.
    """

    split: Split
    content: dict[str, Any] | None = None
    counts: Counts | None = None
    changes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    problems: Sequence[str] = ()
    paths: Sequence[str] = ()
    faults: Mapping[str, str] = MappingProxyType({})


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="check_data.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    formats = "a folder of COCO, YOLO, VOC or labelme, a COCO file, or a data.yaml"
    add("path", type=Path, metavar="PATH", help=formats)
    add("--split", metavar="NAME", help="look at this one alone: train, val or test")
    images = "where the images of a single COCO file are, if not near it"
    add("--images", type=Path, metavar="DIR", help=images)
    share = "of data without a split, the share of the images to test on (default 0.2)"
    add("--val-share", type=float, metavar="S", help=share)
    fix = "write the split in COCO's own form to a new file; the old one is never touched"
    add("--fix", type=Path, metavar="OUT.json", help=fix)
    page = "also write what is found as one page for a browser (default NAME_data.html, here)"
    add("--page", nargs="?", const="", metavar="FILE.html", help=page)
    return result


def run(args: argparse.Namespace) -> int:
    if args.page is not None:
        # What is not installed is said before the long look.
        import jinja2  # noqa: F401
    found = _found(args)
    there = found.splits
    splits = {args.split: there[args.split]} if args.split else there
    if args.fix:
        _check_fix(args.fix, splits)
    page = None if args.page is None else _page_path(args.page or f"{found.name}_data.html")
    _say(f"{args.path}: {found.form}")
    checked = {name: _check(name, split) for name, split in splits.items()}
    counted = {name: one.counts for name, one in checked.items() if one.counts}
    tables = [_table_of_counts(counted), _table_of_classes(counted)] if counted else []
    for table in tables:
        print(f"\n{table.format_text()}")

    noted, wrong = _compare(checked, found.classes)
    duplicates = _duplicates(checked)
    problems = [line for one in checked.values() for line in one.problems] + wrong
    findings = {
        "Read as it is meant:": _with_file(checked, "changes"),
        "Odd:": _with_file(checked, "warnings") + noted + _trained_on(checked, duplicates),
        "Problems:": problems,
    }
    for heading, lines in findings.items():
        if lines:
            _say("", heading, *(f"- {line}" for line in lines))
    _say("")
    if args.fix:
        _say(_fix(args.fix, *checked.values()))
    if page:
        facts = {"path": str(args.path), "read as": found.form}
        _write_page(page, found.name, facts, findings, tables, checked, duplicates)
        _say(f"Page: {page} (open it in a browser)")
    if problems:
        again = shlex.join([COMMAND, str(args.path)])
        number = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{number}, listed above: mend what is wrong, then run {again}")
    if not args.images:
        _say(_next(args.path.expanduser().absolute(), there))
    return 0


def _next(path: Path, there: Collection[str]) -> str:
    """What to run, from any folder, where there is something to train on."""
    from ssl_backbones import tool_command

    # Whatever it is called: a file that is named is meant.
    if "train" not in there and not (len(there) == 1 and path.is_file()):
        return f"There is no split to train on ({', '.join(there)}): add one before a training"
    train = [*tool_command("train_net"), "--data", str(path)]
    return f"Next: {shlex.join(train)} --init CHECKPOINT"


def _say(*lines: str) -> None:
    for line in lines:
        print(one_line(line))


def _found(args: argparse.Namespace) -> FoundData:
    """What PATH is."""
    from ssl_backbones.data.folders import FoundData, Split, find_splits

    if args.images:
        if not args.path.is_file() or args.path.suffix in (".yaml", ".yml"):
            raise InputError(f"--images is of a single COCO file, which {args.path} is not")
        if args.val_share is not None:
            raise InputError(
                "--val-share with --images, which looks at all of a file: leave one out"
            )
        if not args.images.is_dir():
            raise InputError(f"--images {args.images}: there is no such folder")
        split = Split(args.path.absolute(), args.images.absolute())
        found = FoundData(args.path.stem, "a single COCO file", {"train": split}, None)
    else:
        found = find_splits(args.path, divides=True, val_share=args.val_share)
    if args.split and args.split not in found.splits:
        raise InputError(
            f"--split {args.split}: {args.path} has no such split; there are "
            f"{', '.join(found.splits)}"
        )
    return found


def _check(name: str, split: Split) -> Checked:
    """Look at one split; all that is found wrong is collected."""
    from ssl_backbones.data.annotations.examining import examine
    from ssl_backbones.data.annotations.reading import read_coco
    from ssl_backbones.data.images import format_fault, image_faults, pages_note
    from ssl_backbones.fast.annotations.coco_json import collector_paused
    from ssl_backbones.progress import progress_bar

    where = str(split.shown)
    try:
        with collector_paused():
            data = split.annotations.read_bytes()
            content, changes = read_coco(data, where, str(split.images))
            del data
            # What the printed command trains learns masks, if there are any.
            counts, warnings, problems = examine(
                content, where, evaluated=name != "train", masks=True
            )
    except OSError as error:
        return Checked(split, problems=[f"{where}: cannot be read: {error.strerror}"])
    except InputError as error:
        return Checked(split, problems=[str(error)])
    # LVIS gives addresses instead of names.
    images = [image for image in content["images"] if "file_name" in image]
    paths = [os.path.normpath(os.path.join(split.images, one["file_name"])) for one in images]
    with progress_bar(len(images)) as advance:
        found = image_faults(images, str(split.images), advance)
        faults = {os.path.normpath(path): reason for path, reason in found}
    faulty = [f"{where}: {format_fault(path, reason)}" for path, reason in faults.items()]
    if more := faulty[_LISTED:]:
        rest = f"{where}: {len(more)} more of its {len(images)} images cannot be used"
        faulty = [*faulty[:_LISTED], rest]
    if note := pages_note(paths):
        warnings.append(note)
    changes = [*split.said, *changes]
    return Checked(split, content, counts, changes, warnings, problems + faulty, paths, faults)


def _compare(checked: dict[str, Checked], listed: list[str] | None) -> tuple[list[str], list[str]]:
    """What is odd and what is wrong about the splits beside each other."""
    from ssl_backbones.data.preparing import first_difference

    warnings, problems = [], []
    names = {split: _names(one.content) for split, one in checked.items() if one.content}
    for split, own in names.items():
        if listed and sorted(listed) != sorted(own):
            difference = first_difference("the data.yaml", sorted(listed), split, sorted(own))
            problems.append(
                f"{checked[split].split.shown}: in alphabetical order {difference}; let both have the "
                "same names"
            )
    if "train" not in names:
        return warnings, problems
    train, trained = checked["train"], names["train"]
    for split in names.keys() - {"train"}:
        one, own = checked[split], names[split]
        where = one.split.shown
        if one.split == train.split:
            warnings.append(f"{where} is trained and tested on: AP says how well it was learnt")
            continue
        if own != trained:
            difference = first_difference("train", trained, split, own)
            # A split may list only the classes of which it has objects.
            if set(own) <= set(trained):
                warnings.append(f"{where}: {difference}: its classes are read by name")
            else:
                problems.append(
                    f"{where}: {difference}; give all splits the same names, or choose classes that both have"
                )
        if both := set(train.paths).intersection(one.paths):
            problems.append(
                f"{where}: shares {len(both)} images with train, such as {min(both)}; take them out of one "
                "of the two"
            )
    return warnings, problems


def _duplicates(checked: dict[str, Checked]) -> list[list[tuple[str, str]]]:
    """Image files of the same bytes in two splits or more, each with its split, train first."""
    from ssl_backbones.data.dividing import equal_files

    owners: dict[str, list[str]] = defaultdict(list)
    of_size: dict[int, set[str]] = defaultdict(set)
    # A split that is trained and tested on is looked at once.
    for name in {one.split: name for name, one in reversed(checked.items())}.values():
        for path in set(checked[name].paths) - checked[name].faults.keys():
            owners[path].append(name)
            of_size[os.path.getsize(path)].add(name)
    # Files of a size that is of one split alone are not read.
    compared = [path for path in owners if len(of_size[os.path.getsize(path)]) > 1]
    in_order = sorted(checked, key=lambda name: name != "train")
    groups = [
        [(name, path) for name in in_order for path in group if name in owners[path]]
        for group in equal_files(compared, Path("/"))
    ]
    return sorted(group for group in groups if len(dict(group)) > 1)


def _trained_on(
    checked: dict[str, Checked], duplicates: Sequence[Sequence[tuple[str, str]]]
) -> list[str]:
    """That files of the other splits are files of train, a sentence a split."""
    sentences = []
    for split in checked:
        pairs = [
            (path, first)
            for (of_first, first), *others in duplicates
            for name, path in others
            if of_first == "train" != split == name and path != first
        ]
        if pairs:
            sentences.append(
                f"{checked[split].split.shown}: image files that train has too, byte for byte: {len(pairs)} "
                f"(first: {pairs[0][0]} as {pairs[0][1]}): AP on them says how well they were learnt"
            )
    return sentences


def _names(content: dict[str, Any]) -> list[str]:
    from ssl_backbones.data.annotations.reading import categories_of

    return [category["name"] for category in categories_of(content)]


def _with_file(checked: dict[str, Checked], field: str) -> list[str]:
    return [
        f"{one.split.shown}: {sentence}"
        for one in checked.values()
        for sentence in getattr(one, field)
    ]


def _table_of_counts(counted: dict[str, Counts]) -> Table:
    from ssl_backbones.tables import Table

    rows = [
        ["images", *(one.images for one in counted.values())],
        ["images without an object", *(one.empty_images for one in counted.values())],
        ["smallest image", *(one.smallest_image for one in counted.values())],
        ["largest image", *(one.largest_image for one in counted.values())],
        ["classes", *(len(one.by_class) for one in counted.values())],
        ["objects", *(one.objects for one in counted.values())],
        ["with a mask of polygons", *(one.polygons for one in counted.values())],
        ["with a mask of run lengths", *(one.run_lengths for one in counted.values())],
        [
            "small, medium, large",
            *(f"{one.small}, {one.medium}, {one.large}" for one in counted.values()),
        ],
        [
            "in an image: mean, most",
            *(f"{one.mean_objects:.1f}, {one.max_objects}" for one in counted.values()),
        ],
        ["crowds", *(one.crowds for one in counted.values())],
        ["with key points", *(one.with_points for one in counted.values())],
    ]
    return Table("What is there", ["", *counted], rows)


def _table_of_classes(counted: dict[str, Counts]) -> Table:
    from ssl_backbones.tables import Table

    classes = dict.fromkeys(name for one in counted.values() for name in one.by_class)
    rows = [
        [one_line(name), *(one.by_class.get(name) for one in counted.values())] for name in classes
    ]
    return Table("Objects by class", ["objects of the class", *counted], rows)


def _check_fix(out: Path, splits: dict[str, Split]) -> None:
    if len(splits) > 1:
        raise InputError(f"--fix writes one file: choose it by --split ({', '.join(splits)})")
    if out.exists():
        raise InputError(f"--fix {out}: there is such a file already; give the name of a new one")


def _fix(out: Path, checked: Checked) -> str:
    """Write the content in COCO's own form, if it can be read; returns what was done."""
    import json

    from ssl_backbones.files import write_atomically

    if checked.content is None:
        return f"{out} is not written: the file cannot be read"
    if not checked.changes and not checked.split.origin:
        return f"{out} is not written: the file is in COCO's own form already"
    text = json.dumps(checked.content)
    write_atomically(out, lambda file: file.write(text.encode()))
    changes = (
        f", with the {len(checked.changes)} changes that are told above" if checked.changes else ""
    )
    return f"Written{changes}: {out} (its file names are below {checked.split.images})"


def _page_path(name: str) -> Path:
    page = Path(name)
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise InputError(f"--page {page}: give a file that ends in .html, or none")
    if not os.access(page.parent, os.W_OK):
        raise InputError(f"--page {page}: give a file in a folder that can be written to")
    return page


def _write_page(
    page: Path,
    name: str,
    facts: dict[str, str],
    findings: dict[str, list[str]],
    tables: Sequence[Table],
    checked: dict[str, Checked],
    duplicates: Sequence[Sequence[tuple[str, str]]],
) -> None:
    from ssl_backbones.files import write_atomically
    from ssl_backbones.report.page.data_page import SplitContent, format_data_page

    splits = {
        name: SplitContent(str(one.split.images), one.content, one.counts, one.faults)
        for name, one in checked.items()
        if one.content and one.counts
    }
    text = format_data_page(name, facts, findings, tables, splits, duplicates)
    write_atomically(page, lambda file: file.write(text.encode()))


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
