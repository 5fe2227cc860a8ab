"""Flat arrays over a file's bytes, in the data types that tensors have."""

from __future__ import annotations

import numpy as np


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
