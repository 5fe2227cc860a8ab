"""The reader against torch's own `weights_only` loading, on every container and view."""

from __future__ import annotations

import argparse
import collections
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError

BASE = torch.arange(-24, 24, dtype=torch.float32).reshape(6, 8) / 7

TENSORS = {
    "float32": BASE,
    "float64": BASE.double(),
    "float16": BASE.half(),
    "bfloat16": BASE.bfloat16(),
    "int64": torch.arange(5),
    "int32": torch.arange(5, dtype=torch.int32),
    "int16": torch.arange(5, dtype=torch.int16),
    "int8": torch.arange(-2, 3, dtype=torch.int8),
    "uint8": torch.arange(250, 255, dtype=torch.uint8),
    "bool": BASE > 0,
    "complex64": torch.complex(BASE, -BASE),
    "transposed": BASE.t(),
    "part": BASE[1:4, 2:5],
    "every other": BASE.flatten()[1::2],
    "expanded": torch.ones(1).expand(5, 3),
    "transposed bfloat16": BASE.bfloat16().t(),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(3.5),
    "parameter": torch.nn.Parameter(BASE.clone()),
    "shared": BASE.view(-1),
}

CONTAINERS = {
    "torch-zip": {},
    "torch-legacy": {"_use_new_zipfile_serialization": False},
}


def assert_equal(ours: np.ndarray, theirs: torch.Tensor) -> None:
    theirs = theirs.detach()
    if theirs.dtype == torch.bfloat16:  # numpy has none; a float32 holds each of its values
        theirs = theirs.float()
    np.testing.assert_array_equal(ours, theirs.numpy(), strict=True)
    assert ours.strides == theirs.numpy().strides


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("container", CONTAINERS)
def test_tensors_equal_those_of_torch(tmp_path, container, protocol):
    path = tmp_path / "tensors.pth"
    torch.save(TENSORS, path, pickle_protocol=protocol, **CONTAINERS[container])
    checkpoint = read_checkpoint(path)
    # Beyond protocol 3 torch's own safe loader gives up.
    expected = torch.load(path, weights_only=True) if protocol <= 3 else TENSORS
    assert checkpoint.container == container
    assert checkpoint.foreign == ()
    assert checkpoint.content.keys() == expected.keys()
    for name, tensor in expected.items():
        assert_equal(checkpoint.content[name], tensor)


@pytest.mark.parametrize("container", CONTAINERS)
def test_dtypes_without_a_storage_class(tmp_path, container):
    """torch itself does not read them back from its older format."""
    path = tmp_path / "unsigned.pth"
    names = ("uint16", "uint32", "uint64")
    tensors = {name: torch.arange(5).to(getattr(torch, name)) for name in names}
    torch.save(tensors | {"last": BASE}, path, **CONTAINERS[container])
    content = read_checkpoint(path).content
    assert_equal(content.pop("last"), BASE)
    for name, array in content.items():
        assert array.dtype == name
        assert array.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of prototypes and deprecations
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse tensors: save each one's .to_dense()"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse tensors"),
        (lambda: torch.quantize_per_tensor(BASE, 0.1, 0, torch.quint8), "quantized tensors"),
        (
            lambda: BASE.to(torch.float8_e4m3fn),
            "float8), which are not read: save each tensor's .float()",
        ),
        (lambda: BASE.to(torch.complex32), "complex32"),
        (lambda: torch.ones(3, device="meta"), "on the meta device, without numbers"),
        (lambda: torch.complex(BASE, BASE).conj(), "lazy conjugate"),
        (lambda: torch._neg_view(BASE), "lazy conjugate or sign"),
        (lambda: torch.nested.nested_tensor([BASE, BASE]), "_rebuild_nested_tensor"),
        (lambda: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    ],
)
def test_what_no_backbone_is_made_of_is_refused_by_name(tmp_path, container, make, says):
    path = tmp_path / "other.pth"
    torch.save({"a": BASE, "b": make()}, path, **CONTAINERS[container])
    assert says in refusal(path)


