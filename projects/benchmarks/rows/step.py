"""Rows: a training step on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..processes import ALLOCATOR, side
from ..row import Comparison, Disagreement, Row

THREADS = 2
# Of the feature maps whose pooling is checked: as many channels as an FPN has, which is several of the
# blocks that FastROIPooler goes by; boxes for each of two images.
CHANNELS, BOXES = 256, 100


class Setting(NamedTuple):
    """What a side trains."""

    norm: str
    freeze_at: int
    small: bool
    backbone: str = "resnet50"

    @property
    def size(self) -> tuple[int, int]:
        return (64, 96) if self.small else (320, 480)

    def config(self, is_fast: bool) -> Any:
        from .. import detector

        return detector.config(**self._asdict(), is_fast=is_fast)


class Gradients(NamedTuple):
    """What a check takes from a side after its last step, outside the timing.

    The step's own gradients can only be compared roughly: rounding turns a unit of the heads on or off now
    and then, on whichever side, and they are then 1e-3 off. So there are those of pooling as well.

    Attributes:
        step: of the parameters that are trained, by name, as the step left them.
        pooling: what the model's box pooler and mask pooler carry back to given feature maps, level by level.
    """

    step: dict[str, Any]
    pooling: list[Any]


def make(setting: Setting, is_fast: bool) -> Callable[..., dict[str, float] | Gradients]:
    """A step of Mask R-CNN on two images, again and again the first one: the learning rate is 0.

    What is returned gives the losses of a step; called with True, it makes none and gives `Gradients`.

    Args:
        is_fast: with FastROIPooler and fused SGD.
    """
    import torch
    from detectron2 import model_zoo
    from detectron2.config import instantiate
    from detectron2.utils.events import EventStorage

    from .. import detector

    set_threads(setting.small)
    batch = detector.images(2, *setting.size)
    model = detector.build(setting.config(is_fast), batch)
    sgd = model_zoo.get_config("common/optim.py").SGD
    sgd.params.model, sgd.lr = model, 0.0
    sgd.fused = is_fast
    optimizer = instantiate(sgd)

    def step() -> dict[str, float]:
        torch.manual_seed(0)  # the same regions are sampled
        optimizer.zero_grad()
        with EventStorage():
            losses = model(batch)
        sum(losses.values()).backward()
        optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def gradients() -> Gradients:
        heads = model.roi_heads
        return Gradients(
            {
                name: parameter.grad.numpy()
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            },
            pooling_gradients([heads.box_pooler, heads.mask_pooler], setting.size),
        )

    return lambda wants_gradients=False: gradients() if wants_gradients else step()


def pooling_gradients(poolers: list[Any], size: tuple[int, int]) -> list[Any]:
    """Gradients of the feature maps of two images, of sums of what is pooled with random weights."""
    import torch
    from detectron2.structures import Boxes

    generator = torch.Generator().manual_seed(0)
    height, width = size
    corners = torch.rand(2, BOXES, 2, 2, generator=generator).sort(dim=2).values
    boxes = [Boxes(own.flatten(1) * torch.tensor([width, height] * 2)) for own in corners]
    features = [
        torch.randn(
            2, CHANNELS, height // stride, width // stride, generator=generator
        ).requires_grad_()
        for stride in (4, 8, 16, 32)
    ]
    gradients = []
    for pooler in poolers:
        pooled = pooler(features, boxes)
        weights = torch.randn(pooled.shape, generator=generator)
        gradients += torch.autograd.grad(pooled, features, weights)
    return [gradient.numpy() for gradient in gradients]


def exact_gradients(setting: Setting) -> list[Any]:
    """`pooling_gradients` of the stock pooler, computing in float64."""
    from detectron2.config import instantiate
    from detectron2.modeling.poolers import ROIPooler

    class ExactPooler(ROIPooler):
        def forward(self, x, box_lists):
            return super().forward([features.double() for features in x], box_lists).float()

    heads = setting.config(is_fast=False).roi_heads
    poolers = [heads.box_pooler, heads.mask_pooler]
    for pooler in poolers:
        pooler._target_ = ExactPooler
    return pooling_gradients([instantiate(pooler) for pooler in poolers], setting.size)


def check(
    gradients: Callable[[], tuple[list[Any], Gradients, Gradients]],
    stock: dict[str, float],
    ours: dict[str, float],
) -> None:
    """As `SAME` says.

    Args:
        gradients: gives those of exact pooling, stock's and ours.
        stock, ours: losses by name.
    """
    import numpy as np

    for name, expected in stock.items():
        if not abs(ours[name] - expected) <= 1e-5 * abs(expected):
            raise Disagreement(f"{name} is {ours[name]}, and {expected} with Detectron2")
    exact, theirs, own = gradients()
    for level, pooled in enumerate(zip(exact, theirs.pooling, own.pooling, strict=True)):
        their_error, own_error = (np.linalg.norm(other - pooled[0]) for other in pooled[1:])
        # Both take rounded places of the samples, which is most of what they are off.
        if not own_error <= 1.1 * their_error:
            raise Disagreement(
                f"pooling gradient {level}: {own_error:.1e} off, and {their_error:.1e} by Detectron2"
            )
    for name, expected in theirs.step.items():
        error = np.linalg.norm(own.step[name] - expected)
        if not error <= 0.01 * np.linalg.norm(expected):
            raise Disagreement(f"the gradient of {name} is {error:.1e} off")


def prepare(
    norm: str, freeze_at: int, stock_environment: dict[str, str], folder: Path, small: bool
) -> Comparison:
    setting = Setting(norm, freeze_at, small)
    # A test does not wait for another process.
    start = (lambda make, environment: make()) if small else side
    stock = start(partial(make, setting, False), stock_environment)
    ours = start(partial(make, setting, True), ALLOCATOR)
    return Comparison(
        stock=stock,
        ours=ours,
        check=partial(check, lambda: (exact_gradients(setting), stock(True), ours(True))),
        opponent=f"Detectron2{' with the allocator setting' if stock_environment else ''}",
        limit=partial(multiplications, setting),
        notes=partial(notes, bool(stock_environment)),
    )


def multiplications(setting: Setting) -> tuple[str, float]:
    """Seconds of the step's multiplications, at the rate of the machine's matrix product."""
    from .. import detector

    set_threads(setting.small)
    batch = detector.images(2, *setting.size)
    model = detector.build(setting.config(is_fast=True), batch)
    return "its multiplications at the rate of a large matrix product", (
        flops(model, batch) / peak_rate()
    )


def set_threads(small: bool) -> None:
    """Torch's; a test has one, since threads that wait for each other crawl beside other tests."""
    import torch

    torch.set_num_threads(1 if small else THREADS)


