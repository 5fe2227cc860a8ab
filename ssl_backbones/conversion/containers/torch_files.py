"""Reads the two formats of torch.save: zip files (since torch 1.6), and pickles before raw storages."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from . import Refused, flat_array, itemsize, other_kinds
from .allow_list import Storage
from .unpickling import Machine

# torch/serialization.py: MAGIC_NUMBER and PROTOCOL_VERSION of the format before torch 1.6.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001

_MAX_ENTRIES = 200_000  # of a zip file: one a storage and a handful more


# torch's zip files (since torch 1.6)


def read_zip(data: mmap.mmap) -> tuple[object, tuple[str, ...]]:
    entries = _zip_entries(data)
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refused(other_kinds.archive(entries))
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise Refused(other_kinds.torchscript(data, entries[pickles[0]]))
    if None in entries.values():
        raise Refused(
            "is a compressed or encrypted zip archive, which PyTorch does not write: unpack it and "
            "pack it again with `zip -0 -r`, or get the original"
        )
    order = _byte_order(data, entries.get(f"{root}byteorder"))
    flat_arrays: dict[tuple[str, str], np.ndarray] = {}

    def find_storage(key: str, dtype: str, count: int, view: tuple | None) -> Storage:
        if (key, dtype) not in flat_arrays:
            entry = entries.get(f"{root}data/{key}")
            if entry is None:
                raise Refused("lacks some of its tensor data: it is damaged; get it again")
            flat_arrays[key, dtype] = flat_array(memoryview(data)[entry], dtype, order)
        flat = flat_arrays[key, dtype]
        if view is not None or count > len(flat):
            raise Refused("claims more tensor data than it has: it is damaged; get it again")
        return Storage(flat[:count], order)

    pickled = entries[pickles[0]]
    machine = Machine(data, pickled.start, pickled.stop, find_storage)
    return machine.load(), tuple(sorted(machine.foreign))


def _byte_order(data: mmap.mmap, entry: slice | None) -> str:
    """numpy's sign for the file's byte order, which files before torch 2.1 do not state."""
    orders = {b"little": "<", b"big": ">"}
    order = "<" if entry is None else orders.get(data[entry.start : entry.stop][:8])
    if order is None:
        raise Refused("states an unknown byte order: it is damaged; get it again")
    return order


def _zip_entries(data: mmap.mmap) -> dict[str, slice | None]:
    """Where each entry's bytes lie, by name; None for one that is compressed or encrypted.

    Written out because `zipfile` gives no position of an entry's bytes and is not bounded. The
    format: APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
    """
    entries: dict[str, slice | None] = {}
    try:
        count, position, end = _zip_directory(data)
        for _ in range(count):
            name, plain, header, size, position = _zip_entry(data, position)
            start = header + 30 + sum(struct.unpack_from("<HH", data, header + 26))
            if data[header : header + 4] != b"PK\x03\x04" or position > end or name in entries:
                raise Refused("is a damaged zip archive; get it again")
            if plain and start + size > end:
                raise Refused("claims more data than it has: it is truncated; get it again")
            entries[name] = slice(start, start + size) if plain else None
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise Refused("is a damaged zip archive; get it again") from error
    places = sorted((s.start, s.stop) for s in entries.values() if s is not None)
    if any(stop > start for (_, stop), (start, _) in pairwise(places)):
        raise Refused("holds entries that share their bytes: the file is hostile")
    return entries


def _zip_entry(data: mmap.mmap, position: int) -> tuple[str, bool, int, int, int]:
    """A row of the directory: name, whether it is plain, its header's place, size, next row."""
    signature, flags, method, packed, size, *lengths, header = struct.unpack_from(
        "<4s4xHH8xLLHHH8xL", data, position
    )
    start = position + 46
    name = data[start : start + lengths[0]].decode()
    extra = data[start + lengths[0] : start + lengths[0] + lengths[1]]
    size, packed, header = _zip64_values(extra, size, packed, header)
    if signature != b"PK\x01\x02":
        raise Refused("is a damaged zip archive; get it again")
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise Refused("holds a path that leads out of the archive: the file is hostile")
    plain = method == 0 and not flags & 1 and packed == size
    return name, plain, header, size, start + sum(lengths)


