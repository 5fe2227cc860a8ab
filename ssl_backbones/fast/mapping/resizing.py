"""Bilinear resizing of 8-bit images, equal to Pillow's in every pixel and several times as fast."""

from __future__ import annotations

import functools
import logging
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from ..acceleration import numba_or_none

logger = logging.getLogger(__name__)


def resize(
    image: np.ndarray,
    height: int,
    width: int,
    *,
    hflip: bool = False,
    vflip: bool = False,
    exact: bool = True,
) -> torch.Tensor:
    """Resize an image, flip it, and return it as planes.

    Args:
        image: uint8 (H, W, 3).
        height, width: the new size in pixels.
        hflip, vflip: whether to mirror the resized image left to right, and turn it upside down.
        exact: every value equals that of Pillow's `resize` with its bilinear filter. Otherwise it may
            differ by 1, of 255, where that is faster: in enlarging, by numba.

    Returns:
        uint8 (3, height, width), contiguous.

    Raises:
        ValueError: a side of the new size is not positive.
    """
    kernels = _kernels()
    # Pillow also raises the error for a size that leaves nothing.
    left_to_pillow = min(height, width) < 1 or _may_start_along_y(*image.shape[:2], height, width)
    if kernels is not None and not left_to_pillow:
        planes = torch.empty((3, height, width), dtype=torch.uint8)
        kernels.resize(_ordered(image), planes.numpy(), hflip, vflip, exact)
        return planes
    planes = _with_pillow(image, height, width)
    planes = planes[:, :: -1 if vflip else 1, :: -1 if hflip else 1]
    return torch.from_numpy(_ordered(planes))


def _may_start_along_y(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether some version of Pillow resizes along y first, which rounds otherwise.

    Pillow 13 does if more than twice as many rows go as columns, earlier ones if the image is narrow.
    """
    rows, columns = height - new_height, width - new_width
    return rows > 0 and (rows > 2 * columns or height > 100 * width)


def _with_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def _ordered(array: np.ndarray) -> np.ndarray:
    """The array, contiguous and writable: what is compiled, and what torch takes, is for such ones."""
    flags = array.flags
    return (
        array if flags.c_contiguous and flags.writeable and min(array.strides) > 0 else array.copy()
    )


@functools.cache
def _kernels() -> ModuleType | None:
    """The compiled resize, where there is numba and the Pillow that is installed computes the same."""
    if numba_or_none("Resizing images") is None:
        return None
    from . import resizing_kernels

    image = np.random.default_rng(0).integers(256, size=(31, 67, 3), dtype=np.uint8)
    for height, width in ((53, 97), (17, 37)):
        planes = np.empty((3, height, width), np.uint8)
        resizing_kernels.resize(image, planes, False, False, True)
        if (planes != _with_pillow(image, height, width)).any():
            # Pillow-SIMD, for one, has weights of fewer bits.
            logger.warning("this Pillow resizes unlike the original: images are left to it, slowly")
            return None
    return resizing_kernels
