#!/usr/bin/env python
"""Draw a run folder: predictions beside ground truth, and the loss curves."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ssl_backbones.errors import InputError, run_command

EXAMPLES = """
examples:
  tools/draw_run.py output/moco_1x
  tools/draw_run.py output/moco_1x --num-images 16 --min-score 0.7
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="draw_run.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add(
        "run_folder", type=Path, metavar="RUN_FOLDER", help="a train.output_dir with its inference/"
    )
    add(
        "--num-images", type=int, default=8, metavar="N", help="the first N test images (default 8)"
    )
    add(
        "--min-score",
        type=float,
        default=0.5,
        metavar="S",
        help="leave worse detections out (default 0.5)",
    )
    return result


def run(args: argparse.Namespace) -> int:
    if args.num_images < 1:
        raise InputError(f"--num-images {args.num_images}: give at least 1")
    metrics = args.run_folder / "inference" / "metrics.json"
    try:
        dataset = json.loads(metrics.read_text())["dataset"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"no evaluation in {metrics}: give the run folder of a finished run"
        ) from error

    import ssl_backbones.data  # noqa: F401  registers the embedded datasets
    from ssl_backbones.report.pictures import draw_losses, draw_predictions

    predictions, losses = args.run_folder / "predictions.png", args.run_folder / "losses.png"
    num = draw_predictions(
        args.run_folder,
        predictions,
        dataset=dataset,
        num_images=args.num_images,
        min_score=args.min_score,
    )
    print(f"the first {num} images of {dataset}: {predictions}")
    draw_losses(args.run_folder, losses)
    print(f"losses: {losses}")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
