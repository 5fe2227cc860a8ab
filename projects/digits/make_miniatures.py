"""Make VOC and COCO in miniature, in their own formats, where Detectron2 looks for the large ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FORMATS = ("voc", "coco")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  DETECTRON2_DATASETS=datasets/miniatures python projects/digits/make_miniatures.py\n"
            "  python projects/digits/make_miniatures.py --root /tmp/small --formats coco --num-train 8\n\n"
            "A folder that holds anything else, such as the real dataset, is left alone (exit status 2)."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--root",
        type=Path,
        metavar="FOLDER",
        help="gets VOC2007, VOC2012 and coco (default: $DETECTRON2_DATASETS, or datasets)",
    )
    add(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=FORMATS,
        help="voc: both years; coco: instances and key points (default: all)",
    )
    add("--num-train", type=int, default=200, help="training pictures of each year (default: 200)")
    add("--num-test", type=int, default=50, help="test pictures (default: 50)")
    add("--size", type=int, default=96, help="longer side of a picture in pixels (default: 96)")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> int:
    """Make what was asked for, in the place of miniatures that are there."""
    from rich.progress import Progress

    from ssl_backbones.data import datasets_root
    from ssl_backbones.data.digits.miniatures import count_scenes, write_miniatures

    root = arguments.root or datasets_root()
    formats = [name for name in FORMATS if name in arguments.formats]
    numbers = {"num_train": arguments.num_train, "num_test": arguments.num_test}
    with Progress(transient=True) as progress:
        total = count_scenes(formats, **numbers)
        task = progress.add_task("making pictures", total=total)
        folders = write_miniatures(
            root,
            formats,
            **numbers,
            size=arguments.size,
            seed=arguments.seed,
            on_scene=lambda: progress.advance(task),
        )
    print(
        f"made {', '.join(map(str, folders))}\n"
        f"next: any command for VOC or COCO, with DETECTRON2_DATASETS={root}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
