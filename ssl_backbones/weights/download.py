"""Fetch one file over HTTP: resumed when cut, checked before it gets its name."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import write_atomically

logger = logging.getLogger(__name__)

_CHUNK = 1 << 18
# The server or the way to it has a bad moment; every other 4xx or 5xx is an answer.
_WORTH_ANOTHER_TRY = {408, 429, 500, 502, 503, 504}

Advance = Callable[[int, "int | None"], None]


class _Cut(Exception):
    """The transfer broke off for a reason that may pass: what has arrived stays."""


def download(
    url: str,
    target: str | os.PathLike,
    *,
    check: Callable[[Path], None] | None = None,
    mend: str = "try again later",
    attempts: int = 4,
    pause: float = 1.0,
    timeout: float = 20.0,
) -> None:
    """Download `url` to `target`, going on where an earlier try stopped.

    The bytes gather in `target` + ".part"; they get the name `target` only when the length the
    server promised is reached and `check` has accepted them. A part is continued, also by a later
    process, only if the server still holds the same file (strong ETag or Last-Modified, sent as
    If-Range and compared again in the answer); otherwise it is fetched from its first byte. The
    caller holds a lock on `target`.

    Python's own urllib does the talking: it honours the proxy variables and the system's
    certificates. Detectron2 brings no HTTP client that resumes (iopath's starts from zero), so
    anything else would be a further dependency, and the rules of resuming would still be ours.

    Args:
        check: called with the complete part; its InputError removes the part and is passed on.
        mend: what the user can do instead; ends every message about the network.
        attempts: tries in a row before giving up; one that brings new bytes is the first again.
        pause: seconds before the second try, doubled with each further one.
        timeout: seconds of silence after which a connection counts as cut.

    Raises:
        InputError: no such file, a web page in its place, no network, a connection that keeps
            breaking, a `check` that fails, or a disk that is full or not writable.
    """
    part = _Part(Path(target))
    logger.info("downloading %s", url)
    with _progress_bar(Path(target).name) as advance:
        _Transfer(url, part, mend, timeout, advance).run(attempts, pause)
    if check is not None:
        try:
            check(part.path)
        except InputError:
            part.discard()
            raise
    part.finish()
    logger.info("downloaded %s", target)


@dataclass(frozen=True)
class _Transfer:
    """The way of one file from `url` into `part`."""

    url: str
    part: _Part
    mend: str
    timeout: float
    advance: Advance

    def run(self, attempts: int, pause: float) -> None:
        """Try until the part is complete; bounded, since only new bytes begin the count anew."""
        most, failures = self.part.size(), 0
        while True:
            try:
                return self._try()
            except _Cut as cut:
                failures = 1 if self.part.size() > most else failures + 1
                most = max(most, self.part.size())
                if failures >= attempts:
                    raise self._refusal(f"{cut}, {failures} times in a row{self._kept()}") from cut
                wait = pause * 2 ** (failures - 1)
                logger.warning("%s: %s; trying again in %g s", self.url, cut, wait)
                time.sleep(wait)

    def _try(self) -> None:
        """One request: for the rest of the part if it can be continued, else for the whole file."""
        known = self.part.origin(self.url)
        start = self.part.size() if known else 0
        if known and start == known.size:
            return  # complete, but its process ended before the check
        request = urllib.request.Request(
            self.url, headers={"User-Agent": f"ssl-backbones/{__version__}"}
        )
        if start:
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", known.validator)
        with self._answer(request) as response:
            self._refuse_web_page(response)
            if response.status == 206:
                if not start or not known.goes_on_in(response, start):
                    self.part.discard()
                    raise _Cut("the server now holds another file")
            else:
                known, start = _Origin.of(self.url, response), 0
                self.part.begin(known)
            self.part.append(self._chunks(response, start, known.size))
        self._require_size(known.size)

    def _answer(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request; sort what goes wrong into what may pass (_Cut) and what will not."""
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"the server answers HTTP {error.code} {error.reason}"
            if error.code == 416:
                self.part.discard()
                raise _Cut("the server cannot continue the file") from error
            if error.code in _WORTH_ANOTHER_TRY:
                raise _Cut(answer) from error
            raise self._refusal(answer) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                answer = f"its certificate is not trusted here ({reason.verify_message})"
                raise self._refusal(answer) from error
            raise _Cut(_said(reason)) from error

    def _refuse_web_page(self, response: http.client.HTTPResponse) -> None:
        """Refuse a sign-in, quota or error page that comes with status 200."""
        kind = response.headers.get_content_type()
        if kind in ("text/html", "application/xhtml+xml"):
            raise self._refusal(f"the server sends a web page ({kind}), not a checkpoint")

    def _chunks(
        self, response: http.client.HTTPResponse, done: int, total: int | None
    ) -> Iterator[bytes]:
        """The body in pieces; the network's errors become _Cut: an OSError is then the disk's."""
        self.advance(done, total)
        while True:
            try:
                # read1 hands over what there is: bytes that came before a cut are not lost.
                chunk = response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(f"connection cut after {done:,} bytes ({_said(error)})") from error
            if not chunk:
                return
            yield chunk
            done += len(chunk)
            self.advance(done, total)

    def _require_size(self, expected: int | None) -> None:
        """Compare with the promised length: http.client ends a short body without an error."""
        size = self.part.size()
        if expected is None or size == expected:
            return
        if size > expected:
            self.part.discard()
        raise _Cut(f"connection closed after {size:,} of {expected:,} bytes")

    def _kept(self) -> str:
        if not (self.part.size() and self.part.origin(self.url)):
            return ""
        return f"; the {self.part.size():,} bytes that arrived are kept for the next call"

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"cannot download {self.url}: {reason}; {self.mend}")


