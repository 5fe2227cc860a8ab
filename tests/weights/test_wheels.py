"""Weights that are published inside a package: fetched with real pip from folders and servers of ours."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import pty
import resource
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import venv
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from wheel_files import MARKER, augnet_bytes, write_wheel

from ssl_backbones.errors import InputError
from ssl_backbones.weights.cache import Cache
from ssl_backbones.weights.resolution import NamedWeights, PublishedHash, SSLWeightsHandler, resolve
from ssl_backbones.weights.wheels import WheelFile

WANTED = WheelFile("imgsim", "0.1.2", "imgsim/model.pth", "MIT")
PAGE = "RECORD in the wheel"


def write_sdist(folder: Path) -> None:
    """The same version as a source archive, whose setup.py pip would run."""
    files = {
        "setup.py": MARKER,
        "PKG-INFO": "Metadata-Version: 2.1\nName: imgsim\nVersion: 0.1.2\n",
    }
    with tarfile.open(folder / "imgsim-0.1.2.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"imgsim-0.1.2/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.fixture(scope="session")
def augnet_file() -> bytes:
    return augnet_bytes()


@pytest.fixture
def cache(wheels) -> Cache:
    return Cache.from_environment()


def handler(model: bytes) -> SSLWeightsHandler:
    """A handler whose one name, `test`, is the file with these bytes out of imgsim's wheel."""
    published = PublishedHash("sha256", hashlib.sha256(model).hexdigest(), PAGE)
    return SSLWeightsHandler({"test": NamedWeights("test", WANTED, "augnet", PAGE, published)})


COMMAND = """\
import sys
from ssl_backbones.errors import run_command
from ssl_backbones.weights.resolution import NamedWeights, PublishedHash, SSLWeightsHandler
from ssl_backbones.weights.wheels import WheelFile
published = PublishedHash("sha256", sys.argv[1], "RECORD in the wheel")
wanted = WheelFile("imgsim", "0.1.2", "imgsim/model.pth", "MIT")
row = NamedWeights("test", wanted, "augnet", "", published)
handler = SSLWeightsHandler({"test": row})
sys.exit(run_command(lambda: print(handler._get_local_path("ssl://test"))))
"""


def process(model: bytes, **options) -> subprocess.Popen:
    """Another process that wants the same."""
    words = [sys.executable, "-c", COMMAND, hashlib.sha256(model).hexdigest()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options)


def refusal(cache: Cache, model: bytes = b"model") -> str:
    """The one line, after which the cache is as if nothing had been asked."""
    with pytest.raises(InputError) as raised:
        handler(model)._get_local_path("ssl://test")
    assert "\n" not in str(raised.value)
    assert list(cache.downloads().iterdir()) == []
    assert cache.known("test") is None
    return str(raised.value)


# From the wheel to a converted file


def test_two_processes_at_once_fetch_once_and_agree(
    wheels, cache, augnet_file, tmp_path, monkeypatch
):
    write_wheel(wheels, augnet_file)
    write_sdist(wheels)
    monkeypatch.setenv("PIP_LOG", str(tmp_path / "pip.log"))
    processes = [process(augnet_file) for _ in "ab"]
    copies = {one.communicate()[0].strip() for one in processes}
    assert len(copies) == 1 and [one.returncode for one in processes] == [0, 0]
    assert (tmp_path / "pip.log").read_text().count("Successfully downloaded imgsim") == 1

    original = cache.downloads() / "imgsim-0.1.2-model.pth"
    assert list(cache.downloads().iterdir()) == [original]
    assert original.read_bytes() == augnet_file
    sha256 = hashlib.sha256(augnet_file).hexdigest()
    assert json.loads(cache.known_hashes.read_text())["test"]["sha256"] == sha256

    content = pickle.loads(Path(*copies).read_bytes())  # our own file
    found = content["provenance"]
    assert found["source"] == "imgsim-0.1.2-model.pth" and found["source_sha256"] == sha256
    assert found["package"] == "imgsim 0.1.2: imgsim/model.pth" and found["license"] == "MIT"
    assert found["method"] == found["layout"] == "augnet"
    assert found["input"]["format"] == "RGB" and found["proof"]["margin"] > 1
    source = torch.load(original, weights_only=True)
    for ours, theirs in {
        "stem.conv1.weight": "conv1.weight",
        "res3.0.shortcut.norm.running_var": "layer2.0.downsample.1.running_var",
        "res5.1.conv2.norm.bias": "layer4.1.bn2.bias",
    }.items():
        assert np.array_equal(content["model"][ours], source[f"module.pre.{theirs}"]), ours

    # Again, with nothing left to fetch it from; and the same file as a user's own, in no package.
    (wheels / "imgsim-0.1.2-py3-none-any.whl").unlink()
    assert {handler(augnet_file)._get_local_path("ssl://test")} == copies
    own = pickle.loads(Path(resolve(str(original))).read_bytes())["provenance"]  # our own file
    assert own["source_sha256"] == sha256 and "package" not in own


def test_what_the_conversion_refuses_is_kept_and_names_the_package(wheels, cache):
    write_wheel(wheels, b"no checkpoint")
    with pytest.raises(
        InputError, match=r"\(it came from imgsim/model\.pth in the wheel of imgsim"
    ):
        handler(b"no checkpoint")._get_local_path("ssl://test")
    assert (cache.downloads() / "imgsim-0.1.2-model.pth").read_bytes() == b"no checkpoint"


