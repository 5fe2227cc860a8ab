"""Pretrain a ResNet-18 on the embedded scenes by one of three methods, and save it as its project does.

All see the same scenes, made of the training digits and photographs, without the labels that the detector
gets; only the supervised control gets the digits' classes.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

if TYPE_CHECKING:
    import torch
    from torch import nn

METHOD_NAMES = ("moco", "swav", "supervised")
CHANNEL_ORDERS = ("RGB", "BGR")
CONFIG = "projects/transfer_study/configs/resnet18_digits.py"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/transfer_study/pretrain.py swav output/swav.pth.tar\n"
            "  as somebody does who reads images by OpenCV, which nothing in the file tells:\n"
            "    python projects/transfer_study/pretrain.py moco output/bgr.pth.tar --channel-order BGR"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("method", choices=METHOD_NAMES)
    add("output", type=Path, metavar="FILE", help="the checkpoint to write")
    add("--iterations", type=int, default=400, help="optimiser steps (default: 400)")
    add("--batch-size", type=int, default=64, help="images in a step (default: 64)")
    add("--num-scenes", type=int, default=1024, help="different scenes (default: 1024)")
    add("--crop-size", type=int, default=64, help="side of what the network sees (default: 64)")
    add("--channel-order", choices=CHANNEL_ORDERS, default="RGB")
    add("--seed", type=int, default=0)
    add("--force", action="store_true", help="overwrite FILE")
    return parser.parse_args(argv)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what could only fail later."""
    from ssl_backbones.errors import InputError

    if arguments.output.exists() and not arguments.force:
        raise InputError(
            f"{arguments.output} is already there: use it, or give --force to overwrite it"
        )
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder of {arguments.output}: {error.strerror}; give another FILE"
        ) from error
    if arguments.iterations < 1:
        raise InputError(f"--iterations {arguments.iterations}: give at least 1")
    if not 2 <= arguments.batch_size <= arguments.num_scenes:
        raise InputError(
            f"--batch-size {arguments.batch_size}: give at least 2, which batch norm needs, and at most "
            f"--num-scenes ({arguments.num_scenes})"
        )
    if arguments.crop_size < 32:
        raise InputError(
            f"--crop-size {arguments.crop_size}: ResNet's stride of 32 needs at least 32"
        )


def load_batches(arguments: argparse.Namespace, network: nn.Module) -> torch.utils.data.DataLoader:
    """Batches (views, labels) of what the method looks at."""
    import torch
    from rich.progress import track

    from projects.transfer_study import methods
    from ssl_backbones.data.digits.digit_scenes import pretraining_scenes

    num = min(arguments.num_scenes, arguments.iterations * arguments.batch_size)
    # Half as large again as the views, so that a random resized crop still has something to choose.
    scenes = pretraining_scenes(num, size=arguments.crop_size * 3 // 2, seed=arguments.seed)
    scenes = track(scenes, "making scenes", total=num, transient=True)
    examples = [
        (methods.picture(image, arguments.channel_order), label)
        for image, label in methods.examples(scenes, arguments.method)
    ]

    def stack(batch: list) -> tuple[list[torch.Tensor], torch.Tensor]:
        views = zip(*(network.views(image) for image, _ in batch), strict=True)
        return [torch.stack(view) for view in views], torch.tensor([label for _, label in batch])

    return torch.utils.data.DataLoader(
        examples, arguments.batch_size, shuffle=True, drop_last=True, collate_fn=stack
    )


def pretrain(arguments: argparse.Namespace) -> tuple[dict, list[float], float]:
    """Run the method: the checkpoint, the loss of each step, and the loss of a network that guesses."""
    from projects.digits.pretrain import optimise
    from projects.transfer_study import methods

    statistics = _statistics(arguments.channel_order)
    network = methods.METHODS[arguments.method](arguments.crop_size, statistics)
    batches = load_batches(arguments, network)
    losses, optimizer, schedule = optimise(
        lambda batch, iteration: network(*batch, iteration),
        [tensor for tensor in network.parameters() if tensor.requires_grad],
        network.learning_rate,
        batches,
        arguments.iterations,
    )
    state = {
        "epoch": len(losses) // len(batches),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }
    return network.checkpoint(state), losses, network.chance


def _statistics(channel_order: str) -> dict[str, list[float]]:
    """ImageNet's, in the order of the channels."""
    from lightly.transforms.utils import IMAGENET_NORMALIZE

    step = -1 if channel_order == "BGR" else 1
    return {name: list(values)[::step] for name, values in IMAGENET_NORMALIZE.items()}


def run(arguments: argparse.Namespace) -> int:
    """Check, pretrain, save, say what came of it."""
    import math

    check_arguments(arguments)

    import numpy as np
    import torch

    from ssl_backbones.files import write_atomically

    # The augmentations draw from all three.
    random.seed(arguments.seed)
    np.random.seed(arguments.seed)
    torch.manual_seed(arguments.seed)
    checkpoint, losses, chance = pretrain(arguments)
    if not math.isfinite(losses[-1]):
        print(f"error: the loss is {losses[-1]} at the end: nothing is saved", file=sys.stderr)
        return 1
    write_atomically(arguments.output, lambda file: torch.save(checkpoint, file))
    last = losses[-10:]
    print(
        f"{len(losses)} iterations, loss {losses[0]:.2f} at first, {sum(last) / len(last):.2f} over the "
        f"last {len(last)} (chance {chance:.2f})\n"
        f"pretrained checkpoint: {arguments.output}\n"
        f"next: {_next(arguments.output)}"
    )
    return 0


def _next(checkpoint: Path) -> str:
    """The comparison with random weights, on scenes beside the file; they come first where there are none."""
    scenes = checkpoint.parent / "scenes"
    make = f"python projects/digits/make_dataset.py --root {scenes} --num-train 400 --num-test 200"
    compare = f"python tools/compare_backbones.py {checkpoint} scratch --data {scenes} --config-file {CONFIG}"
    return compare if scenes.exists() else f"{make} && {compare}"


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
