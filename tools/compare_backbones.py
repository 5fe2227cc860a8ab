#!/usr/bin/env python
"""Say which backbone is better on your data, and how sure that is: arms and seeds, all else equal."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from ssl_backbones.errors import InputError, run_command

EXAMPLES = """
examples:
  what would run, how long it takes, and what difference it can show:
    tools/compare_backbones.py mine.pth theirs.pth scratch --data photos --seeds 3 --plan
  run it; the same command goes on where it stopped:
    tools/compare_backbones.py mine.pth theirs.pth scratch --data photos --seeds 3
  with a control that is wrong on purpose, and a recipe of your own:
    tools/compare_backbones.py mine.pth mine.pth:shuffled --data photos --config-file my_recipe.py

arms: a checkpoint of a pretraining, a converted one, ssl://NAME, scratch (random weights) or supervised
  (ssl://supervised_imagenet); NAME=FILE calls it NAME. With :shuffled (layers in the wrong order) or :bgr
  behind it, it is spoilt on purpose: what the comparison must be able to see.
Exit status: 0 all cells are done, 1 one of them failed, 2 bad usage, 130 interrupted.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="compare_backbones.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("arms", nargs="+", metavar="ARM", help="two or more; key=value among them is an override")
    add("--data", required=True, metavar="PATH", help="as tools/train_net.py --data takes it")
    add("--seeds", type=int, metavar="N", help="of each arm: 0 to N - 1 (default: 3)")
    add(
        "--budget",
        type=_hours,
        metavar="6h",
        help="as many seeds as fit into this time, by the cells that are done; 90m for minutes",
    )
    add(
        "--protocol",
        default="recipe",
        metavar="NAME",
        help="recipe: fine-tune as it does; frozen: keep the backbone as it is; low_shot_10: fine-tune on "
        "10 %% of the training images, others with each seed (default: recipe)",
    )
    add(
        "--config-file", default="", metavar="FILE", help="the recipe (default: configs/moco_1x.py)"
    )
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="weights, runs, CSV, tables and page (default: output/comparisons/ and the data's name)",
    )
    add("--plan", action="store_true", help="say what would run, and end")
    add("--only", action="append", metavar="CELL", help="run this cell alone; may be given again")
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="cells at once (default: one a GPU, else one a core as far as memory goes)",
    )
    add(
        "--slurm",
        default="",
        metavar="KEY=VALUE,...",
        help="each cell is a job, all at once: options as tools/train_net.py --slurm takes them",
    )
    add("--keep-checkpoints", action="store_true", help="keep the detectors")
    return result


def _hours(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hm])", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: write 6h or 90m")
    return float(found[1]) / (1 if found[2] == "h" else 60)


def run(args: argparse.Namespace) -> int:
    if args.seeds is not None and args.budget is not None:
        raise InputError("--budget chooses the number of seeds: leave out --seeds")
    for name, least in (("seeds", 1), ("jobs", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"--{name} {value}: give at least {least}")
    from ssl_backbones.studies import backbones

    study = backbones.from_words(
        args.arms,
        args.data,
        args.output,
        seeds=3 if args.seeds is None else args.seeds,
        hours=args.budget,
        protocol=args.protocol,
        config=args.config_file,
        only=args.only,
        jobs=args.jobs,
        slurm=args.slurm,
        keep_checkpoints=args.keep_checkpoints,
    )
    if args.plan:
        print("\n".join(study.plan()))
        print("next: the same command without --plan")
        return 0
    return study.do()


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
