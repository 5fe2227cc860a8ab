"""Make the embedded digits dataset: real digits over real photographs, in COCO's format."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/digits/make_dataset.py\n"
            "  DETECTRON2_DATASETS=/data python projects/digits/make_dataset.py --num-train 5000 --force"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="where to make it (default: $DETECTRON2_DATASETS/digits, or datasets/digits), which is "
        "where the configs look for it",
    )
    add("--num-train", type=int, default=1500, help="training scenes (default: 1500)")
    add("--num-test", type=int, default=150, help="test scenes (default: 150)")
    add("--size", type=int, default=96, help="side of a scene in pixels (default: 96)")
    add("--seed", type=int, default=0)
    add("--force", action="store_true", help="replace a digits dataset made with other arguments")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    """Make the dataset unless it is there already."""
    from rich.progress import Progress

    from ssl_backbones.data import digits_root
    from ssl_backbones.data.digits.digits_dataset import describe, read_info, write_digits
    from ssl_backbones.errors import InputError

    root = arguments.root or digits_root()
    asked = {name: getattr(arguments, name) for name in ("num_train", "num_test", "size", "seed")}
    found = read_info(root)
    if found == describe(**asked) and not arguments.force:
        print(f"the digits dataset is in {root} already")
        return 0
    if found and not arguments.force:
        raise InputError(
            f"{root} holds a digits dataset made with other arguments ({found}): give --force to replace it"
        )
    with Progress(transient=True) as progress:
        task = progress.add_task("making scenes", total=arguments.num_train + arguments.num_test)
        counts = write_digits(root, **asked, on_scene=lambda: progress.advance(task))
    for split, scenes in (("train", arguments.num_train), ("test", arguments.num_test)):
        print(f"digits_{split}: {scenes} scenes with {counts[split]} digits")
    print(f"digits dataset: {root}\nnext: python projects/digits/pretrain.py")
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
