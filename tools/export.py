#!/usr/bin/env python
"""Write a trained detector as a file that runs where Detectron2 is not, if it finds the same there."""

from __future__ import annotations

import argparse
import re
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
    tools/export.py output/moco_1x detector.onnx --to onnx --size 800x1344
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
    add("out", metavar="OUT", help="the file; MODEL_CARD.md goes beside it")
    add(
        "--to",
        default="torchscript",
        choices=("torchscript", "onnx", "safetensors"),
        help="format of OUT (default torchscript): .ts, .onnx or .safetensors",
    )
    add("--weights", metavar="FILE", help="a checkpoint of the run (default: its model_final.pth)")
    add(
        "--images",
        nargs="+",
        default=[],
        metavar="FILE",
        help="compare on these, or on those of a folder (default: the first 24 of the run's test set)",
    )
    add("--size", metavar="HxW", help="of a graph of one size (default: the largest of the images)")
    add("--full", action="store_true", help="compare the AP of the run's whole test set too")
    add("--force", action="store_true", help="write over an existing OUT and card")
    return result


def _size(word: str | None) -> tuple[int, int] | None:
    if word is None:
        return None
    found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", word)
    if found is None:
        raise InputError(f"--size {word}: give height x width in pixels, such as 800x1344")
    if any(int(side) % 32 for side in found.groups()):
        raise InputError(f"--size {word}: both sides must be multiples of 32")
    return int(found[1]), int(found[2])


def _images(words: list[str], out: str) -> list[str]:
    from ssl_backbones.prediction.inputs import find_sources

    sources, faults = find_sources(words, outside=out)
    if faults:
        raise InputError(f"--images {faults[0]}")
    if videos := [source.path for source in sources if source.is_video]:
        raise InputError(f"--images {videos[0]}: is a video; give images")
    return [source.path for source in sources]


def run(args: argparse.Namespace) -> int:
    size = _size(args.size)
    for number in (signal.SIGTERM, signal.SIGHUP):  # ends as Ctrl-C does: nothing is left behind
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    from ssl_backbones.export.card import UNITS
    from ssl_backbones.export.exporting import CARD, FEW, LARGEST, export

    result = export(
        args.run,
        args.out,
        args.to,
        weights=args.weights,
        images=_images(args.images, args.out),
        size=size,
        full=args.full,
        force=args.force,
        progress=lambda step: print(f"{step} ...", file=sys.stderr, flush=True),
    )
    least, most = result.instances
    number = result.comparisons
    print(
        f"beside Detectron2, {number} times in {result.images} images, {least} to {most} instances:"
    )
    for name, value in result.differences.items():
        print(f"  {name} differ by {value:.1e} {UNITS[name]} (allowed: {LARGEST[name]:.0e})")
    for name, times in result.controls.items():
        print(f"  wrong on purpose: {name} shows {times} times of {number}")
    if result.images < FEW:
        print(f"these are few images: be surer with {FEW} or more (--images)")
    for name, (theirs, ours) in result.average_precision.items():
        print(f"  {name} {ours:.3f}, with Detectron2 {theirs:.3f}")
    if result.facts["fixed"]:
        print("of one size: {} x {}".format(*result.facts["fixed"]))
        if not args.full:
            print("how good it is at this size is not known: --full measures its AP")
    print(f"written: {result.path}, and {Path(result.path).parent / CARD}")
    words = shlex.join(["--weights", result.path, "IMAGES", "--out", "found"])
    print(f"next: {shlex.join(tool_command('predict'))} {words}")
    print("without this project, as docs/run_it_elsewhere.md shows in a dozen lines")
    return 0


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
