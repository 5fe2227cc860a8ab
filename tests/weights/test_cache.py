"""The cache folder: where it is, who may be in it at once, what it remembers."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ssl_backbones import __version__
from ssl_backbones.conversion import CONVERSION
from ssl_backbones.errors import InputError
from ssl_backbones.weights.cache import Cache, KnownFile

URL = "https://example.org/weights.pth.tar"


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def python(command: str, *arguments: object) -> subprocess.Popen:
    words = [sys.executable, "-c", command, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    for use in (cache.downloads, lambda: cache.record("a", URL, "0" * 64)):
        with pytest.raises(InputError, match=r"cannot write to the cache folder .*file \(Not a"):
            use()


def test_asking_writes_nothing(cache):
    assert cache.known("a") is None and cache.converted("0" * 64) is None
    assert not cache.folder.exists()


def test_the_first_record_stays(cache):
    before = datetime.now(timezone.utc).replace(microsecond=0)
    cache.record("a", URL, "1" * 64)
    cache.record("a", URL, "2" * 64)
    cache.record("b", URL, "3" * 64)
    known = cache.known("a")
    assert known == KnownFile(URL, "1" * 64, known.recorded)
    assert before <= datetime.fromisoformat(known.recorded) <= datetime.now(timezone.utc)
    assert cache.known("b").sha256 == "3" * 64


@pytest.mark.parametrize("text", ['{"a": ', "[]", '{"a": {"sha": "1"}}', '{"a": "1"}'])
def test_unreadable_records_are_refused_rather_than_forgotten(cache, text):
    cache.folder.mkdir()
    cache.known_hashes.write_text(text)
    with pytest.raises(InputError, match=r"cannot read the recorded hashes in .*known_hashes"):
        cache.known("a")


def test_processes_that_record_at_once_lose_nothing(cache):
    command = (
        "import sys; from ssl_backbones.weights.cache import Cache\n"
        "for i in range(10): Cache(sys.argv[1]).record(f'{sys.argv[2]}-{i}', 'u', '0')"
    )
    processes = [python(command, cache.folder, name) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(json.loads(cache.known_hashes.read_text())) == 30


def test_a_converted_copy_is_named_by_its_source_and_recorded(filled, moco_file):
    copy = filled.cache.converted(filled.sha256)
    name = f"{filled.sha256[:16]}-{__version__}-{CONVERSION}.pkl"
    assert copy == filled.cache.folder / "converted" / name
    provenance = pickle.loads(copy.read_bytes())["provenance"]  # our own file
    assert provenance["source_sha256"] == filled.sha256
    assert provenance["source"] == moco_file.name
    assert provenance["proof"] is not None
    hashed = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert copy.with_name(f"{name}.sha256").read_text() == f"{hashed}  {name}\n"


def test_a_second_call_reads_only(filled):
    """It needs no lock: here this process holds it, as nobody could on a read-only share."""
    copy = filled.cache.converted(filled.sha256)
    made = copy.stat()
    with filled.cache.lock(copy.name):
        assert filled.cache.keep_converted(filled.sha256, lambda copy: pytest.fail()) == copy
    assert copy.stat().st_ino == made.st_ino


def flip_a_bit(copy: Path) -> None:
    with open(copy, "rb+") as file:
        file.seek(50_000_000)  # inside the weights: the pickle itself still reads
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def cut_off(copy: Path) -> None:
    with open(copy, "rb+") as file:
        file.truncate(50_000_000)


def lose_the_hash(copy: Path) -> None:
    copy.with_name(copy.name + ".sha256").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off, lose_the_hash, Path.unlink])
def test_a_damaged_copy_counts_as_absent(filled, filled_cache, damage):
    damage(filled_cache.converted(filled.sha256))
    assert filled_cache.converted(filled.sha256) is None
