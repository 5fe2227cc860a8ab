#!/usr/bin/env python
"""Draw what the training mapper really feeds the model: augmented images with their annotations."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from ssl_backbones import tool_command
from ssl_backbones.errors import InputError, run_command

EXAMPLES = """
examples:
  data of your own:
    tools/browse_data.py --data ~/shapes --out browsed
  what a run was trained on:
    tools/browse_data.py output/moco_1x
  the first 16 images of a run:
    tools/browse_data.py --config-file configs/moco_1x.py
  more of them, elsewhere, with another augmentation:
    tools/browse_data.py --config-file configs/moco_ms2x.py --num-images 64 --out browsed \\
        dataloader.train.mapper.augmentations.0.short_edge_length=[480,800]

Images come in the run's own order (that of one process; train.seed decides) and are augmented as in the
run. Colours are shown as the model reads them: where blue skies are orange, mapper and model disagree about
the order of the channels.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="browse_data.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "--config-file",
        default="",
        metavar="FILE",
        help="a LazyConfig, or the name of a shipped one (with --data: moco_1x unless another is named)",
    )
    add(
        "--data",
        metavar="PATH",
        help="data of your own: a folder of COCO, YOLO, VOC or labelme, a COCO file, or a data.yaml; in "
        "place of the config's datasets",
    )
    add("--classes", metavar="A,B", help="which classes of --data to keep, in this order")
    add(
        "--val-share",
        type=float,
        metavar="S",
        help="of --data without a split, the share of the images to test on (default 0.2)",
    )
    add("--num-images", type=int, default=16, metavar="N", help="the first N (default 16)")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the pictures go (default: browse_data/ in train.output_dir)",
    )
    add(
        "opts",
        nargs="*",
        metavar="RUN | key=value",
        help="the folder of a run, in place of --config-file; config overrides, such as train.seed=1",
    )
    return result


def run(args: argparse.Namespace) -> int:
    if args.num_images < 1:
        raise InputError(f"--num-images {args.num_images}: give at least 1")

    from detectron2.utils.logger import setup_logger

    from ssl_backbones.engine.config import DEFAULT_CONFIG, data_overrides, load_config
    from ssl_backbones.progress import progress_bar
    from ssl_backbones.report.reading.training_images import (
        OVERVIEW,
        draw_training_images,
        setting_rows,
    )
    from ssl_backbones.tables import Table

    setup_logger(name="ssl_backbones")
    setup_logger(name="detectron2")
    # A folder may have a name like an override.
    runs = [word for word in args.opts if "=" not in word or os.path.isdir(word)]
    if len(runs) > 1 or (runs and args.config_file):
        raise InputError(f"{runs[-1]}: give the folder of one run, or --config-file")
    if runs:
        args.config_file = os.path.join(runs[0], "config.yaml")
        if not os.path.isfile(args.config_file):
            raise InputError(
                f"{runs[0]} is not the folder of a run: there is no {args.config_file}"
            )
        args.opts = [word for word in args.opts if word not in runs]
        args.out = args.out or Path(runs[0]) / "browse_data"
    args.config_file = args.config_file or (DEFAULT_CONFIG if args.data else "")
    args.opts = [*data_overrides(args.data, args.classes, val_share=args.val_share), *args.opts]
    cfg = load_config(args.config_file, args.opts)
    out = args.out or Path(cfg.train.output_dir) / "browse_data"
    with progress_bar(args.num_images) as advance:
        counts = draw_training_images(cfg, out, num_images=args.num_images, on_image=advance)
    print(Table("", (), setting_rows(cfg, counts)).format_text("plain"))
    tool = tool_command("train_net") if args.data or runs else ["tools/train_net.py"]
    config = args.config_file
    config = os.path.abspath(config) if os.path.isfile(config) else config
    command = [*tool, "--config-file", config, "--dry-run", *args.opts]
    print(
        f"All of them: {out / OVERVIEW}\n"
        f"One by one: {out}\n"
        f"Next, if they are what you meant: {shlex.join(command)}"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
