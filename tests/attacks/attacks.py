"""Write each hostile file, give it to the converter's command, and print what came of it as JSON.

    python tests/attacks/attacks.py FOLDER

All of them run in this one process, which may not have more than a gigabyte of memory of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_backbones.modeling.architectures import Architecture
from ssl_backbones.tools.convert_checkpoint import main

MEMORY = 1 << 30
NETWORK = Architecture("narrow", 18, stem_channels=1, res2_channels=1)

ATTACKS: dict[str, Callable[[Path, bytes], bytes | Path]] = {}
"""Name to what writes the file: from a folder and a command, to bytes or to the file's path."""


def attack(name: str):
    def register(write):
        ATTACKS[name] = write
        return write

    return register


# Pickles, put together by hand


ESCAPE = "\x1b[2J\nerror: none\r"


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def array(values: np.ndarray) -> bytes:
    return pickle.dumps(values, 2)[2:-1]


def state_dict() -> bytes:
    """A whole, narrow ResNet-18 in SwAV's layout."""
    generator = np.random.default_rng(0)
    arrays = {n: generator.uniform(0.5, 1.5, s) for n, s in NETWORK.shapes.items()}
    arrays |= {"projection_head.0.weight": np.ones((2, 8)), "prototypes.weight": np.ones((3, 2))}
    items = (text(f"module.{n}") + array(a.astype(np.float32)) for n, a in arrays.items())
    return b"}(" + b"".join(items) + b"u"


def checkpoint(beside: bytes) -> bytes:
    """A training checkpoint that converts, if what stands beside its network lets it."""
    return b"\x80\x02}(" + text("state_dict") + state_dict() + text("beside") + beside + b"u."


def called(name: str, argument: bytes) -> bytes:
    return named(name) + argument + b"\x85R"


def foreign(name: str, state: bytes) -> bytes:
    return named(name) + b")\x81" + state + b"b"


@attack("an honest file")
def _(folder, command):
    return checkpoint(b"N")


# Code


@attack("os.system by REDUCE")
def _(folder, command):
    return checkpoint(called("os.system", text(command)))


@attack("os.system by STACK_GLOBAL")
def _(folder, command):
    return checkpoint(b"\x8c\x02os\x8c\x06system\x93" + text(command) + b"\x85R")


@attack("os.system by INST")
def _(folder, command):
    return checkpoint(b"(" + text(command) + b"ios\nsystem\n")


@attack("a dotted name")
def _(folder, command):
    return checkpoint(b"\x8c\x05torch\x8c\x0eos.path.os.sys\x93" + text(command) + b"\x85R")


@attack("eval")
def _(folder, command):
    return checkpoint(called("builtins.eval", text(b"__import__('os').system('%b')" % command)))


@attack("getattr of a module")
def _(folder, command):
    function = named("__builtin__.getattr") + text("os") + text("system") + b"\x86R"
    return checkpoint(function + text(command) + b"\x85R")


@attack("getattr of a foreign type, then called")
def _(folder, command):
    buffer = named("mmengine.logging.history_buffer.HistoryBuffer")
    function = named("__builtin__.getattr") + buffer + text("mean") + b"\x86R"
    return checkpoint(function + text(command) + b"\x85R")


@attack("a foreign function, called")
def _(folder, command):
    return checkpoint(
        called("__main__.exclude_bias_and_norm", text(command)) + text("x") + b"\x85R"
    )


@attack("a foreign type with a hostile state")
def _(folder, command):
    state = b"}(" + text("__class__") + b"N" + text("__reduce__") + text(command) + b"u"
    return checkpoint(foreign("argparse.Namespace", state))


@attack("torch's own loader within a pickle")
def _(folder, command):
    inner = b"\x80\x02" + called("os.system", text(command)) + b"."
    return checkpoint(called("torch.storage._load_from_bytes", text(inner.decode("latin-1"))))


@attack("a numpy array of objects")
def _(folder, command):
    dtype = named("numpy.dtype") + text("O8") + b"\x89\x88\x87R"
    payload = called("os.system", text(command))
    start = named("numpy.core.multiarray._reconstruct") + named("numpy.ndarray")
    return checkpoint(
        start + b"K\x00\x85U\x01b\x87R(K\x01K\x01\x85" + dtype + b"\x89]" + payload + b"atb"
    )


@attack("SETITEM on a tensor (as in CVE-2026-24747)")
def _(folder, command):
    return checkpoint(array(np.ones(3, np.float32)) + b"K\x00K\x01s")


@attack("a tar archive of torch's first format (as in CVE-2025-32434)")
def _(folder, command):
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


@attack("a pickle of haiku's, as BYOL publishes")
def _(folder, command):
    return b"\x80\x04" + called("haiku._src.data_structures.FlatMapping", b"}") + b"."


