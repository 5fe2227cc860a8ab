"""Row: training steps on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..row import Comparison, Disagreement, Row

STEPS = 50
# Sizes of images as ResizeShortestEdge makes them of COCO's for a 2x schedule.
SIZES = ((640, 853), (704, 939), (768, 1024), (800, 1066), (800, 1216))


def make(
    device: str,
    small: bool,
    *,
    dtype: str | None,
    is_fast: bool,
    steps: int = STEPS,
    **model_options: Any,
) -> Callable[[], list[float]]:
    """Train for `steps` (1 if `small`) from the same weights; returns the total loss of each.

    Args:
        dtype: autocast to "bfloat16", or to "float16" with loss scaling, as Detectron2's AMPTrainer.
        is_fast: weights and activations channels last, and fused SGD.
        model_options: those of `detector.config`.
    """
    import torch
    from detectron2 import model_zoo
    from detectron2.config import instantiate
    from detectron2.utils.events import EventStorage

    from .. import detector

    sizes, steps = (((64, 96),), 1) if small else (SIZES, steps)
    batches = [detector.images(2, *size) for size in sizes]
    config = detector.config(small=small, **model_options)
    model = detector.build(config, batches[0]).to(device)
    if is_fast:
        model = model.to(memory_format=torch.channels_last)
    if device == "cuda":
        for image in (image for batch in batches for image in batch):
            image["image"] = image["image"].pin_memory()
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sgd = model_zoo.get_config("common/optim.py").SGD
    sgd.params.model, sgd.lr, sgd.fused = model, 1e-3, is_fast
    autocast = torch.autocast(device, dtype and getattr(torch, dtype), enabled=dtype is not None)

    def train() -> list[float]:
        model.load_state_dict(initial)
        optimizer = instantiate(sgd)
        scaler = torch.amp.GradScaler(device, enabled=dtype == "float16")
        torch.manual_seed(0)
        totals = []
        with EventStorage():
            for step in range(steps):
                optimizer.zero_grad()
                with autocast:
                    total = sum(model(batches[step % len(batches)]).values())
                scaler.scale(total).backward()
                scaler.step(optimizer)
                scaler.update()
                totals.append(total.detach())
        return torch.stack(totals).tolist()

    return train


def check(single: list[float], stock: list[float], ours: list[float]) -> None:
    """On average over the steps, losses at most twice as far from stock AMP's as those in float32 are."""
    noise, distance = (_distance(stock, other) for other in (single, ours))
    if not distance <= 2 * noise + 1e-5:
        raise Disagreement(f"losses {distance:.1e} off, and AMP's own noise is {noise:.1e}")


def _distance(losses: list[float], others: list[float]) -> float:
    """Relative, the mean over the steps."""
    pairs = zip(losses, others, strict=True)
    return statistics.mean(abs(a - b) / abs(a) for a, b in pairs)


def prepare(folder: Path, small: bool) -> Comparison:
    return compare("cuda", small)


def compare(device: str, small: bool) -> Comparison:
    """The row on any device; on the CPU, where nothing computes in float16, without AMP."""
    dtype = "float16" if device == "cuda" else None
    single = make(device, small, dtype=None, is_fast=False)
    losses = single()
    started = time.perf_counter()
    single()
    seconds = time.perf_counter() - started
    return Comparison(
        stock=make(device, small, dtype=dtype, is_fast=False),
        ours=make(device, small, dtype=dtype, is_fast=True),
        check=partial(check, losses),
        opponent="Detectron2 with AMP",
        notes=lambda: [
            f"{len(losses)} steps of 2 images. Detectron2 in float32: "
            f"{2 * len(losses) / seconds:.1f} images/s.",
            "Detectron2's side: AMP. Ours: AMP, channels last and fused SGD. Images of both lie in "
            "pinned memory.",
            f"On {_name(device)}. Weights are random.",
        ],
    )


def _name(device: str) -> Any:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else device


def no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "no GPU"


ROWS = [
    Row(
        name="gpu-step",
        what="training steps of Mask R-CNN R50-FPN on one GPU, 2 images of short side 640..800",
        same="losses, on average over 50 steps at most twice as far from stock AMP's as float32's are",
        # 1.3 times as many images a second.
        goal=0.77,
        must=None,
        prepare=prepare,
        needs=no_gpu,
    )
]
