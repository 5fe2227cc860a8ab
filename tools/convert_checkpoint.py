#!/usr/bin/env python
"""Convert a self-supervised ResNet checkpoint to Detectron2's format, and prove that it is right."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING

from ssl_backbones.errors import run_command

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_backbones.conversion import ConversionReport

EXAMPLES = """
examples:
  convert a published file, whose layout is recognised, and prove the conversion:
    tools/convert_checkpoint.py moco_v2_800ep_pretrain.pth.tar moco_v2.pkl
  look at what would be kept and dropped, and write nothing:
    tools/convert_checkpoint.py swav_800ep_pretrain.pth.tar swav.pkl --dry-run
  say whose layout it must be, and get the report as JSON:
    tools/convert_checkpoint.py checkpoint.pth.tar swav.pkl --selfsup swav --json

Nothing in SRC is run, whoever made it. The proof needs PyTorch, torchvision and Detectron2; the rest
does not. Exit status: 0 converted, 2 refused (one line says why), 1 a failure while running.
"""


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="convert_checkpoint.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("src", metavar="SRC", help="checkpoint of a self-supervised pretraining")
    add("dst", metavar="DST", help="the file to write, ending in .pkl")
    add(
        "--selfsup",
        default="auto",
        metavar="METHOD",
        help="whose layout SRC has: auto (recognise it, the default), moco or swav",
    )
    add(
        "--no-verify", action="store_true", help="convert without the proof, in a tenth of the time"
    )
    add("--dry-run", action="store_true", help="check, prove and report, but write nothing")
    add("--json", action="store_true", help="print the report as JSON")
    add("--force", action="store_true", help="write over an existing DST")
    return result


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    return run_command(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    from ssl_backbones.conversion import convert

    with _progress(sys.stderr.isatty()) as progress:
        report = convert(
            options.src,
            options.dst,
            selfsup=options.selfsup,
            verify=not options.no_verify,
            force=options.force,
            dry_run=options.dry_run,
            progress=progress,
        )
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)


@contextlib.contextmanager
def _progress(on_a_terminal: bool):
    """A spinner that names the step; silent off a terminal."""
    if not on_a_terminal:
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda step: status.update(step)


def _print(report: ConversionReport) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(_summary(report))
    if report.proof is not None:
        console.print(_proof(report))
    memory = report.peak_memory_bytes / 2**20
    print(f"{report.seconds:.2f} s, {memory:.0f} MiB of memory at the peak")
    if report.destination is None:
        print("dry run: nothing was written")
        return
    config = f"configs/{report.provenance['method']}_1x.py"
    print(
        f"written: {report.destination}\n"
        f"next: tools/train_net.py --config-file {config} "
        f"train.init_checkpoint={shlex.quote(report.destination)}"
    )


def _summary(report: ConversionReport) -> Table:
    table = _table()
    origin = report.provenance
    table.add_row("source", report.source)
    table.add_row("sha256", origin["source_sha256"])
    table.add_row("format", report.container)
    table.add_row("method", f"{origin['method']} (layout {origin['layout']})")
    table.add_row("architecture", origin["architecture"]["name"])
    table.add_row("input", "RGB, ImageNet mean and std on 0..255, stride 2 in the 3x3 convolutions")
    table.add_row("kept", f"{len(report.kept)} tensors, all there, of the right shape and finite")
    for reason, count in Counter(report.dropped.values()).items():
        table.add_row("dropped", f"{count}: {reason}")
    if report.unknown:
        shown = ", ".join(map(repr, report.unknown[:3])) + ("..." if report.unknown[3:] else "")
        table.add_row("left out", f"{len(report.unknown)} unknown outside the backbone: {shown}")
    if report.foreign:
        table.add_row("not read", ", ".join(report.foreign))
    return table


def _proof(report: ConversionReport) -> Table:
    """Right and wrong conversions in one column, so that the margin is seen."""
    proof = report.proof
    table = _table("same input through torchvision and Detectron2", "largest difference")
    for stage, difference in proof.stages.items():
        table.add_row(f"{stage} of this conversion", f"{difference:.1e}")
    table.add_row("allowed", f"{proof.tolerance:.1e}")
    for name, score in proof.controls.items():
        shown = f"{score:.1e}" if score is not None else "changes nothing in these weights"
        table.add_row(f"wrong on purpose: {name}", shown)
    table.add_row("the least wrong of them, times what is allowed", f"{proof.margin:,.0f}")
    return table


def _table(*headers: str) -> Table:
    from rich import box
    from rich.table import Table

    if headers:
        return Table(*headers, box=box.SIMPLE)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


if __name__ == "__main__":
    sys.exit(main())
