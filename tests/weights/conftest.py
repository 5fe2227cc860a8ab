"""A small web server on loopback that can misbehave the ways that servers and lines do."""

from __future__ import annotations

import hashlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ssl_backbones.weights.cache import Cache


@dataclass
class Site:
    """One file, how it is served, and what was asked of the server.

    The lists hold one entry per coming request; when they run out the server behaves.
    """

    body: bytes = b""
    etag: str | None = '"first"'
    last_modified: str | None = None
    content_type: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)  # bytes of the body, then a clean end
    reset_after: list[int] = field(default_factory=list)  # the same, then a TCP reset
    stall_after: list[int] = field(default_factory=list)  # the same, then silence
    honours_range: bool = True
    honours_if_range: bool = True
    sends_length: bool = True
    extra_length: int = 0
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)  # the Range header of each request
    let_go: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        site.ranges.append(self.headers["Range"])
        status = site.statuses.pop(0) if site.statuses else None
        if status is not None:
            self._answer(status, b"<html>sorry</html>", {"Content-Type": "text/html"})
            return
        start = self._start()
        if start is None:
            self._answer(200, site.body, self._headers())
        elif start >= len(site.body):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(site.body)}"})
        else:
            span = f"bytes {start}-{len(site.body) - 1}/{len(site.body)}"
            self._answer(206, site.body[start:], {**self._headers(), "Content-Range": span})

    def _start(self) -> int | None:
        """The first byte to send, or None for the whole file."""
        site, asked, condition = self.site, self.headers["Range"], self.headers["If-Range"]
        if asked is None or not site.honours_range:
            return None
        if site.honours_if_range and condition not in (None, site.etag, site.last_modified):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _headers(self) -> dict[str, str]:
        site = self.site
        named = {"ETag": site.etag, "Last-Modified": site.last_modified}
        headers = {name: value for name, value in named.items() if value is not None}
        return {**headers, "Content-Type": site.content_type}

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        site = self.site
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if site.sends_length:
            self.send_header("Content-Length", str(len(body) + site.extra_length))
        self.end_headers()
        for limits, end in (
            (site.cut_after, lambda: None),
            (site.reset_after, self._reset),
            (site.stall_after, lambda: site.let_go.wait(30)),
        ):
            if limits:
                self.wfile.write(body[: limits.pop(0)])
                self.wfile.flush()
                end()
                return
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        if self.connection.fileno() != -1:
            super().finish()

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def _served(body: bytes) -> Iterator[Site]:
    site = Site(body)
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}/weights.pth.tar"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("no_proxy", "127.0.0.1")
        yield site
    site.let_go.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A served file; `site.url` is its address."""
    with _served(bytes(range(256)) * 4000) as site:
        yield site


@pytest.fixture(scope="session")
def moco_file(tmp_path_factory) -> Path:
    """A ResNet-50 in MoCo's published layout, with statistics that a wrong conversion would show.

    The momentum encoder is left out and the queue is short: they only make the file larger.
    """
    import torch
    import torchvision

    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in torchvision.models.resnet50(weights=None).state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor = 0.1 * torch.randn(tensor.shape, generator=generator)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor = 0.5 + torch.rand(tensor.shape, generator=generator)
        if not name.startswith("fc."):
            state[f"module.encoder_q.{name}"] = tensor
    state["module.encoder_q.fc.0.weight"] = torch.zeros(8, 2048)
    state["module.queue"] = torch.zeros(128, 16)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    path = tmp_path_factory.mktemp("moco") / "weights.pth.tar"
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@dataclass
class Filled:
    """A cache after two processes asked it at once for `ssl://test`, the MoCo file."""

    cache: Cache
    printed: list[str]  # the path that each got
    requests: int
    sha256: str  # of the MoCo file


@pytest.fixture(scope="session")
def filled(moco_file, tmp_path_factory) -> Filled:
    folder = tmp_path_factory.mktemp("filled")
    command = (
        "import sys\n"
        "from ssl_backbones.weights.cache import Cache\n"
        "from ssl_backbones.weights.resolution import NamedWeights, PublishedHash\n"
        "from ssl_backbones.weights.resolution import SSLWeightsHandler\n"
        "url, md5, folder = sys.argv[1:]\n"
        "row = NamedWeights('test', url, 'moco', '', PublishedHash('md5', md5, ''))\n"
        "handler = SSLWeightsHandler({'test': row}, Cache(folder))\n"
        "print(handler._get_local_path('ssl://test'))"
    )
    body = moco_file.read_bytes()
    with _served(body) as site:
        words = [sys.executable, "-c", command, site.url, hashlib.md5(body).hexdigest()[:8], folder]
        processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        printed = [process.communicate()[0].strip() for process in processes]
    return Filled(Cache(folder), printed, len(site.ranges), hashlib.sha256(body).hexdigest())


@pytest.fixture
def filled_cache(filled, tmp_path, monkeypatch) -> Cache:
    """A copy of that cache, to do harm to, named by the environment."""
    shutil.copytree(filled.cache.folder, tmp_path / "cache")
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    return Cache.from_environment()
