"""Pretrain a ResNet by MoCo v2 or SwAV on unlabelled crops, in minutes on a CPU, and save it as these do.

The file has the layout of their published ones, so everything that takes those takes it too. It shows the
way from pretraining to detection; README.md beside this file says what it does not show.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

if TYPE_CHECKING:
    import torch
    from torch import nn

# AdamW as in MoCo v3: in about a hundred steps SGD with MoCo v2's settings stays near chance.
WEIGHT_DECAY = 0.01
# MoCo's 65,536 keys would never be filled; these are renewed every few steps.
QUEUE_SIZE = 1024


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/digits/pretrain.py\n"
            "  python projects/digits/pretrain.py --iterations 1000 --output moco_long.pth.tar\n"
            "  python projects/digits/pretrain.py --method swav --depth 18 --output swav.pth.tar"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=Path("output/quickstart/moco_v2_digits.pth.tar"),
        metavar="FILE",
    )
    add("--method", choices=("moco", "swav"), default="moco", help="(default: moco)")
    add("--depth", type=int, choices=(18, 50), default=50, help="of the ResNet (default: 50)")
    add("--learning-rate", type=float, default=3e-4, metavar="LR", help="(default: 3e-4)")
    add("--iterations", type=int, default=90, help="optimiser steps (default: 90)")
    add("--batch-size", type=int, default=64, help="crops in a step (default: 64)")
    add("--num-crops", type=int, default=1024, help="different crops (default: 1024)")
    add("--crop-size", type=int, default=64, help="side of what the network sees (default: 64)")
    add("--seed", type=int, default=0)
    add("--force", action="store_true", help="overwrite FILE")
    return parser.parse_args(argv)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what could only fail later."""
    from ssl_backbones.errors import InputError

    if arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a folder: give a file for --output")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: give 0 or more")
    if arguments.output.exists() and not arguments.force:
        raise InputError(
            f"{arguments.output} is already there: use it, or give --force to overwrite it"
        )
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder of {arguments.output}: {error.strerror}; give another --output"
        ) from error
    if not os.access(arguments.output.parent, os.W_OK):
        raise InputError(f"cannot write in {arguments.output.parent}: give another --output")
    if arguments.iterations < 1:
        raise InputError(f"--iterations {arguments.iterations}: give at least 1")
    if not 2 <= arguments.batch_size <= arguments.num_crops:
        raise InputError(
            f"--batch-size {arguments.batch_size}: give at least 2, which batch norm needs, and at most "
            f"--num-crops ({arguments.num_crops})"
        )
    if arguments.batch_size > QUEUE_SIZE:
        raise InputError(f"--batch-size {arguments.batch_size}: the queue holds {QUEUE_SIZE} keys")
    if not 0 < arguments.learning_rate < 1:
        raise InputError(f"--learning-rate {arguments.learning_rate}: give a number from 0 to 1")
    if arguments.crop_size < 32:
        raise InputError(
            f"--crop-size {arguments.crop_size}: ResNet's stride of 32 needs at least 32"
        )


def load_views(arguments: argparse.Namespace, network: nn.Module) -> torch.utils.data.DataLoader:
    """Batches of the method's augmented views of each crop, made from the training split alone."""
    import torch
    from PIL import Image
    from rich.progress import track

    from ssl_backbones.data.digits.digit_scenes import pretraining_scenes

    num = min(arguments.num_crops, arguments.iterations * arguments.batch_size)
    # Half as large again as the views, so that a random resized crop still has something to choose.
    scenes = pretraining_scenes(num, size=arguments.crop_size * 3 // 2, seed=arguments.seed)
    scenes = track(scenes, "making crops", total=num, transient=True)

    def stack(batch: list[Image.Image]) -> list[torch.Tensor]:
        return [torch.stack(view) for view in zip(*map(network.views, batch), strict=True)]

    return torch.utils.data.DataLoader(
        [Image.fromarray(scene.image) for scene in scenes],
        arguments.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=stack,
    )


def pretrain(arguments: argparse.Namespace) -> tuple[dict, list[float], float]:
    """Run the method by AdamW along a cosine, over the crops as often as it takes, with a progress bar.

    Returns:
        The checkpoint, the loss of each step, and the loss of a network that guesses.
    """
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from projects.digits.methods import METHODS

    network = METHODS[arguments.method](arguments.depth, arguments.crop_size)
    batches = load_views(arguments, network)
    parameters = [tensor for tensor in network.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=arguments.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    iterations = arguments.iterations
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    losses: list[float] = []
    columns = ("pretraining", BarColumn(), MofNCompleteColumn(), "loss {task.fields[loss]:.3f}")
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("", total=iterations, loss=float("nan"))
        while len(losses) < iterations:
            for batch in itertools.islice(batches, iterations - len(losses)):
                loss = network(batch, len(losses))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                progress.update(task, advance=1, loss=losses[-1])
    checkpoint = network.checkpoint(len(losses) // len(batches), optimizer.state_dict())
    return checkpoint, losses, network.chance


def run(arguments: argparse.Namespace) -> int:
    """Check, pretrain, save, say what came of it."""
    import math
    import random

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
        f"next: python tools/convert_checkpoint.py {arguments.output} "
        f"{re.sub(r'[.](pth[.]tar|pth|pt)$', '', str(arguments.output))}.pkl"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
