"""The hash in the background: right, bounded, and never of half a file."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.hashing import (
    Sha256,
    digest_of,
    digests_of,
    fingerprint_of,
    sha256_of,
    why_unusable,
    write_checksum,
)


def test_the_digest_of_abc(tmp_path):
    """From FIPS 180-2, appendix B.1."""
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == expected
    with Sha256(path) as sha256:
        assert sha256.hexdigest() == sha256.hexdigest() == expected


@pytest.mark.parametrize("size", [0, 1, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5_000_000])
def test_sizes_about_a_piece(tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_of(path) == digest_of(path) == hashlib.sha256(data).hexdigest()
    assert digests_of(path, "md5", "sha256") == {
        "md5": hashlib.md5(data).hexdigest(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def test_leaving_the_block_gives_the_work_up(tmp_path):
    """A refused file of any size costs no more than a piece."""
    path = tmp_path / "sparse"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    started = time.monotonic()
    with Sha256(path) as sha256:
        pass
    assert time.monotonic() - started < 30  # the whole file takes a quarter of an hour
    with pytest.raises(RuntimeError, match="given up"):
        sha256.hexdigest()


def test_what_cannot_be_read_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (
        ("missing", "No such file"),
        ("pipe", "not a regular file"),
        (".", "directory"),
    ):
        with pytest.raises(InputError, match=says):
            sha256_of(tmp_path / name)
        with pytest.raises(OSError, match=says):
            digest_of(tmp_path / name)


def test_a_fingerprint_is_the_hash_of_json_in_the_order_of_names():
    expected = hashlib.sha256(b'{"a": [1, null], "b": {"c": "d"}}').hexdigest()
    assert fingerprint_of({"b": {"c": "d"}, "a": [1, None]}) == expected


def test_a_checksum_is_one_that_sha256sum_reads(tmp_path):
    path = tmp_path / "some file.pth"
    path.write_bytes(b"abc")
    assert why_unusable(path) == (
        "some file.pth.sha256 is missing: its writing was interrupted, or it was removed"
    )
    write_checksum(path, sha256_of(path))
    assert why_unusable(path) is None
    command = ["sha256sum", "-c", "some file.pth.sha256"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    path.write_bytes(b"abd")
    assert why_unusable(path) == "its content is not what was written: its SHA-256 differs"
    path.unlink()
    assert why_unusable(path).startswith("some file.pth is missing")
