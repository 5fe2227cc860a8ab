"""Pretrain a ResNet-50 by MoCo v2 on unlabelled crops, in minutes on a CPU, and save it as MoCo does.

The file has the layout of MoCo's published ones, so everything that takes those takes it too. It shows the
way from pretraining to detection; README.md beside this file says what it does not show.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

FEATURES = 128
TEMPERATURE = 0.2
# AdamW as in MoCo v3: in about a hundred steps SGD with MoCo v2's settings stays near chance.
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.01
# MoCo's 0.999 averages over a thousand steps; this run has about a hundred.
KEY_MOMENTUM = 0.99
# MoCo's 65,536 keys would never be filled; these are renewed every few steps.
QUEUE_SIZE = 1024


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Pretrain a ResNet-50 by MoCo v2 on unlabelled digits crops.",
        epilog=(
            "examples:\n"
            "  python projects/digits/pretrain.py\n"
            "  python projects/digits/pretrain.py --iterations 1000 --output moco_long.pth.tar"
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
    if arguments.crop_size < 32:
        raise InputError(
            f"--crop-size {arguments.crop_size}: ResNet's stride of 32 needs at least 32"
        )


def build_encoder() -> nn.Module:
    """torchvision's ResNet-50 with MoCo v2's two-layer head in the place of `fc`."""
    from torch import nn
    from torchvision.models import resnet50

    encoder = resnet50(weights=None)
    width = encoder.fc.in_features
    encoder.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, FEATURES))
    return encoder


def load_views(arguments: argparse.Namespace) -> torch.utils.data.DataLoader:
    """Batches of two augmented views of each crop, made from the training split alone."""
    from lightly.transforms import MoCoV2Transform
    from PIL import Image
    from rich.progress import track
    from torch.utils.data import DataLoader

    from ssl_backbones.data.digits.digit_scenes import pretraining_scenes

    num = min(arguments.num_crops, arguments.iterations * arguments.batch_size)
    # Half as large again as the views, so that a random resized crop still has something to choose.
    scenes = pretraining_scenes(num, size=arguments.crop_size * 3 // 2, seed=arguments.seed)
    transform = MoCoV2Transform(input_size=arguments.crop_size)
    images = [
        Image.fromarray(scene.image)
        for scene in track(scenes, "making crops", total=num, transient=True)
    ]
    return DataLoader(
        images,
        batch_size=arguments.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=lambda batch: _stack_views([transform(image) for image in batch]),
    )


def _stack_views(pairs: list[list[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    queries, keys = zip(*pairs, strict=True)
    return torch.stack(queries), torch.stack(keys)


def pretrain(arguments: argparse.Namespace) -> tuple[dict, list[float]]:
    """Run MoCo v2; return the checkpoint in MoCo's layout and the loss of each step."""
    import copy

    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    views = load_views(arguments)
    encoder_q = build_encoder()
    encoder_k = copy.deepcopy(encoder_q)
    deactivate_requires_grad(encoder_k)
    loss_of = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(QUEUE_SIZE, FEATURES))

    def loss_of_batch(batch: tuple[torch.Tensor, torch.Tensor], iteration: int) -> torch.Tensor:
        query_views, key_views = batch
        update_momentum(encoder_q, encoder_k, m=KEY_MOMENTUM)
        # MoCo shuffles keys across GPUs for batch norm's sake; one process has no across.
        with torch.no_grad():
            keys = encoder_k(key_views)
        return loss_of(encoder_q(query_views), keys)

    losses, optimizer, _ = optimise(
        loss_of_batch, encoder_q.parameters(), LEARNING_RATE, views, arguments.iterations
    )
    epoch = len(losses) // len(views)
    return _in_moco_layout(epoch, encoder_q, encoder_k, loss_of.memory_bank, optimizer), losses


def optimise(
    loss_of_batch: Callable[[Any, int], torch.Tensor],
    parameters: Iterable[torch.Tensor],
    learning_rate: float,
    batches: torch.utils.data.DataLoader,
    iterations: int,
) -> tuple[list[float], torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Minimise a loss by AdamW along a cosine, over the batches as often as it takes, with a progress bar.

    Args:
        loss_of_batch: called with a batch and the iteration, from 0.

    Returns:
        The loss of each step, and the optimizer and the schedule as the last step left them.
    """
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    optimizer = torch.optim.AdamW(
        parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    losses: list[float] = []
    columns = ("pretraining", BarColumn(), MofNCompleteColumn(), "loss {task.fields[loss]:.3f}")
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("", total=iterations, loss=float("nan"))
        while len(losses) < iterations:
            for batch in itertools.islice(batches, iterations - len(losses)):
                loss = loss_of_batch(batch, len(losses))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                progress.update(task, advance=1, loss=losses[-1])
    return losses, optimizer, schedule


def _in_moco_layout(
    epoch: int,
    encoder_q: nn.Module,
    encoder_k: nn.Module,
    bank: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> dict:
    """What MoCo's main_moco.py saves: `module.` comes from its DistributedDataParallel."""
    state = {f"module.encoder_q.{key}": value for key, value in encoder_q.state_dict().items()}
    state |= {f"module.encoder_k.{key}": value for key, value in encoder_k.state_dict().items()}
    state["module.queue"] = bank.bank.T.contiguous()
    state["module.queue_ptr"] = bank.bank_ptr
    return {
        "epoch": epoch,
        "arch": "resnet50",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
    }


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
    checkpoint, losses = pretrain(arguments)
    if not math.isfinite(losses[-1]):
        print(f"error: the loss is {losses[-1]} at the end: nothing is saved", file=sys.stderr)
        return 1
    write_atomically(arguments.output, lambda file: torch.save(checkpoint, file))
    last = losses[-10:]
    print(
        f"{len(losses)} iterations, loss {losses[0]:.2f} at first, {sum(last) / len(last):.2f} over the "
        f"last {len(last)} (chance {math.log(QUEUE_SIZE + 1):.2f})\n"
        f"pretrained checkpoint, in MoCo's layout: {arguments.output}\n"
        f"next: python tools/convert_checkpoint.py {arguments.output} "
        f"{str(arguments.output).removesuffix('.pth.tar')}.pkl"
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ssl_backbones.errors import run_command

    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
