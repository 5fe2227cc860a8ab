"""Files whose pickle would run code: refused, nothing run, and their benign twins read.

Every payload is first shown to work on Python's own unpickler, or the test would prove nothing.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


class Reduced:
    """REDUCE of os.system, wherever it stands in an object."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Eager:
    """What somebody's importable class may do in the places where an unpickler calls it."""

    def __new__(cls, command="true", **options):
        os.system(options.get("command", command))
        return super().__new__(cls)

    def __setstate__(self, command):
        os.system(command)

    def append(self, command):
        os.system(command)

    def __setitem__(self, name, command):
        os.system(command)


EAGER = b"ceager_module\nEager\n"

PAYLOADS = {
    "REDUCE": lambda command: b"\x80\x02cos\nsystem\n" + command + b"\x85R.",
    "REDUCE of posix": lambda command: b"\x80\x02cposix\nsystem\n" + command + b"\x85R.",
    "STACK_GLOBAL": lambda command: b"\x80\x04\x8c\x02os\x8c\x06system\x93" + command + b"\x85R.",
    "dotted name": lambda command: (
        b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93" + command + b"\x85R."
    ),
    "INST": lambda command: b"\x80\x02(" + command + b"ios\nsystem\n.",
    "OBJ": lambda command: (
        b"\x80\x02(csubprocess\nPopen\n](" + text("/bin/sh") + text("-c") + command + b"eo."
    ),
    "NEWOBJ": lambda command: b"\x80\x02" + EAGER + command + b"\x85\x81.",
    "NEWOBJ_EX": lambda command: b"\x80\x04" + EAGER + b")}" + text("command") + command + b"s\x92.",
    "BUILD": lambda command: b"\x80\x02" + EAGER + b")\x81" + command + b"b.",
    "APPEND": lambda command: b"\x80\x02" + EAGER + b")\x81" + command + b"a.",
    "SETITEM": lambda command: b"\x80\x02" + EAGER + b")\x81" + text("x") + command + b"s.",
    "eval": lambda command: (
        b"\x80\x02cbuiltins\neval\n" + text(f"__import__('os').system({command[5:].decode()!r})") + b"\x85R."
    ),
    "getattr": lambda command: (
        b"\x80\x02cbuiltins\ngetattr\n" + EAGER + b")\x81" + text("append") + b"\x86R" + command + b"\x85R."
    ),
    "torch's loader": lambda command: (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(inner := PAYLOADS["REDUCE"](command))) + inner + b"\x85R."
    ),
    "numpy array of objects": lambda command: (
        b"\x80\x03cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
        b"(K\x01K\x01\x85cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
        b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]"
        + b"cos\nsystem\n" + command + b"\x85Ratb."
    ),
}  # fmt: skip


@pytest.fixture
def marker(tmp_path) -> Path:
    return tmp_path / "code_was_run"


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", PAYLOADS)
def test_payloads_by_instruction(tmp_path, marker, name, monkeypatch):
    module = types.ModuleType("eager_module")
    module.Eager = Eager
    monkeypatch.setitem(sys.modules, "eager_module", module)
    path = tmp_path / "payload.pkl"
    path.write_bytes(PAYLOADS[name](text(f"touch {marker}")))
    with contextlib.suppress(Exception):  # some fail once they have done their work
        pickle.loads(path.read_bytes())
    for _ in range(100):  # Popen does not wait
        if marker.exists():
            break
        time.sleep(0.05)
    marker.unlink()  # a dud would fail here
    refusal(path)
    time.sleep(0.05)
    assert not marker.exists()


CONTAINERS = {
    "zip": lambda content, path: torch.save(content, path),
    "legacy": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_payloads_deep_in_a_checkpoint_are_named(tmp_path, marker, container):
    path = tmp_path / "checkpoint.pth"
    tensors = {"a": [1, 2, 3]}
    CONTAINERS[container]({"state_dict": tensors, "optimizer": [{"x": Reduced(marker)}]}, path)
    message = refusal(path)
    assert "system" in message
    assert "nothing of it was run" in message
    assert not marker.exists()
    CONTAINERS[container]({"state_dict": tensors, "optimizer": [{"x": "benign"}]}, path)
    assert read_checkpoint(path).content["state_dict"] == tensors


@pytest.mark.parametrize(
    "pickled",
    [
        # attributes of the reader's own functions and names
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"NsRb.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}" + text("text") + text("os.system") + b"sb.",
        b"\x80\x02cnumpy\ndtype\n" + text("f4") + b"\x85R}" + text("__class__") + b"Nsb.",
        # calls of what is no name: a number, a list, a dictionary, an operand, a storage class
        b"\x80\x02K\x01K\x02\x85R.",
        b"\x80\x02]K\x02\x85R.",
        b"\x80\x02}K\x02\x85\x81.",
        b"\x80\x02cnumpy\nndarray\nK\x02\x85\x81.",
        b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
        b"\x80\x02ctorch\nFloatStorage\nK\x02\x85R.",
        # wrong arguments for what may be called
        b"\x80\x02ccollections\nOrderedDict\nK\x02\x85R.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02c_codecs\nencode\n" + text("a") + text("idna") + b"\x86R.",
        b"\x80\x02c_codecs\nencode\n" + text("a") + text("os") + b"\x86R.",
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cnumpy\ndtype\nNN)tR.",
        b"\x80\x02cnumpy\ndtype\n" + text("O8") + b"\x85R.",
        b"\x80\x02cnumpy\ndtype\n" + text("f4,(1000000,1000000)f8") + b"\x85R.",
        # text that is none, nested so deep that to print it would end the process
        b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b"\x94h\x00\x93.",
        b"\x80\x04cnumpy\ndtype\n" + b"]" * 50_000 + b"a" * 49_999 + b"\x85R.",
        b"\x80\x04ctorch\ndevice\n" + b"]" * 50_000 + b"a" * 49_999 + b"\x85R.",
        # list and dictionary instructions on other things
        b"\x80\x02K\x01K\x02a.",
        b"\x80\x02]K\x02K\x03s.",
        b"\x80\x02}K\x02a.",
        b"\x80\x02)K\x02K\x03s.",
        # an empty stack, an empty memo, a mark that is missing
        b"\x80\x02.",
        b"\x80\x02h\x05.",
        b"\x80\x02t.",
        b"\x80\x020.",
        b"\x80\x02R.",
        # extensions, out-of-band buffers and persistent ids without a container
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"\x80\x02K\x01Q.",
        # keys that can be made to collide, or that cannot be keys
        b"\x80\x02}K\x01\x85K\x02s.",
        b"\x80\x02}]K\x02s.",
        b"\x80\x02}\x8a\x09" + (1 << 61).to_bytes(9, "little") + b"K\x02s.",
    ],
)  # fmt: skip
def test_misuse_of_instructions_is_refused(tmp_path, pickled):
    path = tmp_path / "misuse.pkl"
    path.write_bytes(pickled)
    refusal(path)