@pytest.mark.parametrize("container", CONTAINERS)
def test_whole_moco_files_equal_those_of_torch(request, container):
    """Names, order and every value, both encoders, queue and optimizer."""
    name = "moco_v1_file" if container == "torch-zip" else "moco_v2_file"
    path = request.getfixturevalue(name)
    checkpoint, expected = read_checkpoint(path), torch.load(path, weights_only=True, mmap=None)
    assert checkpoint.container == container
    state = checkpoint.content["state_dict"]
    assert list(state) == list(expected["state_dict"])
    assert len(state) == {"moco_v1_file": 642, "moco_v2_file": 646}[name]
    for key, tensor in expected["state_dict"].items():
        assert_equal(state[key], tensor)
    for index, entry in expected["optimizer"]["state"].items():
        assert_equal(
            checkpoint.content["optimizer"]["state"][index]["momentum_buffer"],
            entry["momentum_buffer"],
        )
    assert checkpoint.content["epoch"] == expected["epoch"]
    assert checkpoint.content["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_tied_tensors_stay_views_of_one_storage(tmp_path, container):
    path = tmp_path / "tied.pth"
    torch.save({"a": BASE, "b": BASE[2:]}, path, **CONTAINERS[container])
    content = read_checkpoint(path).content
    assert np.shares_memory(content["a"], content["b"])


@pytest.mark.parametrize("container", CONTAINERS)
def test_arrays_are_views_of_the_file(tmp_path, container):
    """Nothing of a tensor is read before it is used: its array owns no memory and is read-only."""
    path = tmp_path / "lazy.pth"
    torch.save({"a": BASE}, path, **CONTAINERS[container])
    array = read_checkpoint(path).content["a"]
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_values_survive_releasing_the_memory(tmp_path):
    path = tmp_path / "released.pth"
    torch.save({"a": BASE}, path)
    checkpoint = read_checkpoint(path)
    checkpoint.release()
    assert_equal(checkpoint.content["a"], BASE)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_stands_beside_the_tensors(tmp_path, container):
    """The kinds of values that training scripts save; numpy scalars are SwAV's learning rate."""
    content = {
        "none": None,
        "numbers": [1, -5, 1 << 40, 0.5, True, False, 300, 70000],
        "text": "é",
        "tuple": (1, (2, 3), (), (4, 5, 6, 7)),
        "size": BASE.shape,
        "ordered": collections.OrderedDict(x=1),
        "milestones": collections.Counter([8, 11, 11]),
        "lr": np.float64(0.1),
        "step": np.int64(7),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big-endian": np.arange(4, dtype=">i4"),
        "twice": [np.arange(2, dtype=">f8"), np.arange(3, dtype=">f8")],
        7: "an optimizer's key",
    }
    path = tmp_path / "beside.pth"
    torch.save(content, path, **CONTAINERS[container])
    read = read_checkpoint(path).content
    assert read.keys() == content.keys()
    for name in ("array", "fortran", "big-endian"):
        np.testing.assert_array_equal(read.pop(name), content.pop(name))
    for ours, theirs in zip(read.pop("twice"), content.pop("twice"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype.isnative
    assert read == content
    assert type(read["lr"]) is np.float64
    assert type(read["step"]) is np.int64


def test_foreign_types_become_reported_placeholders(tmp_path):
    path = tmp_path / "args.pth"
    torch.save({"args": argparse.Namespace(lr=0.1), "a": BASE}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.foreign == ("argparse.Namespace",)
    assert checkpoint.content["args"].type_name == "argparse.Namespace"
    assert checkpoint.content["args"].attributes == {"lr": 0.1}
    assert_equal(checkpoint.content["a"], BASE)


def test_a_tensor_with_attributes(tmp_path):
    tensor = torch.arange(3.0)
    tensor.note = "seen by torch._tensor._rebuild_from_type_v2"
    path = tmp_path / "attributes.pth"
    torch.save({"a": tensor}, path)
    assert read_checkpoint(path).content["a"].tolist() == [0, 1, 2]


def test_checkpoints_of_detectron2s_trainer(tmp_path):
    """fvcore's Checkpointer saves model, optimizer, scheduler and iteration."""
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict(),
        "iteration": 89999,
    }
    path = tmp_path / "model_0089999.pth"
    torch.save(content, path)
    read = read_checkpoint(path).content
    assert_equal(read["model"]["weight"], model.weight)
    assert_equal(read["optimizer"]["state"][0]["momentum_buffer"], torch.ones(3, 2))
    assert read["scheduler"]["milestones"] == {3: 1, 5: 1}
    assert read["iteration"] == 89999


# Files that other machines and times wrote


def repack(path, change, **options) -> None:
    """Write a torch zip file again, its entries changed by `change(name, data)`."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(*change(name, data))


def test_big_endian_zip(tmp_path):
    """torch swaps the bytes of such a file as well: both must give the written values."""
    path = tmp_path / "big.pth"
    tensors = {"a": BASE, "b": BASE.double(), "c": torch.arange(5), "d": BASE.bfloat16()}
    torch.save(tensors, path)
    widths = {"0": 4, "1": 8, "2": 8, "3": 2}

    def swap(name: str, data: bytes) -> tuple[str, bytes]:
        if name.endswith("/byteorder"):
            return name, b"big"
        if "/data/" in name:
            width = widths[name.rsplit("/", 1)[1]]
            return name, np.frombuffer(data, f"<u{width}").astype(f">u{width}").tobytes()
        return name, data

    repack(path, swap)
    content, theirs = read_checkpoint(path).content, torch.load(path, weights_only=True)
    for name, tensor in tensors.items():
        assert_equal(content[name], tensor)
        assert_equal(content[name], theirs[name])


class OldPickler(pickle.Pickler):
    """Writes the persistent ids of torch before 0.4, whose storages could be views of another."""

    def persistent_id(self, value):
        if isinstance(value, OldStorage):
            return ("storage", torch.FloatStorage, "root", "cpu", 10, value.view)
        return None


class OldStorage:
    def __init__(self, view):
        self.view = view


def legacy_file(content, keys, storages: bytes, *, little_endian=True) -> bytes:
    """torch's format before 1.6, put together by hand from torch/serialization.py."""
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little_endian}):
        pickle.dump(value, file, protocol=2)
    OldPickler(file, protocol=2).dump(content)
    pickle.dump(keys, file, protocol=2)
    return file.getvalue() + storages


class OldTensor:
    def __init__(self, storage, offset, size, stride):
        self.arguments = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def test_views_of_storages_in_old_files(tmp_path):
    values = np.arange(10, dtype=np.float32)
    content = {
        "whole": OldTensor(OldStorage(None), 0, (10,), (1,)),
        "view": OldTensor(OldStorage(("view", 4, 5)), 1, (2, 2), (2, 1)),
    }
    path = tmp_path / "old.pth"
    path.write_bytes(legacy_file(content, ["root"], struct.pack("<q", 10) + values.tobytes()))
    read, theirs = read_checkpoint(path).content, torch.load(path, weights_only=True)
    for name in content:
        assert_equal(read[name], theirs[name])
    assert read["view"].tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_of_arrays(tmp_path, protocol):
    content = {
        "model": {"a": BASE.numpy(), "b": np.asfortranarray(BASE.numpy())},
        "__author__": "x",
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == "pickle"
    for name, array in content["model"].items():
        np.testing.assert_array_equal(checkpoint.content["model"][name], array)


def test_model_zoo_pickles_of_python_2(tmp_path):
    """Names and array data are byte strings there, the names of numpy those of old."""
    array = np.array([[1.5, -2.0], [0.25, 128.0]], dtype=np.float32)
    data = array.tobytes()
    pickled = (
        b"\x80\x02}q\x01(U\x05blobsq\x02}q\x03U\x07conv1_wq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x08U\x02f4K\x00K\x01\x87Rq\x09"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", len(data)) + data + b"tbsu."
    )  # fmt: skip
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickled)
    theirs = pickle.loads(pickled, encoding="latin1")["blobs"]["conv1_w"]
    np.testing.assert_array_equal(theirs, array)
    np.testing.assert_array_equal(read_checkpoint(path).content["blobs"]["conv1_w"], array)


def test_an_array_alone(tmp_path):
    """Not even comparable with a magic number."""
    path = tmp_path / "array.pkl"
    path.write_bytes(pickle.dumps(np.arange(5.0)))
    assert read_checkpoint(path).content.tolist() == [0, 1, 2, 3, 4]


# What is no checkpoint


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404", "web page"),
        (b"\n <HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"Not found\n", "text file"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"BZh9rest", "bzip2"),
        (b"\xfd7zXZ\x00rest", "xz"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", ".npy"),
        (b"x" * 257 + b"ustar" + b"\0" * 250, "tar archive"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}', "safetensors"),
        (bytes(range(1, 9)).rjust(64, b"\xff"), "damaged or of another kind"),
        (b"\x80\x02}q\x00.", None),
        (b"\x80", "truncated"),
    ],
)
def test_what_other_files_look_like(tmp_path, data, says):
    path = tmp_path / "download.pth.tar"
    path.write_bytes(data)
    if says is None:  # the smallest pickle: an empty dictionary
        assert read_checkpoint(path).content == {}
    else:
        assert says in refusal(path)


def test_paths_that_are_no_files(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.pth")
    assert "give the file itself" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")
    assert "not a regular file" in refusal("/dev/zero")


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_truncation_is_refused(tmp_path, container):
    whole = io.BytesIO()
    torch.save({"a": BASE, "b": torch.arange(300)}, whole, **CONTAINERS[container])
    data, path = whole.getvalue(), tmp_path / "cut.pth"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        refusal(path)


def test_zip_archives_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "unpack it" in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    assert "TorchScript" in refusal(path)


def test_compressed_zips_are_refused(tmp_path):
    path = tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(100_000)}, path)
    repack(path, lambda name, data: (name, data), compression=zipfile.ZIP_DEFLATED)
    assert "zip -0" in refusal(path)


