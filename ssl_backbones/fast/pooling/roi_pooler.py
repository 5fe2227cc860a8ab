"""Detectron2's ROIPooler with an ROIAlign that is fast on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..acceleration import numba_or_none
from . import roi_align
from .roi_align import Part


class FastROIPooler(ROIPooler):
    """ROIPooler whose pooling and gradient take a fraction of the time on the CPU.

    Arguments and results are those of `detectron2.modeling.poolers.ROIPooler`: the same samples with the same
    weights, summed in another order, so that results differ by rounding. They do not depend on the number of
    torch's threads, all of which work. There is no second derivative.

    It does what Detectron2's Mask R-CNN configs ask for: float32 on the CPU, `ROIAlign` or `ROIAlignV2` with
    square output and `sampling_ratio=0`. Anything else is left to ROIPooler: other devices and types, pooling
    of other kinds, boxes that are not finite or have swapped corners, tracing, scripting and compiling.

    Example, in a lazy config:
        >>> model.roi_heads.box_pooler._target_ = FastROIPooler
        >>> model.roi_heads.mask_pooler._target_ = FastROIPooler
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """As ROIPooler: feature maps (N, C, H, W) and N lists of boxes to (boxes, C, bins, bins)."""
        parts = self._plan(x, box_lists) if self._can_pool(x, box_lists) else None
        if parts is None:
            return super().forward(x, box_lists)
        total = sum(len(boxes) for boxes in box_lists)
        return _ROIAlign.apply(parts, (total, x[0].shape[1], *self.output_size), *x)

    def _can_pool(self, x: list[Tensor], box_lists: list[Boxes]) -> bool:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return False
        return (
            isinstance(x, list)
            and isinstance(box_lists, list)
            and self.output_size[0] == self.output_size[1]
            and all(type(pooler) is ROIAlign for pooler in self.level_poolers)
            and all(pooler.sampling_ratio == 0 for pooler in self.level_poolers)
            and len(x) == len(self.level_poolers)
            and all(_is_plain(features) for features in x)
            and all(features.shape[:2] == x[0].shape[:2] for features in x)
            and len(box_lists) == len(x[0])
            and all(type(boxes) is Boxes for boxes in box_lists)
            and all(_are_ordinary(boxes.tensor) for boxes in box_lists)
            and any(len(boxes) for boxes in box_lists)
        )

    def _plan(self, x: list[Tensor], box_lists: list[Boxes]) -> list[Part] | None:
        rois = convert_boxes_to_pooler_format(box_lists).detach()
        levels = torch.zeros(len(rois), dtype=torch.long)
        if len(x) > 1:
            levels = assign_boxes_to_levels(
                box_lists,
                self.min_level,
                self.max_level,
                self.canonical_box_size,
                self.canonical_level,
            )
        return roi_align.plan(
            rois.float(),
            levels,
            [pooler.spatial_scale for pooler in self.level_poolers],
            [tuple(features.shape[2:]) for features in x],
            self.output_size[0],
            self.level_poolers[0].aligned,
        )

    def __prepare_scriptable__(self) -> ROIPooler:
        """What `torch.jit.script` compiles in place of this module: the ROIPooler that it stands for."""
        stock = copy.copy(self)
        stock.__class__ = ROIPooler
        return stock


def _are_ordinary(boxes: Tensor) -> bool:
    return (
        boxes.device.type == "cpu"
        and bool(boxes.isfinite().all())
        and bool((boxes[:, :2] <= boxes[:, 2:]).all())
    )


def _is_plain(features: Tensor) -> bool:
    return (
        type(features) is Tensor
        and features.device.type == "cpu"
        and features.dtype == torch.float32
        and features.layout == torch.strided
        and features.ndim == 4
        and features.numel() > 0
    )


class _ROIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, parts: list[Part], shape: tuple[int, ...], *features: Tensor) -> Tensor:
        ctx.parts, ctx.shapes = parts, [tensor.shape for tensor in features]
        pooled = features[0].new_empty(shape)
        _work("pool", parts, [tensor.detach().contiguous() for tensor in features], pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, pooled: Tensor) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        features = [
            pooled.new_zeros(shape) if is_wanted else None
            for shape, is_wanted in zip(ctx.shapes, wanted, strict=True)
        ]
        parts = [part for part in ctx.parts if wanted[part.level]]
        _work("spread", parts, features, pooled.contiguous())
        return None, None, *features


def _work(name: str, parts: list[Part], features: list[Tensor | None], pooled: Tensor) -> None:
    """Do what `name` ("pool" or "spread") says for every part, by whatever is fastest here."""
    if numba_or_none("Pooling regions on the CPU") is None:
        do = getattr(roi_align, f"{name}_by_matrices")
        for part in parts:
            do(features[part.level], pooled, part)
        return
    from . import roi_align_kernels as kernels

    do = getattr(kernels, name)
    calls = []
    for part in parts:
        weights = [tensor.numpy() for tensor in (part.rois, *part.y, *part.x)]
        for channel in range(0, pooled.shape[1], kernels.BLOCK):
            arrays = features[part.level].numpy(), pooled.numpy()
            calls.append(partial(do, *arrays, part.image, channel, *weights))
    _in_threads(calls)


def _in_threads(calls: list[Callable[[], None]]) -> None:
    # Threads of its own each time: a pool that is kept would not survive the fork of a loader's workers.
    threads = min(torch.get_num_threads(), len(calls))
    if threads < 2:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()
