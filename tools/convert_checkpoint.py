#!/usr/bin/env python
"""Convert a self-supervised ResNet checkpoint to Detectron2's format, and prove that it is right."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from ssl_backbones.conversion.converting import FORMATS
from ssl_backbones.errors import InputError, run_command

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_backbones.conversion import ConversionReport

USAGE = """\
ssl-convert SRC DST [options]
       ssl-convert SRC... --out-dir DIR [options]
       ssl-convert {verify,inspect,list} [-h]"""

EXAMPLES = """
examples:
  convert a published file, whose layout is recognised, and prove the conversion:
    ssl-convert moco_v2_800ep_pretrain.pth.tar moco_v2.pkl
  fetch published weights by their name first (ssl://NAME, as in train.init_checkpoint):
    ssl-convert ssl://augnet_imagenet augnet.pkl
  look at what would be kept and dropped, and write nothing:
    ssl-convert swav_800ep_pretrain.pth.tar swav.pkl --dry-run
  convert all that a folder holds; what is refused stops nothing else:
    ssl-convert checkpoints/*.pth --out-dir converted
  write for torchvision, or take the backbone of a trained detector out again:
    ssl-convert checkpoint.pth.tar resnet50.pth --to torchvision
    ssl-convert output/moco_1x/model_final.pth tuned.pth --from-detector --to torchvision
  look at any file; check a converted one again; see what is recognised:
    ssl-convert inspect checkpoint.pth.tar
    ssl-convert verify moco_v2.pkl --source moco_v2_800ep_pretrain.pth.tar
    ssl-convert list

Nothing in SRC is run, whoever made it. The proof needs PyTorch, torchvision and Detectron2, as do the
formats torchvision and mmdet of PyTorch; the rest needs none of them. A file that is called verify,
inspect or list is given as ./verify and so on.
Exit status: 0 done, 2 refused (one line says why), 1 a failure while running.
"""


def convert_parser() -> argparse.ArgumentParser:
    result = _parser(__doc__, usage=USAGE, epilog=EXAMPLES)
    add = result.add_argument
    source = "checkpoint of a pretraining, or ssl://NAME"
    add("paths", nargs="+", metavar="SRC DST", help=f"{source}; file to write")
    add("--out-dir", metavar="DIR", help="convert every SRC into this folder")
    _add_reading(result)
    add(
        "--from-detector",
        action="store_true",
        help="SRC is a file for Detectron2, or one of its trained detectors: take the backbone out",
    )
    formats = "; ".join(f"{form.name} ({form.suffix}): {form.content}" for form in FORMATS.values())
    add("--to", choices=FORMATS, default="detectron2", help=f"format of DST. {formats}")
    add(
        "--no-verify", action="store_true", help="convert without the proof, in a tenth of the time"
    )
    add("--dry-run", action="store_true", help="check, prove and report, but write nothing")
    add("--json", action="store_true", help="print the report as JSON")
    add("--force", action="store_true", help="write over an existing DST")
    return result


def verify_parser() -> argparse.ArgumentParser:
    result = _parser("Check a converted file again, or anybody's, and prove it.", "verify")
    add = result.add_argument
    add("file", metavar="DST", help="a file for Detectron2, or in any other format of --to")
    add("--source", metavar="SRC", help="the file whose tensors DST must hold")
    _add_reading(result)
    add("--no-proof", action="store_true", help="check the tensors only; needs no PyTorch")
    add("--json", action="store_true", help="print what was found as JSON")
    return result


def inspect_parser() -> argparse.ArgumentParser:
    result = _parser("Show what a file holds and what a conversion would make of it.", "inspect")
    add = result.add_argument
    add("file", metavar="FILE", help="any checkpoint")
    _add_reading(result)
    add("--depth", type=int, default=3, metavar="N", help="levels of keys to show (default 3)")
    add("--json", action="store_true", help="print all of it, every key, as JSON")
    return result


def list_parser() -> argparse.ArgumentParser:
    result = _parser("List the layouts that are recognised.", "list")
    result.add_argument("--json", action="store_true", help="print them as JSON")
    return result


def _parser(description: str, command: str = "", **options) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"ssl-convert {command}".strip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--selfsup",
        default="auto",
        metavar="METHOD",
        help="whose layout SRC has: auto (recognise it, the default), or one of `ssl-convert list`",
    )
    add(
        "--branch",
        metavar="NETWORK",
        help="which network to take where there are two: online, momentum, student or teacher",
    )
    add("--prefix", metavar="P", help="of the backbone's keys, where the layout is not known")
    add(
        "--network",
        type=_fact,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what no tensor of a ViT shows, where SRC does not say it: num_heads=6, norm_eps=1e-6, ...",
    )


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in COMMANDS:
        make_parser, run = COMMANDS[words[0]]
        options = make_parser().parse_args(words[1:])
    else:
        parser, run = convert_parser(), convert
        options = parser.parse_args(words)
        if options.out_dir is None and len(options.paths) != 2:
            parser.error("give SRC and DST, or any number of SRC and --out-dir DIR")
    return run_command(lambda: run(options))


def convert(options: argparse.Namespace) -> int:
    if options.out_dir is not None:
        return convert_all(options)
    source, destination = options.paths
    if source.startswith("ssl://"):
        from ssl_backbones.weights.resolution import convert_named

        # Without the spinner, which would be drawn over the bar of the download.
        report = convert_named(source, destination, **_conversion(options))
    else:
        from ssl_backbones.conversion import convert

        with _step() as progress:
            report = convert(source, destination, **_conversion(options), progress=progress)
    if options.json:
        _print_json(report.to_dict())
    else:
        _print_report(report)
    return 0


def convert_all(options: argparse.Namespace) -> int:
    from ssl_backbones.conversion import convert_all, formatting

    results = convert_all(options.paths, options.out_dir, **_conversion(options))
    outcomes = list(_bar(results, len(options.paths)))
    refused = sum(isinstance(outcome, InputError) for _, outcome in outcomes)
    if options.json:
        _print_json(
            {
                source: {"refused": str(outcome)}
                if isinstance(outcome, InputError)
                else outcome.to_dict()
                for source, outcome in outcomes
            }
        )
    else:
        _print_tables(formatting.format_batch(outcomes))
        print(f"{len(outcomes) - refused} converted into {options.out_dir}, {refused} refused")
    return 2 if refused else 0


def verify(options: argparse.Namespace) -> None:
    from ssl_backbones.conversion import formatting, verify

    with _step() as progress:
        found = verify(
            options.file,
            options.source,
            **_reading(options),
            proof=not options.no_proof,
            progress=progress,
        )
    if options.json:
        _print_json(found.to_dict())
        return
    _print_tables(
        formatting.format_verification(found), found.proof and formatting.format_proof(found.proof)
    )
    print(f"{options.file} is right in all that was checked")


def inspect(options: argparse.Namespace) -> None:
    from ssl_backbones.conversion import formatting, inspect, inspection

    found = inspect(options.file, **_reading(options))
    if options.json:
        _print_json(found.to_dict())
        return
    lines = inspection.lines(found.tree, options.depth)
    _print_tables(formatting.format_inspection(found), formatting.format_keys(lines))


def list_layouts(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ssl_backbones.conversion import formatting
    from ssl_backbones.conversion.layouts import LAYOUTS

    if options.json:
        _print_json([asdict(layout) for layout in LAYOUTS])
        return
    _print_tables(formatting.format_layouts(LAYOUTS))
    print(f"{len(LAYOUTS)} layouts")


COMMANDS: dict[str, tuple[Callable, Callable]] = {
    "verify": (verify_parser, verify),
    "inspect": (inspect_parser, inspect),
    "list": (list_parser, list_layouts),
}


def _reading(options: argparse.Namespace) -> dict[str, object]:
    found = {name: getattr(options, name) for name in ("selfsup", "branch", "prefix")}
    return {**found, "network": dict(options.network)}


def _fact(word: str) -> tuple[str, object]:
    """NAME=VALUE, of a number or a truth value."""
    name, _, value = word.partition("=")
    try:
        return name, json.loads(value.lower())
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(
            f"{word!r} is no NAME=NUMBER, such as num_heads=6"
        ) from None


def _conversion(options: argparse.Namespace) -> dict[str, object]:
    return {
        **_reading(options),
        "detector": options.from_detector,
        "to": options.to,
        "verify": not options.no_verify,
        "force": options.force,
        "dry_run": options.dry_run,
    }


@contextlib.contextmanager
def _step():
    """A spinner that names the step; silent off a terminal."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda step: status.update(step)


def _bar(results, total: int):
    """A progress bar around results; silent off a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(results, "converting", total, console=console, disable=not console.is_terminal)


def _print_report(report: ConversionReport) -> None:
    from ssl_backbones.conversion import formatting

    _print_tables(
        formatting.format_conversion(report), report.proof and formatting.format_proof(report.proof)
    )
    memory = report.peak_memory_bytes / 2**20
    print(f"{report.seconds:.2f} s, {memory:.0f} MiB of memory at the peak")
    if report.destination is None:
        print("dry run: nothing was written")
        return
    print(f"written: {report.destination}\nnext: {formatting.format_next_step(report)}")


def _print_tables(*tables: Table | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    for table in tables:
        if table is not None:
            console.print(table)


def _print_json(value: object) -> None:
    # A foreign provenance may hold anything that a pickle can.
    print(json.dumps(value, indent=2, default=str))


if __name__ == "__main__":
    sys.exit(main())
