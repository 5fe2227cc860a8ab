"""The time of a training iteration on 1, 8 and 64 GPUs, from its parts; SCALING.md explains each of them.

    python projects/benchmarks/scaling_model.py [--compute 0.1] [--mapper-ms 3.5] [--workers 4] ...

prints the table of SCALING.md for other parts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

GPUS = (1, 8, 64)
GPUS_PER_NODE = 8

# Of the largest of N draws from a normal distribution, in standard deviations (Tippett 1925, N = 8 and 64).
_LARGEST_OF = {1: 0.0, 8: 1.424, 64: 2.370}


@dataclass(frozen=True)
class Parts:
    """What an iteration is made of, with the values of the first table in SCALING.md.

    Attributes:
        compute: seconds of forward, backward and optimizer step on one GPU.
        images: in an iteration of one GPU.
        parameters: trainable ones, whose gradients are averaged.
        bytes_each: of a gradient.
        norm_layers: SyncBN layers that train; each has a collective forward and one backward.
        node_gb_s: GB/s between GPUs of a node, as an all-reduce sees it.
        network_gb_s: GB/s of a node's network.
        near_us, far_us: microseconds of a small collective within a node and across nodes.
        overlap: share of `compute` during which gradients travel beside the computation.
        scatter: standard deviation of `compute` among the GPUs of an iteration, as a share of it.
        mapper_ms: milliseconds to read and augment an image, on one core.
        workers: loader processes for each GPU, each with a core of its own.
    """

    compute: float = 0.261
    images: int = 2
    parameters: int = 44_386_800
    bytes_each: int = 4
    norm_layers: int = 52
    node_gb_s: float = 100.0
    network_gb_s: float = 12.5
    near_us: float = 30.0
    far_us: float = 80.0
    overlap: float = 0.5
    scatter: float = 0.05
    mapper_ms: float = 7.8
    workers: int = 4


@dataclass(frozen=True)
class Iteration:
    """Seconds of an iteration by part, those of `data` beside all others; and what a node must deliver."""

    compute: float
    waiting: float  # for the slowest GPU
    all_reduce: float  # what of it nothing hides
    norm: float
    data: float
    sent: float  # bytes that each GPU sends
    images_per_node: int

    @property
    def total(self) -> float:
        return max(self.compute + self.waiting + self.all_reduce + self.norm, self.data)

    @property
    def data_rate(self) -> float:
        """Images a second that each node must read and augment."""
        return self.images_per_node / self.total

    @property
    def bottleneck(self) -> str:
        """The largest part after the computation, which no other setting makes smaller."""
        if self.data >= self.total:
            return "data"
        parts = {
            "waiting for the slowest GPU": self.waiting,
            "all-reduce": self.all_reduce,
            "SyncBN": self.norm,
        }
        name = max(parts, key=parts.get)
        return name if parts[name] > 0 else "computation"


def iteration(parts: Parts, gpus: int) -> Iteration:
    """An iteration on 1, 8 or 64 GPUs, eight in a node."""
    across = gpus > GPUS_PER_NODE
    # A ring all-reduce: each sends all gradients but its own part, twice.
    sent = 2 * (gpus - 1) / gpus * parts.parameters * parts.bytes_each
    bandwidth = parts.network_gb_s if across else parts.node_gb_s
    hidden = parts.overlap * parts.compute
    latency = (parts.far_us if across else parts.near_us) * 1e-6
    return Iteration(
        compute=parts.compute,
        waiting=_LARGEST_OF[gpus] * parts.scatter * parts.compute,
        all_reduce=max(0.0, sent / (bandwidth * 1e9) - hidden),
        norm=0.0 if gpus == 1 else 2 * parts.norm_layers * latency,
        data=parts.images * parts.mapper_ms * 1e-3 / parts.workers,
        sent=sent,
        images_per_node=parts.images * min(gpus, GPUS_PER_NODE),
    )


def table(parts: Parts) -> Iterator[str]:
    """Markdown, a line for each number of GPUs."""
    yield (
        "| GPUs | computation | slowest GPU | all-reduce, not hidden (sent) | SyncBN | data, beside it | "
        "iteration | images/s/node | first bottleneck |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for gpus in GPUS:
        one = iteration(parts, gpus)
        yield (
            f"| {gpus} | {_ms(one.compute)} | {_ms(one.waiting)} | "
            f"{_ms(one.all_reduce)} ({one.sent / 1e6:.0f} MB) | {_ms(one.norm)} | {_ms(one.data)} | "
            f"{_ms(one.total)} | {one.data_rate:.0f} | {one.bottleneck} |"
        )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if 0 < seconds < 0.01 else f"{1000 * seconds:.0f} ms"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Parts):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            metavar="X",
            help=f"(default: {field.default})",
        )
    print("\n".join(table(replace(Parts(), **vars(parser.parse_args(argv))))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
