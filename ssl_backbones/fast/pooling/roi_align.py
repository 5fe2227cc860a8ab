"""ROIAlign over a feature pyramid on the CPU, many times as fast as torchvision's kernel.

Torchvision takes the mean of samples on a grid, each interpolated from four cells. The four weights are
products of one along y and one along x, and so is whether a sample lies inside the map: a bin is an average
along x of averages along y. The weights along each axis are made here once for all channels; numba applies
them, or torch's sparse matrices where there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MAX_GRID = 256
"""Samples of a bin along an axis that memory is spent on. No box inside an image has as many."""

MAX_ENTRIES = 1 << 20
"""Entries of one sparse matrix, less those of its last ROI; each takes about 100 bytes for a moment."""


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

    def of(self, rois: slice | Tensor) -> AxisWeights:
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


def pool_by_matrices(features: Tensor, pooled: Tensor, part: Part) -> None:
    """Pool the feature maps of `part`'s level, `features` (N, C, H, W), into its ROIs of `pooled`."""
    cells = features[part.image].flatten(1).T.contiguous()
    for rois, matrix in _matrices(part, *features.shape[2:]):
        bins = pooled.shape[2]
        pooled[rois] = (matrix @ cells).view(len(rois), bins, bins, -1).permute(0, 3, 1, 2)


def spread_by_matrices(features: Tensor, pooled: Tensor, part: Part) -> None:
    """Write into `features[part.image]` its gradient, from the gradient of `pooled`."""
    channels, height, width = features.shape[1:]
    cells = features.new_zeros(height * width, channels)
    for rois, matrix in _matrices(part, height, width):
        cells += matrix.t().to_sparse_csr() @ pooled[rois].permute(0, 2, 3, 1).reshape(-1, channels)
    features[part.image] = cells.T.view(channels, height, width)


def _matrices(part: Part, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Places of some ROIs, and the sparse matrix (ROIs x bins x bins, height x width) that pools them."""
    entries = part.y.count[:, :, None] * part.x.count[:, None, :]
    groups = (entries.sum((1, 2)).cumsum(0) - 1) // MAX_ENTRIES
    for group in groups.unique():
        own = torch.nonzero(groups == group)[:, 0]
        y, x, counts = part.y.of(own), part.x.of(own), entries[own]
        # Of each entry: its ROI and bin, and which cell of the bin it stands for.
        roi, i, j = (
            index.repeat_interleave(counts.flatten())
            for index in torch.unravel_index(_range(counts.numel()), counts.shape)
        )
        starts = counts.flatten().cumsum(0) - counts.flatten()
        cell = _range(len(roi)) - starts.repeat_interleave(counts.flatten())
        columns = x.count[roi, j]
        row, column = cell // columns, cell % columns
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = torch.sparse_csr_tensor(
                # 32 bits, since MKL's matrices have no others here.
                torch.nn.functional.pad(counts.flatten().cumsum(0), (1, 0)).int(),
                ((y.first[roi, i] + row) * width + x.first[roi, j] + column).int(),
                y.weights[roi, i, row] * x.weights[roi, j, column],
                (counts.numel(), height * width),
                check_invariants=False,
            )
        yield part.rois[own], matrix


def _range(count: int) -> Tensor:
    return torch.arange(count, device="cpu")