# What is refused


def test_another_version_and_a_source_archive_are_not_the_wheel(wheels, cache):
    write_wheel(wheels, b"model", "0.1.1")
    write_sdist(wheels)
    message = refusal(cache)
    assert "cannot fetch imgsim/model.pth in the wheel of imgsim 0.1.2: no index and no" in message
    assert "set PIP_FIND_LINKS" in message and "train.init_checkpoint=/path/to/file" in message


def test_a_wheel_with_another_file_is_refused(wheels, cache):
    write_wheel(wheels, b"another")
    message = refusal(cache, b"model")
    found, published = (hashlib.sha256(content).hexdigest() for content in (b"another", b"model"))
    assert f"imgsim 0.1.2 is {found}, but {PAGE} publishes {published}; try again" in message
    assert "PIP_FIND_LINKS" in message


def test_a_wheel_without_the_file_is_refused(wheels, cache):
    wheel = write_wheel(wheels, None)
    assert f"the {wheel.name} that pip fetched holds no imgsim/model.pth" in refusal(cache)


def test_a_damaged_wheel_is_refused(wheels, cache):
    """Damaged where pip itself does not look."""
    model = np.random.default_rng(0).bytes(100_000)
    wheel = write_wheel(wheels, model)
    content = bytearray(wheel.read_bytes())
    content[50_000] ^= 1
    wheel.write_bytes(content)
    assert f"the {wheel.name} that pip fetched is damaged (" in refusal(cache, model)


def test_an_environment_without_pip_is_told_how_to_get_it(wheels, cache, tmp_path, monkeypatch):
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", python)
    message = refusal(cache)
    assert f"which this Python does not have: `{python} -m ensurepip` installs it" in message


def test_an_index_that_is_not_reached_is_told_from_one_without_the_wheel(
    wheels, cache, monkeypatch
):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with socket.socket() as unused:  # bound and not listening: nobody else can take the port
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", address)
        message = refusal(cache)
    assert "imgsim 0.1.2: pip does not reach its index; on a machine without network" in message


def test_what_pip_says_otherwise_is_passed_on(wheels, cache, monkeypatch):
    monkeypatch.setenv("PIP_CONSTRAINT", str(wheels / "missing.txt"))
    message = refusal(cache)
    assert "pip says ERROR: Could not open requirements file" in message
    assert "missing.txt" in message and "PIP_FIND_LINKS" in message


@contextmanager
def files_end_at(size: int):
    """As on a disk that is full: no file of this process, or of one that it starts, grows further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("writes", ["pip", "the file taken out"])
def test_a_full_disk_is_one_line(wheels, cache, writes):
    model = np.random.default_rng(0).bytes(300_000) if writes == "pip" else bytes(300_000)
    write_wheel(wheels, model)
    with files_end_at(100_000):
        message = refusal(cache, model)
    folder = cache.downloads() / "imgsim-0.1.2-model.pth.part"
    if writes == "pip":
        assert message.endswith(
            f"pip cannot write to {folder} (File too large): free some space, or set "
            "SSL_BACKBONES_CACHE to a folder on a disk with more"
        )
    else:
        assert message.startswith(f"cannot write {folder / 'imgsim-0.1.2-model.pth'}: File too")
        assert "SSL_BACKBONES_CACHE" in message


# Interrupted


def test_ctrl_c_leaves_nothing(wheels, cache, site, monkeypatch):
    """At an index that does not answer."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", site.url)
    site.stall_after = [0] * 9
    waiting = process(b"model", stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 30
    while not site.ranges and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (cache.downloads() / "imgsim-0.1.2-model.pth.part").is_dir()
    os.killpg(waiting.pid, signal.SIGINT)
    assert waiting.communicate() == ("", "interrupted\n")
    assert waiting.returncode == 130
    assert list(cache.downloads().iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(wheels, cache):
    left = cache.downloads() / "imgsim-0.1.2-model.pth.part"
    (left / "pip-unpack-0").mkdir(parents=True)
    write_wheel(left, b"another")
    write_wheel(wheels, b"model")
    with pytest.raises(InputError, match="it came from"):  # fetched, and no checkpoint
        handler(b"model")._get_local_path("ssl://test")
    original = cache.downloads() / "imgsim-0.1.2-model.pth"
    assert list(cache.downloads().iterdir()) == [original]
    assert original.read_bytes() == b"model"


# Progress


@pytest.fixture
def mirror(wheels, monkeypatch):
    """The folder of wheels over HTTP, as pip shows a bar for such alone."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=wheels)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        yield
        server.shutdown()


def test_a_terminal_shows_pips_own_bar_and_nothing_else_does(
    wheels, cache, mirror, monkeypatch, capfd
):
    model = np.random.default_rng(0).bytes(300_000)
    write_wheel(wheels, model)
    with pytest.raises(InputError, match="it came from"):
        handler(model)._get_local_path("ssl://test")
    assert capfd.readouterr() == ("", "")

    (cache.downloads() / "imgsim-0.1.2-model.pth").unlink()
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    waiting = process(model, stderr=theirs)
    assert waiting.communicate()[0] == "" and waiting.returncode == 2
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "━━━" in shown and "B/s" in shown
    assert "error: ssl://test:" in shown