BOMBS = {
    "text that claims 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
    "bytes that claim 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
    # A megabyte of text, encoded again and again.
    "encoding": (
        b"\x80\x02" + text("a" * (1 << 20)) + b"q\x00" + text("latin1") + b"q\x01c_codecs\nencode\nq\x02"
        + b"h\x02h\x00h\x01\x86R" * 4000 + b"."
    ),
    # Dictionaries of thousands of items, copied again and again.
    "dictionaries": (
        b"\x80\x02ccollections\nCounter\nq\x00}q\x01("
        + b"".join(b"M" + struct.pack("<H", number) + b"N" for number in range(60_000))
        + b"u" + b"h\x00h\x01\x85R" * 10_000 + b"."
    ),
    "instructions": b"\x80\x02" + b"}" * 3_000_000 + b".",
    "array shape": (
        b"\x80\x02cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85K\x00\x87R"
        b"(K\x01\x8a\x05\x00\x00\x00\x00\x01\x8a\x05\x00\x00\x00\x00\x01\x86"
        b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89K\x00tb."
    ),
}  # fmt: skip


# Harmless here, and so read: the one makes Python's own unpickler reserve gigabytes for its memo.
DEFUSED = {
    "memo": b"\x80\x02Nr\xff\xff\xff\x3f.",
    "nesting": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
}


@pytest.mark.parametrize("name", [*BOMBS, *DEFUSED])
def test_bombs_take_little_memory(tmp_path, name):
    """Read in a process that may not have more than 1 GiB of address space in all."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes((BOMBS | DEFUSED)[name])
    script = (
        "import sys\n"
        "from ssl_backbones.conversion.reading import read_checkpoint\n"
        "from ssl_backbones.errors import InputError\n"
        "try:\n"
        "    read_checkpoint(sys.argv[1])\n"
        "except InputError:\n"
        "    sys.exit(7)\n"
    )
    limit = 1 << 30
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (7 if name in BOMBS else 0, b"")


def test_zip_entries_that_share_their_bytes_are_refused(tmp_path):
    """A second storage that points at the first one's bytes: a way to unfold a file many times."""
    path = tmp_path / "overlap.pth"
    file = io.BytesIO()
    torch.save({"a": torch.ones(64), "b": torch.zeros(64)}, file)
    data = bytearray(file.getvalue())
    rows = [data.rindex(b"archive/data/" + key) for key in (b"0", b"1")]
    data[rows[1] - 4 : rows[1]] = data[rows[0] - 4 : rows[0]]  # where the entry lies
    path.write_bytes(data)
    assert "share their bytes" in refusal(path)


@pytest.mark.parametrize("extra", [0, 1, 65_000, 1 << 24, 1 << 60])
def test_a_zip_directory_that_claims_too_much_is_refused(tmp_path, extra):
    path = tmp_path / "directory.pth"
    file = io.BytesIO()
    torch.save({"a": torch.ones(3)}, file)
    data = bytearray(file.getvalue())
    field = data.rindex(b"PK\x06\x06") + 32  # torch writes the 64-bit form: the number of entries
    struct.pack_into("<Q", data, field, struct.unpack_from("<Q", data, field)[0] + extra)
    path.write_bytes(data)
    if extra:
        assert "damaged zip archive" in refusal(path)
        struct.pack_into("<Q", data, data.rindex(b"PK\x06\x07") + 8, (1 << 63) + extra)
        path.write_bytes(data)
        assert "damaged zip archive" in refusal(path)
    else:
        assert read_checkpoint(path).content["a"].tolist() == [1, 1, 1]