def test_paths_out_of_the_archive_are_refused(tmp_path):
    path = tmp_path / "climbing.pth"
    torch.save({"a": BASE}, path)
    repack(path, lambda name, data: (name.replace("/data/", "/../"), data))
    assert "out of the archive" in refusal(path)


def test_big_endian_legacy_files_are_refused(tmp_path):
    path = tmp_path / "big.pth"
    path.write_bytes(legacy_file({}, [], b"", little_endian=False))
    assert "big-endian" in refusal(path)


@pytest.mark.parametrize("keys", [["other"], ["root", "root"], [["root"]], [7], {"root": 1}, []])
def test_legacy_files_with_wrong_keys_are_refused(tmp_path, keys):
    content = {"a": OldTensor(OldStorage(None), 0, (10,), (1,))}
    path = tmp_path / "keys.pth"
    path.write_bytes(legacy_file(content, keys, (struct.pack("<q", 10) + bytes(40)) * 2))
    refusal(path)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((11,), (1,), 0),  # longer than the storage
        ((2, 5), (6, 1), 0),  # a row beyond its end
        ((5,), (1,), 6),  # an offset too far
        ((2,), (-1,), 5),
        ((-2,), (1,), 0),
        ((5,), (1,), -1),
        ((1 << 62, 2), (0, 0), 0),
        ((5,), (1, 1), 0),
        ((5,), (1.0,), 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path, size, stride, offset):
    content = {"a": OldTensor(OldStorage(None), offset, size, stride)}
    path = tmp_path / "outside.pth"
    path.write_bytes(legacy_file(content, ["root"], struct.pack("<q", 10) + bytes(40)))
    assert "damaged or hostile" in refusal(path)


def test_a_zip_storage_shorter_than_claimed_is_refused(tmp_path):
    """Even where the tensor itself would fit: the file is not what was written."""
    path = tmp_path / "short.pth"
    torch.save({"a": BASE[:1]}, path)
    repack(path, lambda name, data: (name, data[:-4] if name.endswith("/data/0") else data))
    assert "claims more tensor data" in refusal(path)


def test_a_storage_that_claims_more_than_the_file_has(tmp_path):
    content = {"a": OldTensor(OldStorage(None), 0, (10,), (1,))}
    path = tmp_path / "claims.pth"
    for count, size in ((1 << 40, 40), (10, 39), (9, 36), (-1, 40)):
        path.write_bytes(legacy_file(content, ["root"], struct.pack("<q", count) + bytes(size)))
        refusal(path)
    for view in (("view", 4, 7), ("view", -1, 2), ("view", 1 << 70, 1)):
        content = {"a": OldTensor(OldStorage(view), 0, (1,), (1,))}
        path.write_bytes(legacy_file(content, ["root"], struct.pack("<q", 10) + bytes(40)))
        assert "damaged or hostile" in refusal(path)
