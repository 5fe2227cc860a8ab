"""Reads safetensors files: a JSON header that says where each tensor's bytes lie, then the bytes.

Written out rather than taken from the `safetensors` package, because that gives numpy no bfloat16,
which backbones are published in, and copies each tensor, where this maps it. Source of the format
and its rules: https://huggingface.co/docs/safetensors, and `validate` in the package's tensor.rs.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from ...errors import format_name
from . import MAX_ELEMENTS, Refused, flat_array, itemsize

# About 20 times what a ResNet-152 with two networks needs. The format itself allows 100 MB, which a
# hostile header unfolds into gigabytes of Python's objects.
MAX_HEADER = 4 << 20

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def is_such_a_file(data) -> bool:
    """Whether it starts with the length of a header (64 bits, the upper ones 0), then the header."""
    return data[8:9] == b"{" and not any(data[5:8])


def read(data) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    """The tensors of a mapped file by name, read-only, and the text that stands beside them.

    Raises:
        Refused: a header that is damaged, too long or claims what the file does not hold.
    """
    (length,) = struct.unpack_from("<Q", data)
    start = 8 + length
    if start > len(data):
        raise Refused("ends in the middle of its safetensors header: it is truncated; get it again")
    if length > MAX_HEADER:
        raise Refused(f"has a safetensors header of {length:,} bytes: too many for a ResNet")
    header = _header(data[8:start])
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
        raise _damaged("its metadata are not text")
    places = {name: _place(name, entry) for name, entry in header.items()}
    _check_places(places, len(data) - start)
    buffer = memoryview(data)[start:]
    tensors = {
        name: flat_array(buffer[begin:end], dtype, "<").reshape(shape)
        for name, (dtype, shape, begin, end) in places.items()
    }
    return tensors, metadata


def _damaged(reason: str) -> Refused:
    return Refused(f"has a damaged safetensors header ({reason}); get it again")


def _header(text: bytes) -> dict:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise _damaged("no JSON") from error
    if type(header) is not dict:
        raise _damaged("no dictionary")
    return header


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice")
    return result


def _place(name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    """numpy's name of the data type, shape, and where the bytes begin and end."""
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(f"the entry of {format_name(name)}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(code) is not str or code not in _DTYPES:
        raise Refused(
            f"holds {format_name(name)} of the data type {format_name(str(code))}, which is not read"
        )
    numbers = [*shape, *offsets] if type(shape) is type(offsets) is list else [None]
    if not all(type(n) is int and 0 <= n <= MAX_ELEMENTS for n in numbers) or len(offsets) != 2:
        raise _damaged(f"the entry of {format_name(name)}")
    begin, end = offsets
    impossible = math.prod(n or 1 for n in shape) > MAX_ELEMENTS
    if impossible or math.prod(shape) * itemsize(_DTYPES[code]) != end - begin:
        raise _damaged(f"the shape of {format_name(name)} does not fit its bytes")
    return _DTYPES[code], tuple(shape), begin, end


def _check_places(places: Mapping[str, tuple], size: int) -> None:
    """The tensors lie one behind the other and fill the file: no overlap, no hole, nothing beyond."""
    position = 0
    for name, (*_, begin, end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise _damaged(
                f"{format_name(name)} overlaps another tensor or leaves a hole before it"
            )
        position = end
    if position > size:
        raise Refused("claims more tensor data than it has: it is truncated; get it again")
    if position < size:
        raise _damaged("bytes that belong to no tensor")