@attack("a .npy file of a pickle, as DetCon publishes")
def _(folder, command):
    file = io.BytesIO()
    np.save(file, np.array({"a": 1}, dtype=object), allow_pickle=True)
    return file.getvalue()


# Names and structure


@attack("a key that writes to the terminal")
def _(folder, command):
    return b"\x80\x02}(" + text(ESCAPE) + array(np.ones(3, np.float32)) + b"u."


@attack("a name that writes to the terminal")
def _(folder, command):
    return checkpoint(b"\x8c\x02os\x8c\x09\x1b[2J\nall\r\x93")


@attack("a converted file whose provenance writes to the terminal")
def _(folder, command):
    provenance = b"}(" + text("source") + text(ESCAPE) + text("method") + text(ESCAPE) + b"u"
    model = b"}" + text("stem.conv1.weight") + array(np.ones((1, 3, 7, 7), np.float32)) + b"s"
    items = text("model") + model + text("__author__") + text("x") + text("provenance") + provenance
    return b"\x80\x02}(" + items + b"u."


@attack("safetensors: metadata that write to the terminal")
def _(folder, command):
    metadata = json.dumps({"provenance": json.dumps({"source": ESCAPE}), ESCAPE: ESCAPE})
    header = f'{{"__metadata__":{metadata},{entry(ESCAPE, [1], 0, 4)}}}'.replace("\x1b", "\\u001b")
    return safetensors(header.replace("\n", "\\n").replace("\r", "\\r").encode(), bytes(4))


@attack("a dictionary that holds itself")
def _(folder, command):
    return b"\x80\x02}q\x00(" + text("state_dict") + b"h\x00" + text("model") + b"h\x00u."


@attack("lists half a million deep")
def _(folder, command):
    return checkpoint(b"]" * 500_000 + b"a" * 499_999)


@attack("dictionaries a hundred thousand deep")
def _(folder, command):
    deep = (b"}" + text("state_dict")) * 100_000 + b"}" + b"s" * 100_000
    return b"\x80\x02" + deep + b"."


@attack("a dictionary of ten million keys")
def _(folder, command):
    items = np.zeros(10_000_000, np.dtype([("int", "u1"), ("key", "<i4"), ("none", "u1")]))
    items["int"], items["key"], items["none"] = ord("J"), np.arange(len(items)), ord("N")
    return b"\x80\x02}(" + items.tobytes() + b"u."


@attack("keys whose hashes collide")
def _(folder, command):
    modulus = sys.hash_info.modulus
    keys = (b"\x8a\x0a" + (n * modulus).to_bytes(10, "little") + b"N" for n in range(1, 50_000))
    return b"\x80\x02}(" + b"".join(keys) + b"u."


# Claims and bombs


@attack("text that claims 4 GB")
def _(folder, command):
    return b"\x80\x02}(X\xff\xff\xff\xffabc."


@attack("a memo index of a billion")
def _(folder, command):
    return checkpoint(b"Nr\xff\xff\xff\x3f")


def tensor(size: bytes, stride: bytes, storage_count: bytes = b"K\x01") -> bytes:
    storage = b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu")
    return (
        named("torch._utils._rebuild_tensor_v2") + b"(" + storage + storage_count + b"tQK\x00"
        + size + stride + b"\x89" + named("collections.OrderedDict") + b")RtR"
    )  # fmt: skip


def torch_zip(pickled: bytes, **storages: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"a/data/{key.removeprefix('_')}", data)
    return file.getvalue()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


@attack("a storage that claims a terabyte")
def _(folder, command):
    claim = number(1 << 38)
    state = b"}" + text("a") + tensor(claim + b"\x85", b"K\x01\x85", claim) + b"s"
    return torch_zip(b"\x80\x02" + state + b".", _0=bytes(4))


@attack("a tensor of a trillion elements in one number")
def _(folder, command):
    state = b"}" + text("a") + tensor(number(1 << 40) + b"\x85", b"K\x00\x85") + b"s"
    return torch_zip(b"\x80\x02" + state + b".", _0=bytes(4))


@attack("a whole network in one number")
def _(folder, command):
    """Every tensor a view, with strides of 0, of one storage: a gigabyte out of thirty kilobytes."""
    shapes = Architecture("wide", 50, 256, 1024, 256).shapes | {"projection_head.0.weight": (1, 1)}
    items = (
        text(f"module.{name}")
        + tensor(b"(" + b"".join(map(number, shape)) + b"t", b"(" + b"K\x00" * len(shape) + b"t")
        for name, shape in shapes.items()
    )
    pickled = b"\x80\x02}(" + b"".join(items) + b"u."
    return torch_zip(pickled, _0=struct.pack("<f", 1))


