"""What a file may be packed as, a module a container, and what their readers share.

Nothing in a file is run: the reader of pickles is a small machine (`unpickling`) over an allow-list of
names (`allow_list`). Tensors become arrays over the mapped file.
"""

from __future__ import annotations

import numpy as np

MAX_ELEMENTS = 1 << 40  # of one array: far above any tensor, far below what overflows an index


class Refused(ValueError):
    """What the file is or asks for that is not read, as a clause that follows the file's name."""


def itemsize(dtype: str) -> int:
    """Bytes an element takes in the file; `dtype` is numpy's name or "bfloat16"."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def flat_array(data: memoryview, dtype: str, order: str) -> np.ndarray:
    """One-dimensional array over bytes; a copy only of bfloat16 and of a foreign byte order."""
    length = len(data) // itemsize(dtype)
    if dtype == "bfloat16":  # the upper half of a float32
        halves = np.ndarray(length, np.dtype(np.uint16).newbyteorder(order), data)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    native = np.dtype(dtype)
    flat = np.ndarray(length, native.newbyteorder(order), data if length else None)
    return flat.astype(native, copy=False)
