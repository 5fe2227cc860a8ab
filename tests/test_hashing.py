"""The hash in the background: right, bounded, and never of half a file."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.hashing import Sha256, sha256_of


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
    assert sha256_of(path) == hashlib.sha256(data).hexdigest()


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
