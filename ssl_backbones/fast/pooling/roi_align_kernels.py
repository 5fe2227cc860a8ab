"""ROIAlign and its gradient over one block of channels of one image, compiled by numba.

A block is copied so that its channels lie together: then every step multiplies and adds `BLOCK` floats at
once, and the block of a whole feature map stays near the core. A row of the feature map is averaged along x
once for all bins that it belongs to.

Arguments that both functions share:
    image, channel: which image, and the first channel of the block.
    rois: (m,) int64, where these ROIs stand in `pooled`.
    y_first, ..., x_weights: the `AxisWeights` of these ROIs.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BLOCK = 64
"""Channels of a block: fewer are less work at a time, more do not stay in the cache."""

kernel = njit(cache=True, nogil=True, fastmath={"contract"})


@kernel
def pool(
    features, pooled, image, channel, rois, y_first, y_count, y_weights, x_first, x_count, x_weights
):
    """Write the block's part of `pooled` (n, C, bins, bins) from `features` (N, C, H, W)."""
    block = _channels_last(features, image, channel)
    bins = y_first.shape[1]
    line = np.empty(bins * BLOCK, np.float32)
    roi = np.empty((bins, bins * BLOCK), np.float32)
    for r in range(len(rois)):
        roi[:] = 0
        low, high = _rows(y_first[r], y_count[r])
        for row in range(low, high):
            line[:] = 0
            for b in range(bins):
                for k in range(x_count[r, b]):
                    _add(
                        line,
                        b * BLOCK,
                        x_weights[r, b, k],
                        block[row],
                        (x_first[r, b] + k) * BLOCK,
                        BLOCK,
                    )
            for b in range(bins):
                k = row - y_first[r, b]
                if 0 <= k < y_count[r, b]:
                    _add(roi[b], 0, y_weights[r, b, k], line, 0, bins * BLOCK)
        for c in range(min(BLOCK, pooled.shape[1] - channel)):
            for i in range(bins):
                for j in range(bins):
                    pooled[rois[r], channel + c, i, j] = roi[i, j * BLOCK + c]


@kernel
def spread(
    features, pooled, image, channel, rois, y_first, y_count, y_weights, x_first, x_count, x_weights
):
    """Write the block's part of the gradient of `features`, whole, from that of `pooled`; shaped as above."""
    height, width = features.shape[2:]
    block = np.zeros((height, width * BLOCK), np.float32)
    bins = y_first.shape[1]
    channels = min(BLOCK, pooled.shape[1] - channel)
    line = np.empty(bins * BLOCK, np.float32)
    roi = np.zeros((bins, bins * BLOCK), np.float32)
    for r in range(len(rois)):
        for c in range(channels):
            for i in range(bins):
                for j in range(bins):
                    roi[i, j * BLOCK + c] = pooled[rois[r], channel + c, i, j]
        low, high = _rows(y_first[r], y_count[r])
        for row in range(low, high):
            line[:] = 0
            for b in range(bins):
                k = row - y_first[r, b]
                if 0 <= k < y_count[r, b]:
                    _add(line, 0, y_weights[r, b, k], roi[b], 0, bins * BLOCK)
            for b in range(bins):
                for k in range(x_count[r, b]):
                    _add(
                        block[row],
                        (x_first[r, b] + k) * BLOCK,
                        x_weights[r, b, k],
                        line,
                        b * BLOCK,
                        BLOCK,
                    )
    for y in range(height):
        for c in range(channels):
            for x in range(width):
                features[image, channel + c, y, x] = block[y, x * BLOCK + c]


@kernel
def _channels_last(features, image, channel):
    height, width = features.shape[2:]
    block = np.zeros((height, width * BLOCK), np.float32)
    for y in range(height):
        for c in range(min(BLOCK, features.shape[1] - channel)):
            for x in range(width):
                block[y, x * BLOCK + c] = features[image, channel + c, y, x]
    return block


@kernel
def _rows(first, count):
    """From and to which row any bin reaches; bins without a sample reach nowhere."""
    low, high = 0, 0
    for b in range(len(first)):
        if count[b]:
            low = first[b] if high == 0 else min(low, first[b])
            high = max(high, first[b] + count[b])
    return low, high


@kernel
def _add(total, to, weight, values, start, length):
    total, values = total[to : to + length], values[start : start + length]
    for c in range(length):
        total[c] += weight * values[c]
