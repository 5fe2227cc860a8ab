#!/usr/bin/env python
"""Write a trained detector as a file that runs where Detectron2 is not, if it finds the same there."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from pathlib import Path

from ssl_backbones import tool_command
from ssl_backbones.errors import InputError, run_command

EXAMPLES = """
examples:
  a graph for torch alone, of images of any size (of a ViT: of one size):
    tools/export.py output/moco_1x detector.ts
  for onnxruntime, of one size:
    tools/export.py output/moco_1x detector.onnx --to onnx --size 800 1344
  the weights with all that is known of them, for another Detectron2:
    tools/export.py output/moco_1x detector.safetensors --to safetensors
  compared on images of your own:
    tools/export.py output/numerals detector.ts --images photos/*.jpg

what it leaves: the file, and MODEL_CARD.md beside it, so that each file wants a folder of its own. How to run
it: docs/run_it_elsewhere.md.

Exit status: 0 the file finds the same as Detectron2 in every image, 2 it does not or an option was wrong, and
nothing was written.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="export.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("run", metavar="RUN", help="the folder of a run")
    add("out", metavar="OUT", help="the file: .ts, .onnx or .safetensors, as --to is")
    formats = ("torchscript", "onnx", "safetensors")
    add("--to", default=formats[0], choices=formats, help="format (default torchscript)")
    add("--weights", metavar="FILE", help="a checkpoint of the run (default: its model_final.pth)")
    images = "compare on these, or those of a folder (default: the first 24 of the run's test set)"
    add("--images", nargs="+", default=[], metavar="FILE", help=images)
    size = "of a graph of one size, in multiples of 32 (default: the largest of the images)"
    add("--size", nargs=2, type=int, metavar=("H", "W"), help=size)
    add("--full", action="store_true", help="compare the AP of the run's whole test set too")
    add("--force", action="store_true", help="write over an existing OUT and card")
    return result


def _images(words: list[str], out: str) -> list[str]:
    from ssl_backbones.prediction.inputs import find_sources

    sources, faults = find_sources(words, outside=out)
    if faults := [
        *faults,
        *(f"{one.path}: is a video; give images" for one in sources if one.is_video),
    ]:
        raise InputError(f"--images {faults[0]}")
    return [source.path for source in sources]


def run(args: argparse.Namespace) -> int:
    args.images = _images(args.images, args.out)
    for number in (signal.SIGTERM, signal.SIGHUP):  # ends as Ctrl-C does: nothing is left behind
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    from ssl_backbones.export.exporting import CARD, export

    result = export(**vars(args), progress=lambda step: print(step, file=sys.stderr))
    print("\n  ".join(result.sentences()))
    print(f"written: {result.path}, and {Path(result.path).parent / CARD}")
    config = ["--config-file", f"{args.run}/config.yaml"] if args.to == "safetensors" else []
    words = [
        *tool_command("predict"),
        *config,
        "--weights",
        result.path,
        "IMAGES",
        "--out",
        "found",
    ]
    print(f"next: {shlex.join(words)}")
    print("without this project, as docs/run_it_elsewhere.md shows in a dozen lines")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
