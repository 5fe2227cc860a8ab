"""Detectron2's ROIPooler with an ROIAlign that is many times as fast on the CPU as torchvision's kernel.

Torchvision takes the mean of samples on a grid, each interpolated from four cells. The four weights are
products of one along y and one along x, and so is whether a sample lies inside the map: a bin is an average
along x of averages along y. The weights along each axis are made here once for all channels; the compiled
kernels apply them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

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

MAX_GRID = 256
"""Samples of a bin along an axis that memory is spent on. No box inside an image has as many."""


class FastROIPooler(ROIPooler):
    """ROIPooler whose pooling and gradient take a fraction of the time on the CPU.

    Arguments and results are those of `detectron2.modeling.poolers.ROIPooler`: the same samples with the same
    weights, summed in another order, so that results differ by rounding. They do not depend on the number of
    torch's threads, all of which work. There is no second derivative.

    It does what Detectron2's Mask R-CNN configs ask for: float32 on the CPU, `ROIAlign` or `ROIAlignV2` with
    square output and `sampling_ratio=0`. Anything else is left to ROIPooler: other devices and types, pooling
    of other kinds, boxes that are not finite or have swapped corners, tracing, scripting and compiling; and
    everything where numba is missing.

    Example, in a lazy config:
        >>> model.roi_heads.box_pooler._target_ = FastROIPooler
        >>> model.roi_heads.mask_pooler._target_ = FastROIPooler
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """As ROIPooler: feature maps (N, C, H, W) and N lists of boxes to (boxes, C, bins, bins)."""
        parts = None
        if self._can_pool(x, box_lists) and numba_or_none("Pooling regions on the CPU"):
            parts = self._plan(x, box_lists)
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
        return plan(
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
    """Do what the kernel `name` ("pool" or "spread") does, for every part and block of channels."""
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


class AxisWeights(NamedTuple):
    """How each bin averages the cells of a feature map along one axis.

    Attributes:
        first: (n, bins) int64, the first cell that counts.
        count: (n, bins) int64, how many cells count from there on; 0 where no sample lies inside the map.
        weights: (n, bins, K) float32 of these cells; 0 after the first `count`.
    """

    first: Tensor
    count: Tensor
    weights: Tensor

    def of(self, rois: slice) -> AxisWeights:
        """The same of some ROIs alone."""
        return AxisWeights(self.first[rois], self.count[rois], self.weights[rois])


class Part(NamedTuple):
    """The ROIs of one image on one level of the pyramid, at places `rois` (m,) int64 of the output."""

    level: int
    image: int
    rois: Tensor
    y: AxisWeights
    x: AxisWeights


def plan(
    rois: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    sizes: Sequence[tuple[int, int]],
    bins: int,
    aligned: bool,
) -> list[Part] | None:
    """Which cells each ROI averages with which weights, for `sampling_ratio=0`.

    Args:
        rois: (n, 5) float32: index of the image, then x0, y0, x1, y1 in pixels of the image; finite,
            x0 <= x1, y0 <= y1.
        levels: (n,) int64: index of each ROI's feature map.
        scales: cells to a pixel, of each feature map.
        sizes: height and width of each feature map.
        bins: of the output, along either axis.
        aligned: as for `torchvision.ops.roi_align`.

    Returns:
        None if some box is so large that its weights would take too much memory.
    """
    images = rois[:, 0].long()
    count = int(images.max()) + 1
    keys = levels * count + images
    order = torch.argsort(keys, stable=True)
    # y before x. Grids follow from rounded numbers: every operation is torchvision's, in its order.
    corners = rois[order][:, [2, 1, 4, 3]] * rois.new_tensor(scales)[levels[order], None]
    starts, stops = (corners - (0.5 if aligned else 0.0)).split(2, dim=1)
    extents = stops - starts if aligned else (stops - starts).clamp(min=1)
    grids = torch.ceil(extents / bins)
    if grids.max() > MAX_GRID:
        return None
    cells = levels.new_tensor(sizes)[levels[order]]
    y, x = (
        axis_weights(starts[:, axis], extents[:, axis], grids[:, axis], cells[:, axis], bins)
        for axis in (0, 1)
    )
    keys, lengths = torch.unique_consecutive(keys[order], return_counts=True)
    ends = lengths.cumsum(0).tolist()
    parts = []
    for key, start, end in zip(keys.tolist(), [0, *ends], ends, strict=False):
        own = slice(start, end)
        parts.append(Part(*divmod(key, count), order[own], y.of(own), x.of(own)))
    return parts


def axis_weights(
    starts: Tensor, extents: Tensor, grids: Tensor, cells: Tensor, bins: int
) -> AxisWeights:
    """The weights along one axis, divided by the number of samples.

    Source: torchvision/csrc/ops/cpu/roi_align_common.h.

    Args:
        starts, extents: (n,) float32: of the ROIs, in cells of their feature maps.
        grids: (n,) float32: samples of a bin, 0 for none.
        cells: (n,) int64: of the feature maps.
    """
    grids, cells = grids[:, None, None], cells[:, None, None]
    bin_sizes = (extents / bins)[:, None, None]
    samples = _range(max(int(grids.max()), 1)).float()
    corners = starts[:, None, None] + _range(bins)[:, None] * bin_sizes
    positions = corners + (samples + 0.5) * bin_sizes / grids.clamp(min=1)
    is_inside = (samples < grids) & (positions >= -1) & (positions <= cells)
    positions = positions.clamp(min=0)
    low = torch.minimum(positions.long(), cells - 1)
    high = torch.minimum(low + 1, cells - 1)
    # At the far border both are the last cell, which then counts once.
    fractions = torch.where(low < high, positions - low, 0)

    first = torch.where(is_inside, low, cells).amin(2)
    count = (torch.where(is_inside, high, -1).amax(2) + 1 - first).clamp(min=0)
    weights = starts.new_zeros(*first.shape, max(int(count.max()), 1))
    shares = is_inside / grids.clamp(min=1)
    for at, share in ((low, shares * (1 - fractions)), (high, shares * fractions)):
        # Samples outside have no share, so it does not matter where theirs is added.
        weights.scatter_add_(2, (at - first[..., None]).clamp(0, weights.shape[2] - 1), share)
    return AxisWeights(torch.where(count > 0, first, 0), count, weights)


def _range(count: int) -> Tensor:
    return torch.arange(count, device="cpu")
