"""Writes a backbone in any of the formats, whole or not at all, and reads back what was written.

Detectron2's pickle is put together here, instruction by instruction, for three reasons: arrays go
from the mapped source to the file without a copy in memory; its names are those that every numpy
from 1.x on reads (numpy 2 would write names that numpy before 1.26 lacks); equal input gives equal
bytes.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from ..errors import InputError
from ..files import write_atomically
from .families import RESNET, Family
from .reading import read_open_file

_PROTOCOL = bytes([3])  # the newest without frames; it has byte strings, all that arrays need
_END = pickle.SETITEMS + pickle.STOP

Tensors = Mapping[str, np.ndarray]
Provenance = Callable[[], Mapping[str, object]]


def write_backbone(
    format_name: str,
    path: str | os.PathLike,
    tensors: Tensors,
    provenance: Provenance,
    family: Family = RESNET,
) -> None:
    """Write a backbone in the format of this name, one of `converting.FORMATS`.

    Args:
        tensors: the family's name to float32 array.
        provenance: as in `write_detectron2`; torchvision's own format has no place for it.

    Raises:
        InputError: the file cannot be written there, or does not read back as it was written.
    """
    if format_name.startswith("detectron2"):
        tensors = family.written(tensors)
    _WRITERS[format_name](path, tensors, provenance)


def write_detectron2(
    path: str | os.PathLike,
    model: Tensors,
    provenance: Provenance,
) -> None:
    """Write what Detectron2's DetectionCheckpointer reads from a `.pkl`, and read it back to check.

    Source of the format: detectron2/checkpoint/detection_checkpoint.py, `_load_file`. Entries that
    it does not know, as `provenance`, are ignored there.

    Args:
        model: Detectron2 name to float32 array.
        provenance: gives text, numbers, None, lists and dicts of them. It is called once the model
            is on the disk and checked: what it needs may be under way until then.

    Raises:
        InputError: the file cannot be written there, or what is read back differs from `model`.
    """

    def write(file: BinaryIO) -> None:
        content = {"model": model, "__author__": "ssl-backbones", "matching_heuristics": True}
        file.write(pickle.PROTO + _PROTOCOL + pickle.EMPTY_DICT + pickle.MARK)
        file.writelines(_pickled_items(content))
        file.write(_END)
        file.flush()
        # Whole without the provenance, and so checked and brought to the disk while the source is
        # still being hashed.
        _check_written(file, content, os.fspath(path))
        os.fsync(file.fileno())
        file.seek(-len(_END), os.SEEK_CUR)
        content["provenance"] = provenance()
        file.writelines(_pickled_items({"provenance": content["provenance"]}))
        file.write(_END)
        file.flush()
        _check_provenance(file, content["provenance"], os.fspath(path))

    write_atomically(path, write)


def _write_safetensors(path: str | os.PathLike, tensors: Tensors, provenance: Provenance) -> None:
    """With the provenance as JSON in the metadata, whose values may only be text."""
    from safetensors.numpy import save

    metadata = {"format": "pt", "provenance": json.dumps(provenance())}

    def write(file: BinaryIO) -> None:
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        file.write(save(arrays, metadata=metadata))
        file.flush()
        _check_written(file, tensors, os.fspath(path))

    write_atomically(path, write)


def _write_torchvision(path: str | os.PathLike, tensors: Tensors, provenance: Provenance) -> None:
    _write_torch(path, dict(tensors))


def _write_mmdet(path: str | os.PathLike, tensors: Tensors, provenance: Provenance) -> None:
    """Source: MMDetection tools/model_converters/selfsup2mmdet.py, and `meta` of every MMEngine file."""
    _write_torch(path, {"state_dict": dict(tensors), "meta": {"provenance": provenance()}})


def _write_torch(path: str | os.PathLike, content: dict) -> None:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} is in PyTorch's own format, which needs PyTorch to write ({error}); install it, "
            "or use --to safetensors"
        ) from error

    def write(file: BinaryIO) -> None:
        torch.save(_in_torch(content), file)
        file.flush()
        _check_written(file, content, os.fspath(path))

    write_atomically(path, write)


def _in_torch(value: object) -> object:
    """The same with a tensor in each array's place."""
    import torch

    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value))  # a copy: the file's own may not be aligned
    if isinstance(value, dict):
        return {key: _in_torch(entry) for key, entry in value.items()}
    return value


_WRITERS = {
    "detectron2": write_detectron2,
    "detectron2-safetensors": _write_safetensors,
    "torchvision": _write_torchvision,
    "safetensors": _write_safetensors,
    "mmdet": _write_mmdet,
}


def _check_written(file: BinaryIO, content: Mapping[str, object], path: str) -> None:
    written = read_open_file(file, path)
    if not _same(written.content, content, written.release):
        raise _differs(path)


def _check_provenance(file: BinaryIO, provenance: Mapping[str, object], path: str) -> None:
    """The end of the file, once all that stands before it is checked."""
    if read_open_file(file, path).content.get("provenance") != provenance:
        raise _differs(path)


def _differs(path: str) -> InputError:
    return InputError(f"{path} does not read back as it was written; check the disk")


def _same(one: object, other: object, release: Callable[[], None]) -> bool:
    """Whether two nested contents are equal; `release` gives back the memory of each array read."""
    if isinstance(other, Mapping):
        return (
            isinstance(one, Mapping)
            and one.keys() == other.keys()
            and all(_same(one[key], other[key], release) for key in other)
        )
    if isinstance(other, np.ndarray):
        same = np.array_equal(one, other)
        release()
        return same
    return one == other


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
