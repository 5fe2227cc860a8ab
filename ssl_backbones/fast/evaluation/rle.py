"""Predicted masks of regions of interest as COCO's run-length strings, without pasting them into images.

Detectron2 pastes each 28 x 28 mask into an image of its own, which COCO's tools then search for runs: work in
proportion to the pixels of the images. Here it is in proportion to the columns of the boxes.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch.nn import functional as F

from ..acceleration import numba_or_none

# Interpolated in any order of operations, values differ by less than this from torch's. Pixels that near to
# the threshold are computed once more, in torch's own order.
_NEAR = np.float32(1e-5)


def encode_roi_masks(
    masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int
) -> list[str] | None:
    """The `counts` of COCO's compressed RLE of each mask, pasted into an image of `height` x `width`.

    The strings are those of `paste_masks_in_image` on the CPU followed by `pycocotools.mask.encode`, to the
    last pixel. (On a GPU, torch interpolates with other roundings: there a pixel may differ whose value is
    within 1e-6 of the threshold.)

    Args:
        masks: N x M x M probabilities, float32.
        boxes: N x 4 corners in pixels of the image, x0 < x1 and y0 < y1, float32.

    Returns:
        None where the result could differ: tensors of another type or shape, or a processor on which torch
        interpolates in a way that this module does not know; and where numba is not installed.
    """
    are_usual = masks.dtype == boxes.dtype == torch.float32 and masks.shape[1] == masks.shape[2]
    if not (are_usual and numba_or_none("Encoding masks")):
        return None
    fused = _adds_while_multiplying()
    if fused is None:
        return None
    from .rle_kernels import encode_masks

    arrays = masks.detach().cpu().contiguous().numpy(), boxes.detach().cpu().contiguous().numpy()
    # NaN if there is one among them: then nothing counts as far from the threshold.
    near = _NEAR * np.abs(arrays[0]).max(initial=np.float32(1))
    characters, ends = encode_masks(*arrays, height, width, near, fused)
    text = characters.tobytes().decode("ascii")
    starts = [0, *ends.tolist()]
    return [text[start:end] for start, end in itertools.pairwise(starts)]


@functools.cache
def _adds_while_multiplying() -> bool | None:
    """Whether torch interpolates with fused instructions here, found by trying; None if it does otherwise.

    Its vectorized code does so where the processor can, its plain code does not.
    """
    from .rle_kernels import sample

    random = np.random.default_rng(0)
    mask = random.random((28, 28), dtype=np.float32)
    # Some of them beyond the mask.
    x, y = random.uniform(-1.1, 1.1, (2, 4096)).astype(np.float32)
    for fused in (True, False):
        if np.array_equal(sample(mask, x, y, fused), _grid_sample(mask, x, y)):
            return fused
    return None


def _grid_sample(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    grid = torch.from_numpy(np.stack([x, y], axis=-1)).reshape(1, 64, -1, 2)
    found = F.grid_sample(torch.from_numpy(mask)[None, None], grid, align_corners=False)
    return found.reshape(-1).numpy()
