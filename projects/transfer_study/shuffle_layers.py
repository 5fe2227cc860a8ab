"""Put the layers of a pretrained ResNet-18 in the wrong order: the study's control of a spoilt backbone.

Within each set of 3x3 convolutions of one shape every one takes the place of the next, the last that of the
first, each with the batch norm behind it: 13 of the 20 convolutions move. Shapes, names and the distribution
of the weights stay as they were, so that nothing in the file betrays it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_CONVOLUTION = re.compile(r"(.*layer\d\.\d\.)conv(\d)\.weight")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example:\n  python projects/transfer_study/shuffle_layers.py moco.pth.tar shuffled.pth.tar",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="as pretrain.py writes it of MoCo")
    parser.add_argument("output", type=Path, metavar="DST", help="the file to write")
    return parser.parse_args(argv)


def shuffled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same names with the tensors of layers of one shape moved by one place, in each network."""
    places: dict[tuple, list[tuple[str, str]]] = defaultdict(list)
    for name, value in tensors.items():
        if found := _CONVOLUTION.fullmatch(name):
            block, number = found.groups()
            network = block.split("layer")[0]
            places[network, value.shape, _stage(block)].append(
                (f"{block}conv{number}", f"{block}bn{number}")
            )
    result = dict(tensors)
    for layers in places.values():
        for (to_conv, to_norm), (conv, norm) in zip(layers, layers[-1:] + layers[:-1], strict=True):
            result[f"{to_conv}.weight"] = tensors[f"{conv}.weight"]
            result |= {f"{to_norm}.{name}": tensors[f"{norm}.{name}"] for name in _NORM}
    return result


def _stage(block: str) -> str:
    return block.split("layer")[1][0]


def run(arguments: argparse.Namespace) -> None:
    from ssl_backbones.errors import InputError

    if not arguments.source.is_file():
        raise InputError(f"no file at {arguments.source}: make it with pretrain.py")

    import torch

    from ssl_backbones.files import write_atomically

    checkpoint = torch.load(arguments.source, map_location="cpu", weights_only=True)
    checkpoint["state_dict"] = shuffled(checkpoint["state_dict"])
    write_atomically(arguments.output, lambda file: torch.save(checkpoint, file))
    print(
        f"layers in the wrong order: {arguments.output}\n"
        f"next: python tools/convert_checkpoint.py {arguments.output} DST.pkl"
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