def _zip_directory(data: mmap.mmap) -> tuple[int, int, int]:
    """Number of entries, and where the directory of the archive starts and ends."""
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - (1 << 16) - 22))
    if end < 0:
        raise Refused("is a truncated zip archive: the download stopped early; get it again")
    count, size, start = struct.unpack_from("<10xHLL", data, end)
    if end >= 20 and data[end - 20 : end - 16] == b"PK\x06\x07":
        (end,) = struct.unpack_from("<8xQ", data, end - 20)
        signature, count, size, start = struct.unpack_from("<4s28xQQQ", data, end)
        if signature != b"PK\x06\x06":
            raise Refused("is a damaged zip archive; get it again")
    if start + size > end or count > _MAX_ENTRIES:
        raise Refused("is a damaged zip archive; get it again")
    return count, start, end


def _zip64_values(extra: bytes, *values: int) -> list[int]:
    """`values`, those that did not fit into 32 bits taken in turn from the extra field 1."""
    large = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == 1:
            large = extra[4 : 4 + length]
        extra = extra[4 + length :]
    result = []
    for value in values:
        if value == 0xFFFFFFFF:
            (value,), large = struct.unpack_from("<Q", large), large[8:]
        result.append(value)
    return result


# torch's format before 1.6: magic number, version, system, object, keys, then every storage


def read_legacy(data: mmap.mmap, position: int) -> tuple[object, tuple[str, ...]]:
    protocol, position = _load(data, position)
    system, position = _load(data, position)
    if type(protocol) is not int or protocol != _LEGACY_PROTOCOL or type(system) is not dict:
        raise Refused("is of an unknown version of PyTorch's format: it is damaged; get it again")
    if system.get("little_endian") is False:
        raise Refused("was written on a big-endian machine: load and save it again on another")
    claims: dict[str, tuple[str, int]] = {}
    # The storages' types stand in the object, and only behind it is known where they lie. So it is
    # read twice, the first time with other bytes of the file in the storages' place.
    _, end = _load(data, position, _recorder(data, claims))
    keys, end = _load(data, end)
    storages = _legacy_storages(data, end, keys, claims)

    def find_storage(key: str, dtype: str, count: int, view: tuple | None) -> Storage:
        if key not in storages:
            raise Refused("lacks some of its tensor data: it is damaged; get it again")
        flat = storages[key][:count]
        if view is None:
            return Storage(flat)
        _key, offset, size = view
        return Storage(flat[offset : offset + size])

    machine = Machine(data, position, len(data), find_storage)
    return machine.load(), tuple(sorted(machine.foreign))


def _load(
    data: mmap.mmap, position: int, find_storage: Callable | None = None
) -> tuple[object, int]:
    machine = Machine(data, position, len(data), find_storage)
    return machine.load(), machine.end


def _recorder(data: mmap.mmap, claims: dict[str, tuple[str, int]]) -> Callable:
    def find_storage(key: str, dtype: str, count: int, view: tuple | None) -> Storage:
        if claims.setdefault(key, (dtype, count)) != (dtype, count):
            raise Refused("describes one storage in two ways: it is damaged; get it again")
        size = count * itemsize(dtype)
        if size > len(data):
            raise Refused("claims more tensor data than it has: it is truncated; get it again")
        if view is not None:
            _check_view(view, count)
            count = view[2]
        stand_in = memoryview(data)[: count * itemsize(dtype)]
        return Storage(flat_array(stand_in, "uint16" if dtype == "bfloat16" else dtype, "<"))

    return find_storage


def _check_view(view: object, count: int) -> None:
    whole = type(view) is tuple and len(view) == 3 and all(type(n) is int for n in view[1:])
    if not whole or min(view[1:]) < 0 or view[1] + view[2] > count:
        raise Refused("has a view that reaches outside its storage: damaged or hostile")


def _legacy_storages(
    data: mmap.mmap, position: int, keys: object, claims: dict[str, tuple[str, int]]
) -> dict[str, np.ndarray]:
    """The flat arrays behind the last pickle: each a count of elements (int64), then its bytes."""
    view = memoryview(data)
    storages: dict[str, np.ndarray] = {}
    for key in keys if type(keys) is list else ():
        if type(key) is not str or key not in claims or key in storages:
            raise Refused("lists tensor data that nothing uses: it is damaged; get it again")
        dtype, claimed = claims[key]
        end = position + 8
        count = struct.unpack_from("<q", data, position)[0] if end <= len(data) else -1
        position, end = end, end + count * itemsize(dtype)
        if count < 0 or end > len(data):
            raise Refused("ends before its tensor data: it is truncated; get it again")
        if claimed > count:
            raise Refused("claims more tensor data than it has: it is damaged; get it again")
        storages[key] = flat_array(view[position:end], dtype, "<")
        position = end
    return storages
