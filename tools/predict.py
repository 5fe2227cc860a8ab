#!/usr/bin/env python
"""Find objects in images and videos with a trained detector: pictures, and detections in COCO's format."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_backbones import tool_command
from ssl_backbones.errors import InputError, run_command

if TYPE_CHECKING:
    from ssl_backbones.prediction.detector import Summary
    from ssl_backbones.prediction.inputs import Source
    from ssl_backbones.prediction.output import Classes

EXAMPLES = """
examples:
  a folder of images, with all that is below it:
    tools/predict.py --config-file configs/moco_1x.py --weights output/moco_1x/model_final.pth \\
        photos --out found
  images, a pattern and a video, on the CPU, surer detections alone:
    tools/predict.py --config-file output/moco_1x/config.yaml --weights output/moco_1x/model_final.pth \\
        a.jpg 'photos/**/*.png' street.mp4 --out found --threshold 0.7 --opts train.device=cpu
  with a file of tools/export.py:
    tools/predict.py --weights detector.ts photos --out found
  only the detections, eight images at a time:
    tools/predict.py --config-file configs/moco_1x.py --weights output/moco_1x/model_final.pth photos \\
        --out found --no-pictures --batch-size 8

what it leaves in DIR:
  pictures/                      each image with masks, boxes and labels; each video as NAME.mp4
  coco_instances_results.json    every detection, in the format of COCO's results
  images.json                    its images and categories, in the format of COCO's annotations:
                                 pycocotools.coco.COCO("images.json").loadRes("coco_instances_results.json")

Exit status: 0 all was read, 2 an input or option was wrong. What cannot be read is named; the rest goes on.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="predict.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="an image, a video, a folder, or a quoted pattern such as 'photos/**/*.jpg'",
    )
    add(
        "--config-file",
        metavar="FILE",
        help="the LazyConfig of the run, or the name of a shipped one; an exported graph needs none",
    )
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="a checkpoint of that run; every tensor of the model must come from it; or what "
        "tools/export.py wrote",
    )
    add(
        "--data",
        metavar="PATH",
        help="data of your own, for the names and ids of the classes: as of train_net.py; the config.yaml of "
        "a run knows its own",
    )
    add("--out", required=True, type=Path, metavar="DIR", help="where the results go")
    add(
        "--threshold",
        type=float,
        default=0.5,
        metavar="S",
        help="keep detections that score at least this (default 0.5); what scores below the config's "
        "model.roi_heads.box_predictor.test_score_thresh is never found",
    )
    add(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="images at a time (default 1); more are faster on a GPU, and padding changes scores a little",
    )
    add("--no-pictures", action="store_true", help="write the detections alone")
    add("--ema", action="store_true", help="use the averaged weights in the checkpoint (train.ema)")
    add(
        "--opts",
        nargs="+",
        default=[],
        metavar="key=value",
        help="config overrides, such as train.device=cpu; the last of the options",
    )
    return result


def run(args: argparse.Namespace) -> int:
    _check_numbers(args)
    # What can be found wrong without torch is said at once.
    from ssl_backbones.prediction import PICTURES
    from ssl_backbones.prediction.inputs import find_sources

    sources, faults = find_sources(args.inputs, outside=args.out / PICTURES)
    if not sources:
        raise InputError("; ".join(faults))
    for fault in faults:
        _say(fault)
    summary = _predict(args, sources)
    if not summary.images:
        raise InputError("none of the inputs could be read")
    print(_closing_words(args, summary))
    unread = len(faults) + len(summary.faults)
    if unread:
        raise InputError(f"inputs that could not be read: {unread}, named above; the others were")
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold {args.threshold}: scores are from 0 to 1")
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size}: give at least 1")
    if _is_exported(args):
        if given := [
            name for name in ("config_file", "data", "opts", "ema") if getattr(args, name)
        ]:
            raise InputError(
                f"--{given[0].replace('_', '-')} is of a run's checkpoint: leave it out, {args.weights} says "
                "all of it"
            )
    elif args.config_file is None:
        raise InputError(
            f"--config-file is missing: {args.weights} is no exported graph (.ts, .onnx), and does not say "
            "what network it is of; give the config.yaml of its run"
        )


def _predict(args: argparse.Namespace, sources: list[Source]) -> Summary:
    from detectron2.utils.logger import setup_logger

    from ssl_backbones.prediction.detector import count_images, predict
    from ssl_backbones.prediction.output import Results
    from ssl_backbones.progress import progress_bar

    setup_logger(name="ssl_backbones")
    detector, classes = _detector(args)
    with (
        progress_bar(count_images(sources)) as advance,
        Results(args.out, classes, pictures=not args.no_pictures) as results,
    ):
        summary = predict(
            detector,
            sources,
            results,
            threshold=args.threshold,
            batch_size=args.batch_size,
            on_image=advance,
            on_fault=_say,
        )
    return summary


def _is_exported(args: argparse.Namespace) -> bool:
    return args.weights.endswith((".ts", ".onnx"))


def _detector(args: argparse.Namespace) -> tuple[Any, Classes]:
    if _is_exported(args):
        from ssl_backbones.export.running import ExportedDetector

        exported = ExportedDetector(args.weights)
        return exported, exported.classes
    from ssl_backbones.engine.config import data_overrides, load_config
    from ssl_backbones.prediction.detector import Detector
    from ssl_backbones.prediction.output import classes_of

    cfg = load_config(args.config_file, [*data_overrides(args.data), *args.opts])
    return Detector(cfg, args.weights, averaged=args.ema), classes_of(cfg)


def _closing_words(args: argparse.Namespace, summary: Summary) -> str:
    """What was found, where it is, and what to run next."""
    from ssl_backbones.data.own_data import is_of_own_data
    from ssl_backbones.engine.config import path_override
    from ssl_backbones.prediction import DETECTIONS, IMAGES, PICTURES

    lines = [
        f"{summary.images} images, {summary.detections} detections that score at least {args.threshold:g}",
        f"Detections: {args.out / DETECTIONS}",
        f"Their images: {args.out / IMAGES}",
    ]
    if not args.no_pictures:
        lines.append(f"Pictures: {args.out / PICTURES}")
    if not summary.detections and summary.highest_score:
        lines.append(
            f"The surest detection scores {summary.highest_score:.3g}: give a lower --threshold"
        )
    if args.config_file is None:
        return "\n".join(lines)
    tool, config, weights, data = ["tools/train_net.py"], args.config_file, args.weights, []
    if args.data or is_of_own_data(Path(config).parent):
        # The data is found from any folder, and so is what is said to be run on it.
        tool, weights = tool_command("train_net"), os.path.abspath(weights)
        config = os.path.abspath(config) if os.path.isfile(config) else config
        data = ["--data", os.path.abspath(args.data)] if args.data else []
    command = [*tool, "--config-file", config, *data, "--eval-only", *args.opts]
    command.append(path_override("train.init_checkpoint", weights))
    lines.append(f"Next, how good they are on the config's test set: {shlex.join(command)}")
    return "\n".join(lines)


def _say(fault: str) -> None:
    """A fault on a line of standard error, in which nothing steers a terminal: it quotes file names."""
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in fault), file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_intermixed_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
