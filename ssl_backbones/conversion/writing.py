"""Writes Detectron2's pickle format, whole or not at all.

The pickle is put together here, instruction by instruction, for three reasons: arrays go from the
mapped source to the file without a copy in memory; its names are those that every numpy from 1.x on
reads (numpy 2 would write names that numpy before 1.26 lacks); equal input gives equal bytes.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from ..errors import InputError
from ..files import write_atomically
from .reading import read_open_file

_PROTOCOL = bytes([3])  # the newest without frames; it has byte strings, all that arrays need


def write_detectron2(
    path: str | os.PathLike,
    model: Mapping[str, np.ndarray],
    provenance: Callable[[], Mapping[str, object]],
) -> None:
    """Write what Detectron2's DetectionCheckpointer reads from a `.pkl`, and read it back to check.

    Source of the format: detectron2/checkpoint/detection_checkpoint.py, `_load_file`. Entries that
    it does not know, as `provenance`, are ignored there.

    Args:
        model: Detectron2 name to float32 array.
        provenance: gives text, numbers, None, lists and dicts of them. It is called once the model
            is written: what it needs may be under way until then.

    Raises:
        InputError: the file cannot be written there, or what is read back differs from `model`.
    """

    def write(file: BinaryIO) -> None:
        content = {"model": model, "__author__": "ssl-backbones", "matching_heuristics": True}
        file.write(pickle.PROTO + _PROTOCOL + pickle.EMPTY_DICT + pickle.MARK)
        file.writelines(_pickled_items(content))
        content["provenance"] = provenance()
        file.writelines(_pickled_items({"provenance": content["provenance"]}))
        file.write(pickle.SETITEMS + pickle.STOP)
        file.flush()
        _check_written(file, content, os.fspath(path))

    write_atomically(path, write)


def _check_written(file: BinaryIO, content: Mapping[str, object], path: str) -> None:
    written = read_open_file(file, path)
    same = written.content.keys() == content.keys() and all(
        written.content[key] == content[key] for key in content.keys() - {"model"}
    )
    model, copy = content["model"], written.content["model"]
    same = same and copy.keys() == model.keys()
    for name, array in model.items():
        same = same and np.array_equal(copy[name], array)
        written.release()
    if not same:
        raise InputError(f"{path} does not read back as it was written; check the disk")


def _pickled(value: object) -> Iterator[bytes | memoryview]:
    """The instructions that make `value`, without a memo: nothing in a converted file recurs."""
    if value is None:
        yield pickle.NONE
    elif isinstance(value, bool):
        yield pickle.NEWTRUE if value else pickle.NEWFALSE
    elif isinstance(value, int):
        yield pickle.BININT + struct.pack("<i", value)
    elif isinstance(value, float):
        yield pickle.BINFLOAT + struct.pack(">d", value)
    elif isinstance(value, str):
        text = value.encode()
        yield pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    elif isinstance(value, Mapping):
        yield pickle.EMPTY_DICT + pickle.MARK
        yield from _pickled_items(value)
        yield pickle.SETITEMS
    elif isinstance(value, list):
        yield pickle.EMPTY_LIST + pickle.MARK
        for entry in value:
            yield from _pickled(entry)
        yield pickle.APPENDS
    elif isinstance(value, np.ndarray):
        yield from _pickled_array(value)
    else:
        raise TypeError(f"a converted file holds no {type(value).__name__}")


def _pickled_items(mapping: Mapping[str, object]) -> Iterator[bytes | memoryview]:
    for key, entry in mapping.items():
        yield from _pickled(key)
        yield from _pickled(entry)


def _pickled_array(array: np.ndarray) -> Iterator[bytes | memoryview]:
    """What numpy's own `ndarray.__reduce__` says, with the data last and not copied."""
    data = np.ascontiguousarray(array, dtype="<f4").reshape(-1).view(np.uint8)
    yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    yield pickle.MARK + b"K\x01" + pickle.MARK  # the version of the state, then the shape
    for length in array.shape:
        yield from _pickled(length)
    yield pickle.TUPLE
    yield b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R"
    yield b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # little-endian
    yield pickle.NEWFALSE  # not in Fortran's order
    yield pickle.BINBYTES + struct.pack("<I", len(data))
    yield data.data
    yield pickle.TUPLE + pickle.BUILD
