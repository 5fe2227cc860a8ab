"""Downloads over real HTTP on loopback: whole, cut, changed, refused."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.weights.download import download

MEND = "give train.init_checkpoint=/path/to/file"


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "weights.pth.tar"


def fetch(site, target, **options):
    download(site.url, target, mend=MEND, **{"pause": 0.01, "timeout": 5, **options})


def refusal(site, target, **options) -> str:
    with pytest.raises(InputError) as raised:
        fetch(site, target, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(target) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_whole_file_arrives_quietly_and_nothing_else_stays(site, target, capsys):
    fetch(site, target)
    assert target.read_bytes() == site.body
    assert names(target) == [target.name]
    assert capsys.readouterr() == ("", "")
    assert site.ranges == [None]


@pytest.mark.parametrize("end", ["cut_after", "reset_after"])
def test_a_cut_connection_goes_on_where_it_stopped(site, target, end):
    getattr(site, end).extend([400_000, 300_000])
    fetch(site, target)
    assert target.read_bytes() == site.body
    assert site.ranges[0] is None and len(site.ranges) == 3
    if end == "cut_after":  # a reset may take bytes along that were already sent
        assert site.ranges[1:] == ["bytes=400000-", "bytes=700000-"]


def test_cuts_are_survived_as_long_as_each_try_brings_something(site, target):
    site.cut_after = [100_000] * 9
    fetch(site, target, attempts=2)
    assert target.read_bytes() == site.body
    assert len(site.ranges) == 10


def test_a_connection_that_never_gets_further_is_given_up(site, target):
    site.cut_after = [100_000, 0, 0, 0, 0]
    message = refusal(site, target, attempts=3)
    assert site.url in message and MEND in message
    assert "closed after 100,000 of 1,024,000 bytes, 3 times in a row" in message
    assert "the 100,000 bytes that arrived are kept" in message
    assert site.ranges == [None, "bytes=100000-", "bytes=100000-"]
    assert not target.exists()


def test_a_later_call_continues_an_earlier_one(site, target):
    site.cut_after = [600_000]
    refusal(site, target, attempts=1)
    fetch(site, target)
    assert site.ranges == [None, "bytes=600000-"]
    assert target.read_bytes() == site.body


def test_a_killed_process_is_continued_by_the_next(site, target):
    site.stall_after = [500_000]
    command = (
        "import sys; from ssl_backbones.weights.download import download; download(*sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", command, site.url, str(target)])
    part = target.with_name(target.name + ".part")
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    arrived = part.stat().st_size
    assert 0 < arrived <= 500_000 and not target.exists()
    fetch(site, target)
    assert site.ranges == [None, f"bytes={arrived}-"]
    assert target.read_bytes() == site.body


def test_a_part_that_was_complete_is_not_fetched_again(site, target):
    """The process may die between the last byte and the check."""
    accept = [False]

    def check(part):
        if not accept[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(site, target, check=check)
    accept[0] = True
    fetch(site, target, check=check)
    assert site.ranges == [None]
    assert target.read_bytes() == site.body


def test_a_server_without_ranges_sends_the_file_again(site, target):
    site.honours_range = False
    site.cut_after = [400_000]
    fetch(site, target)
    assert site.ranges == [None, "bytes=400000-"]
    assert target.read_bytes() == site.body


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_in_between_is_never_mixed(site, target, honours_if_range):
    site.cut_after = [400_000]
    refusal(site, target, attempts=1)
    site.body, site.etag = site.body[::-1], '"second"'
    site.honours_if_range = honours_if_range
    fetch(site, target)
    # A server that does not obey If-Range sends the rest of the new file: not taken.
    assert site.ranges == [None, "bytes=400000-", None][: 2 if honours_if_range else 3]
    assert target.read_bytes() == site.body


def test_a_file_of_another_length_under_the_same_tag_is_never_mixed(site, target):
    site.cut_after = [400_000]
    refusal(site, target, attempts=1)
    site.body = site.body[: 256 * 3000][::-1]
    fetch(site, target)
    assert site.ranges == [None, "bytes=400000-", None]
    assert target.read_bytes() == site.body


def test_a_file_that_became_shorter_than_the_part_starts_again(site, target):
    """The server answers 416: nothing lies where the part ends."""
    site.cut_after = [400_000]
    refusal(site, target, attempts=1)
    site.body = site.body[:1000]
    fetch(site, target)
    assert site.ranges == [None, "bytes=400000-", None]
    assert target.read_bytes() == site.body


def test_the_date_serves_where_there_is_no_tag(site, target):
    site.etag, site.last_modified = None, "Tue, 10 Mar 2020 19:00:00 GMT"
    site.cut_after = [400_000]
    fetch(site, target)
    assert site.ranges == [None, "bytes=400000-"]
    assert target.read_bytes() == site.body


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_proof_of_sameness_nothing_is_continued(site, target, etag):
    site.etag = etag
    site.cut_after = [400_000]
    fetch(site, target)
    assert site.ranges == [None, None]
    assert target.read_bytes() == site.body


def test_another_address_never_continues_a_part(site, target):
    site.cut_after = [400_000]
    refusal(site, target, attempts=1)
    site.url += "?mirror"
    fetch(site, target)
    assert site.ranges == [None, None]
    assert target.read_bytes() == site.body


def test_an_unreadable_record_costs_a_fresh_start_only(site, target):
    site.cut_after = [400_000]
    refusal(site, target, attempts=1)
    target.with_name(target.name + ".part.json").write_text('{"url": 3')
    fetch(site, target)
    assert site.ranges == [None, None]
    assert target.read_bytes() == site.body


def test_a_body_without_a_length_is_taken_as_it_ends(site, target):
    site.sends_length = False
    fetch(site, target)
    assert target.read_bytes() == site.body


def test_a_length_that_is_never_reached_is_refused(site, target):
    site.extra_length = 10
    site.honours_range = False
    message = refusal(site, target, attempts=2)
    assert "connection closed after 1,024,000 of 1,024,010 bytes" in message
    assert len(site.ranges) == 2
    assert not target.exists()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusing_server_is_asked_once(site, target, status):
    site.statuses = [status]
    message = refusal(site, target)
    assert f"HTTP {status}" in message and site.url in message and MEND in message
    assert len(site.ranges) == 1
    assert names(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(site, target, status):
    site.statuses = [status, status]
    fetch(site, target)
    assert target.read_bytes() == site.body
    assert len(site.ranges) == 3


def test_a_web_page_with_status_200_is_refused(site, target):
    site.body, site.content_type = b"<html>please sign in</html>", "text/html; charset=utf-8"
    message = refusal(site, target)
    assert "web page (text/html)" in message and site.url in message and MEND in message
    assert names(target) == []


def test_a_silent_server_counts_as_cut(site, target, caplog):
    site.stall_after = [300_000]
    with caplog.at_level("WARNING"):
        fetch(site, target, timeout=0.3)
    assert "cut after 300,000 bytes (timed out); trying again" in caplog.text
    assert site.ranges == [None, "bytes=300000-"]
    assert target.read_bytes() == site.body


def test_no_network_is_one_line(site, target):
    with socket.socket() as unused:  # bound and not listening: nobody else can take the port
        unused.bind(("127.0.0.1", 0))
        site.url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.pth.tar"
        message = refusal(site, target, attempts=2)
    assert "Connection refused, 2 times in a row" in message and MEND in message
    assert "kept" not in message
    assert names(target) == []


def test_a_failed_check_leaves_nothing(site, target):
    def check(part):
        assert part.read_bytes() == site.body and not target.exists()
        raise InputError("not what was promised")

    assert refusal(site, target, check=check) == "not what was promised"
    assert names(target) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_one_line(site, target):
    part = target.with_name(target.name + ".part")
    part.symlink_to("/dev/full")
    message = refusal(site, target)
    assert message.startswith(f"cannot write {part}: No space left on device")
    assert "SSL_BACKBONES_CACHE" in message
    assert not target.exists() and len(site.ranges) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_an_untrusted_certificate_is_refused_at_once(tmp_path, target, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
    command += "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.handle_error = lambda *args: None  # the client's hanging up is what is tested
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with pytest.raises(InputError, match=r"certificate is not trusted here \(self.signed"):
            download(f"https://127.0.0.1:{server.server_port}/weights", target, pause=0)
        server.shutdown()


def test_a_terminal_shows_a_bar(site, target):
    ours, theirs = pty.openpty()
    command = (
        "import sys; from ssl_backbones.weights.download import download; download(*sys.argv[1:])"
    )
    subprocess.run(
        [sys.executable, "-c", command, site.url, str(target)],
        stderr=theirs,
        check=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert target.name in shown and "1.0/1.0 MB" in shown