@attack("a zip bomb")
def _(folder, command):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        with archive.open("a/data/0", "w") as entry:
            for _ in range(256):
                entry.write(bytes(1 << 20))
    return file.getvalue()


@attack("a path that leads out of an archive")
def _(folder, command):
    return torch_zip(b"\x80\x02}.", **{"../../../../result": b"overwritten"})


@attack("zip entries that share their bytes")
def _(folder, command):
    data = bytearray(torch_zip(b"\x80\x02}.", _0=bytes(64), _1=bytes(64)))
    rows = [data.rindex(b"a/data/" + key) for key in (b"0", b"1")]
    data[rows[1] - 4 : rows[1]] = data[rows[0] - 4 : rows[0]]
    return bytes(data)


@attack("a zip directory that claims four billion entries")
def _(folder, command):
    data = torch_zip(b"\x80\x02}.")
    end = data.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1 << 32, 1 << 32, 99, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    return data[:end] + record + locator + data[end:]


@attack("a sparse file of a terabyte")
def _(folder, command):
    path = folder / "sparse.pth"
    with open(path, "wb") as file:
        file.write(torch_zip(b"\x80\x02}."))
        file.truncate(1 << 40)
    return path


@attack("a named pipe")
def _(folder, command):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@attack("a device without an end")
def _(folder, command):
    return Path("/dev/zero")


# safetensors


def safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(name: str, shape: list[int], begin: int, end: int) -> str:
    return f'"{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}'


@attack("safetensors: a header longer than the file")
def _(folder, command):
    return safetensors(b'{"a":1}', length=1 << 39)


@attack("safetensors: a header of 100 MB")
def _(folder, command):
    return safetensors(b"{" + b" " * (100_000_000 - 2) + b"}")


@attack("safetensors: a header nested a million deep")
def _(folder, command):
    return safetensors(b'{"a":' + b"[" * 1_000_000)


@attack("safetensors: a tensor beyond the end")
def _(folder, command):
    return safetensors(b"{" + entry("a", [4], 0, 16).encode() + b"}", bytes(12))


@attack("safetensors: tensors that overlap")
def _(folder, command):
    header = ",".join((entry("a", [4], 0, 16), entry("b", [4], 0, 16)))
    return safetensors(b"{" + header.encode() + b"}", bytes(16))


@attack("safetensors: a hole between tensors")
def _(folder, command):
    header = ",".join((entry("a", [1], 0, 4), entry("b", [1], 8, 12)))
    return safetensors(b"{" + header.encode() + b"}", bytes(12))


@attack("safetensors: bytes that belong to no tensor")
def _(folder, command):
    return safetensors(b"{" + entry("a", [1], 0, 4).encode() + b"}", b"\0\0\0\0" + b"#!/bin/sh")


@attack("safetensors: a shape whose size overflows")
def _(folder, command):
    header = entry("a", [1 << 32, 1 << 32], 0, 4)
    return safetensors(b"{" + header.encode() + b"}", bytes(4))


@attack("safetensors: one name twice")
def _(folder, command):
    header = ",".join((entry("a", [1], 0, 4), entry("a", [1], 4, 8)))
    return safetensors(b"{" + header.encode() + b"}", bytes(8))


# The destination


@attack("a symbolic link as DST")
def _(folder, command):
    (folder / "victim").write_bytes(b"untouched")
    (folder / "result.pkl").symlink_to(folder / "victim")
    return checkpoint(b"N")


@attack("a dangling symbolic link as DST")
def _(folder, command):
    (folder / "result.pkl").symlink_to(folder / "victim")
    return checkpoint(b"N")


def command(*words: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error."""
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        status = main(list(words))
    return status, said.getvalue(), complained.getvalue()


def outcome(name: str, folder: Path) -> dict:
    """What the command said, how long it took, and what it left behind."""
    folder.mkdir()
    marker = folder / "code_was_run"
    source = ATTACKS[name](folder, f"touch {marker}".encode())
    if isinstance(source, bytes):
        data, source = source, folder / "checkpoint.pth"
        source.write_bytes(data)
    before = {path.name: path.is_symlink() or path.stat().st_size for path in folder.iterdir()}
    started = time.monotonic()
    status, _, stderr = command(str(source), str(folder / "result.pkl"), "--no-verify")
    _, shown, complaint = command("inspect", str(source))
    seconds = time.monotonic() - started
    after = {path.name: path.is_symlink() or path.stat().st_size for path in folder.iterdir()}
    if source.parent == folder:
        source.unlink()
    return {
        "status": status,
        "stderr": stderr,
        "inspected": shown + complaint,
        "seconds": seconds,
        "left": sorted(file for file in after if after[file] != before.get(file)),
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    folder = Path(sys.argv[1])
    json.dump({n: outcome(n, folder / str(i)) for i, n in enumerate(ATTACKS)}, sys.stdout)