def _said(error: object) -> str:
    """The error in words, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True)
class _Origin:
    """What tells whether a part and a later answer are of the same file.

    `validator` is the strong ETag, else Last-Modified (RFC 9110, section 13.1.5: a weak ETag proves
    nothing of bytes); a file without either is never continued.
    """

    url: str
    validator: str | None
    size: int | None

    @classmethod
    def of(cls, url: str, response: http.client.HTTPResponse) -> _Origin:
        return cls(url, _validator(response), response.length)

    def goes_on_in(self, response: http.client.HTTPResponse, start: int) -> bool:
        """Whether a 206 is the same file from byte `start` on: not every server obeys If-Range."""
        span = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        if span is None or int(span[1]) != start or _validator(response) != self.validator:
            return False
        return span[2] == "*" or self.size is None or int(span[2]) == self.size


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


class _Part:
    """The bytes of `target` that have arrived (".part") and whose they are (".part.json")."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._record = target.with_name(target.name + ".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self, url: str) -> _Origin | None:
        """The origin of the bytes here, or None if they cannot be continued from `url`."""
        try:
            origin = _Origin(**json.loads(self._record.read_text()))
        except (OSError, ValueError, TypeError):
            return None  # an unreadable record costs a fresh start, nothing more
        return origin if origin.url == url and origin.validator and self.path.exists() else None

    def begin(self, origin: _Origin) -> None:
        """Start from nothing: emptied first, so that no crash pairs old bytes with a new record."""
        with disk_errors(self.path):
            self.path.write_bytes(b"")
        write_atomically(self._record, lambda file: file.write(json.dumps(asdict(origin)).encode()))

    def append(self, chunks: Iterator[bytes]) -> None:
        with disk_errors(self.path), open(self.path, "ab") as file:
            for chunk in chunks:
                file.write(chunk)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its name, its bytes on the disk first."""
        with disk_errors(self.path):
            with open(self.path, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.path, self.target)
        self._record.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; free some space, or set "
            "SSL_BACKBONES_CACHE to a folder on a disk with more"
        ) from error


@contextmanager
def _progress_bar(name: str) -> Iterator[Advance]:
    """A bar on standard error, and nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
