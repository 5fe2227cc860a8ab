#!/usr/bin/env python
"""Say what is in data of your own, how it is read, and what is wrong with it, before anything is trained."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssl_backbones.errors import InputError, one_line, run_command

if TYPE_CHECKING:
    from ssl_backbones.data.annotations.examining import Counts
    from ssl_backbones.data.folders import Split
    from ssl_backbones.tables import Table

COMMAND = "tools/check_data.py"
EXAMPLES = """
examples:
  a folder with COCO files and images, such as an export of Roboflow, CVAT or Label Studio:
    tools/check_data.py ~/shapes
  one of its splits:
    tools/check_data.py ~/shapes --split val
  one file, and its images elsewhere:
    tools/check_data.py annotations.json --images ~/photographs
  a copy in COCO's own form, in which all is mended that needs no guess:
    tools/check_data.py ~/shapes/train.json --fix ~/shapes/train_mended.json

The same is looked at before each run. What is read otherwise than it is written, or is odd, is said; a
problem is what no run should start with.
Exit status: 0 there is no problem, 2 there are some, or PATH is not what can be read.
"""

_LISTED = 10
"""Images that cannot be used, of a split; more are counted."""


class Checked(NamedTuple):
    """What was found in one split, each a sentence; its content is None if the file could not be read."""

    content: dict[str, Any] | None
    counts: Counts | None
    changes: list[str]
    warnings: list[str]
    problems: list[str]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="check_data.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("path", type=Path, metavar="PATH", help="a folder, a COCO file, or a data.yaml")
    add("--split", metavar="NAME", help="look at this one alone: train, val or test")
    add(
        "--images",
        type=Path,
        metavar="DIR",
        help="where the images of a single COCO file are, if not near it",
    )
    add(
        "--fix",
        type=Path,
        metavar="OUT.json",
        help="write the split in COCO's own form to a new file; the old one is never touched",
    )
    return result


def run(args: argparse.Namespace) -> int:
    headline, there, classes = _splits(args)
    splits = {args.split: there[args.split]} if args.split else there
    if args.fix:
        _check_fix(args.fix, splits)
    _say(headline)
    checked = {name: _check(name, split) for name, split in splits.items()}
    counted = {name: one.counts for name, one in checked.items() if one.counts}
    if counted:
        for table in (_table_of_counts(counted), _table_of_classes(counted)):
            print(f"\n{table.format_text()}")

    contents = {name: one.content for name, one in checked.items() if one.content}
    noted, wrong = _compare(splits, contents, classes)
    problems = [line for one in checked.values() for line in one.problems] + wrong
    for heading, lines in (
        ("Read as it is meant:", _with_file(splits, checked, "changes")),
        ("Odd:", _with_file(splits, checked, "warnings") + noted),
        ("Problems:", problems),
    ):
        if lines:
            _say("", heading, *(f"- {line}" for line in lines))
    _say("")
    if args.fix:
        _say(_fix(args.fix, next(iter(checked.values()))))
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


def _splits(args: argparse.Namespace) -> tuple[str, dict[str, Split], list[str] | None]:
    """What PATH is, in words; its splits; and the names of classes that it gives besides."""
    from ssl_backbones.data.folders import Split, find_splits

    if args.images:
        if not args.path.is_file() or args.path.suffix in (".yaml", ".yml"):
            raise InputError(f"--images is of a single COCO file, which {args.path} is not")
        if not args.images.is_dir():
            raise InputError(f"--images {args.images}: there is no such folder")
        split = Split(args.path.absolute(), args.images.absolute())
        form, splits, classes = "a single COCO file", {"train": split}, None
    else:
        found = find_splits(args.path)
        form, splits, classes = found.form, found.splits, found.classes
    if args.split and args.split not in splits:
        raise InputError(
            f"--split {args.split}: {args.path} has no such split; there are {', '.join(splits)}"
        )
    return f"{args.path}: {form}", splits, classes


def _check(name: str, split: Split) -> Checked:
    """Look at one split; all that is found wrong is collected."""
    from ssl_backbones.data.annotations.examining import examine
    from ssl_backbones.data.annotations.reading import read_coco
    from ssl_backbones.fast.annotations.coco_json import collector_paused

    where = str(split.annotations)
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
        return Checked(None, None, [], [], [f"{where}: cannot be read: {error.strerror}"])
    except InputError as error:
        return Checked(None, None, [], [], [str(error)])
    notes, faults = _look_at_images(content["images"], split)
    return Checked(content, counts, changes, warnings + notes, problems + faults)


def _look_at_images(images: Iterable[dict[str, Any]], split: Split) -> tuple[list[str], list[str]]:
    """Which page of image files is read, and the files that cannot be used."""
    from ssl_backbones.data.images import format_fault, image_faults, pages_note
    from ssl_backbones.progress import progress_bar

    # LVIS gives addresses instead of names.
    images = [image for image in images if "file_name" in image]
    with progress_bar(len(images)) as advance:
        faults = list(image_faults(images, str(split.images), advance))
    problems = [
        f"{split.annotations}: {format_fault(path, reason)}" for path, reason in faults[:_LISTED]
    ]
    if len(faults) > _LISTED:
        problems.append(
            f"{split.annotations}: {len(faults) - _LISTED} more of its {len(images)} images cannot be used"
        )
    note = pages_note(_paths(images, split))
    return ([note] if note else []), problems


def _paths(images: Iterable[dict[str, Any]], split: Split) -> list[str]:
    import os

    names = (image["file_name"] for image in images if "file_name" in image)
    return [os.path.normpath(os.path.join(split.images, name)) for name in names]


def _compare(
    splits: dict[str, Split], contents: dict[str, dict[str, Any]], listed: list[str] | None
) -> tuple[list[str], list[str]]:
    """What is odd and what is wrong about the splits beside each other."""
    from ssl_backbones.data.preparing import first_difference

    warnings, problems = [], []
    names = {split: _names(content) for split, content in contents.items()}
    for split, own in names.items():
        if listed and sorted(listed) != sorted(own):
            difference = first_difference("the data.yaml", sorted(listed), split, sorted(own))
            problems.append(
                f"{splits[split].annotations}: in alphabetical order {difference}; let both have the "
                "same names"
            )
    if "train" not in contents:
        return warnings, problems
    trained = names["train"]
    images = set(_paths(contents["train"]["images"], splits["train"]))
    for split in contents.keys() - {"train"}:
        where = splits[split].annotations
        if splits[split] == splits["train"]:
            warnings.append(f"{where} is trained and tested on: AP says how well it was learnt")
            continue
        own = names[split]
        if own != trained:
            difference = first_difference("train", trained, split, own)
            # A split may list only the classes of which it has objects.
            if set(own) <= set(trained):
                warnings.append(f"{where}: {difference}: its classes are read by name")
            else:
                problems.append(
                    f"{where}: {difference}; give all splits the same names, or choose classes that both have"
                )
        both = images.intersection(_paths(contents[split]["images"], splits[split]))
        if both:
            problems.append(
                f"{where}: shares {len(both)} images with train, such as {min(both)}; take them out of one "
                "of the two"
            )
    return warnings, problems


def _names(content: dict[str, Any]) -> list[str]:
    from ssl_backbones.data.annotations.reading import categories_of

    return [category["name"] for category in categories_of(content)]


def _with_file(splits: dict[str, Split], checked: dict[str, Checked], field: str) -> list[str]:
    return [
        f"{splits[name].annotations}: {sentence}"
        for name, one in checked.items()
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
    ]
    return Table("", ["", *counted], rows)


def _table_of_classes(counted: dict[str, Counts]) -> Table:
    from ssl_backbones.tables import Table

    classes = dict.fromkeys(name for one in counted.values() for name in one.by_class)
    rows = [
        [one_line(name), *(one.by_class.get(name) for one in counted.values())] for name in classes
    ]
    return Table("", ["objects of the class", *counted], rows)


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
    if not checked.changes:
        return f"{out} is not written: the file is in COCO's own form already"
    text = json.dumps(checked.content)
    write_atomically(out, lambda file: file.write(text.encode()))
    return f"Written, with the {len(checked.changes)} changes that are told above: {out}"


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
