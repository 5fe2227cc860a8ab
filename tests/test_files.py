"""Files are written whole, or not at all; where the cache folder lies, and who waits for whom in it."""

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssl_backbones import InputError
from ssl_backbones.files import cache_folder, cache_lock, write_atomically


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"two"):
        write_atomically(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_atomically(tmp_path / "file", fail)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("path", ["missing/file", "/proc/file"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, path):
    with pytest.raises(InputError, match=r"cannot write .*free some space or give a path"):
        write_atomically(tmp_path / path, lambda file: None)


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    """A limit on the size of files stands for the disk: both end in an OSError from write."""
    (tmp_path / "file").write_bytes(b"old")
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from ssl_backbones.errors import run_command\n"
        "from ssl_backbones.files import write_atomically\n"
        "sys.exit(run_command(lambda: write_atomically(sys.argv[1], lambda f: f.write(b'x' * 10**6))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "file"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot write")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"SSL_BACKBONES_CACHE": "/scratch/ssl", "XDG_CACHE_HOME": "/x"}, "/scratch/ssl"),
        ({"SSL_BACKBONES_CACHE": "~/ssl"}, "/home/me/ssl"),
        ({"SSL_BACKBONES_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/ssl_backbones"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/ssl_backbones"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/ssl_backbones"),
        ({}, "/home/me/.cache/ssl_backbones"),
    ],
)
def test_the_environment_names_the_cache_folder(monkeypatch, environment, folder):
    for name in ("SSL_BACKBONES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_a_lock_is_held_until_its_process_dies(tmp_path):
    command = (
        "import sys, time; from pathlib import Path; from ssl_backbones.files import cache_lock\n"
        "with cache_lock(Path(sys.argv[1]), 'work'): print('held', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", command, str(tmp_path)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    waiter = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    with cache_lock(tmp_path, "other work"):
        pass  # another lock is free
    time.sleep(0.3)
    assert waiter.poll() is None
    holder.send_signal(signal.SIGKILL)
    assert waiter.stdout.readline() == "held\n"
    for process in (holder, waiter):
        process.kill()
        process.communicate()
