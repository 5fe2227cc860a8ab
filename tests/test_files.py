"""Files are written whole, or not at all."""

import os
import resource
import stat
import subprocess
import sys

import pytest

from ssl_backbones import InputError
from ssl_backbones.files import write_atomically


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