def flops(model: Any, batch: list[dict]) -> int:
    """Floating-point operations of convolutions and matrix products, forward and backward."""
    import torch
    from detectron2.utils.events import EventStorage
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    with EventStorage(), FlopCounterMode(display=False) as counter:
        losses = model(batch)
        if model.training:
            sum(losses.values()).backward()
    return counter.get_total_flops()


def peak_rate() -> float:
    """Floating-point operations a second of a 2048 x 2048 matrix product in float32, the best of five."""
    import time

    import torch

    a = torch.rand(2048, 2048)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds)


def notes(is_stock_set: bool) -> list[str]:
    setting = f"GLIBC_TUNABLES={ALLOCATOR['GLIBC_TUNABLES']}"
    return [
        f"{THREADS} threads on both sides.",
        "Detectron2's side: its ROIPooler, its SGD as configured, in a process started "
        + ("with the same GLIBC_TUNABLES as ours." if is_stock_set else "as a user starts it."),
        "Ours: FastROIPooler, fused SGD, and a process started with the line that docs/speed.md gives, "
        f"{setting}. "
        + (
            "The sides differ in the pooler and in SGD alone."
            if is_stock_set
            else "That line needs nothing of this project: step-same-allocator gives it to both sides."
        ),
        "Weights are random, so nearly all regions lie on the pyramid's finest level.",
        "What is left is convolutions and fully connected layers, in oneDNN and MKL on both sides.",
    ]


def beside(backbone: str, name: str, folder: Path, small: bool) -> Comparison:
    """Another backbone beside the ResNet-50, both with all that this project has for speed."""
    start = (lambda make, environment: make()) if small else side
    resnet, other = (Setting("BN", 1, small, of) for of in ("resnet50", backbone))
    return Comparison(
        stock=start(partial(make, resnet, True), ALLOCATOR),
        ours=start(partial(make, other, True), ALLOCATOR),
        check=check_finite,
        opponent="ResNet-50 in this project's recipe",
        notes=lambda: [
            f"{THREADS} threads on both sides, fused SGD, FastROIPooler, the allocator setting.",
            f"What is called ours is {name}, trained whole, with random weights.",
        ],
    )


def timm_is_missing() -> str | None:
    return None if importlib.util.find_spec("timm") else "no timm"


def check_finite(resnet: dict[str, float], other: dict[str, float]) -> None:
    """As `TWO_NETWORKS` says."""
    import math

    if resnet.keys() != other.keys() or not all(
        map(math.isfinite, (*resnet.values(), *other.values()))
    ):
        raise Disagreement(f"the losses are {resnet} and {other}")


SAME = (
    "losses equal to 1e-5; gradients of pooling 256 channels at most 10 % farther than stock's from "
    "those in float64; each parameter's gradient equal to 1 %"
)
TWO_NETWORKS = "the same losses by name, all finite: two networks give two results"
WHAT = "a training step of Mask R-CNN R50-FPN on the CPU, 2 images of 320x480, {}"

ROWS = [
    Row(
        name="step",
        what=WHAT.format("FrozenBN, freeze_at=2"),
        same=SAME,
        goal=0.67,
        must=0.77,
        prepare=partial(prepare, "FrozenBN", 2, {}),
    ),
    Row(
        name="step-same-allocator",
        what=WHAT.format("FrozenBN, freeze_at=2, the allocator setting on both sides"),
        same=SAME,
        goal=None,
        must=None,
        prepare=partial(prepare, "FrozenBN", 2, ALLOCATOR),
    ),
    Row(
        name="step-recipe",
        what=WHAT.format("the recipes' BN and freeze_at=1"),
        same=SAME,
        goal=None,
        must=None,
        prepare=partial(prepare, "BN", 1, {}),
    ),
    *(
        Row(
            name=f"step-{backbone.replace('_', '-')}",
            what=f"a training step of Mask R-CNN on the CPU, 2 images of 320x480, with {name} for R50-FPN",
            same=TWO_NETWORKS,
            goal=None,
            must=None,
            prepare=partial(beside, backbone, name),
            needs=timm_is_missing,
        )
        for backbone, name in (
            ("convnext_tiny", "ConvNeXt-T and an FPN"),
            ("vit_small", "ViT-S/16 and a simple feature pyramid"),
        )
    ),
]
