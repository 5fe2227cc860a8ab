"""Libraries that are used where they are there, and whose want is said once."""

import json
import logging

import pytest

from ssl_backbones.fast import acceleration
from ssl_backbones.fast.acceleration import WITHOUT, numba_or_none, optional


@pytest.fixture(autouse=True)
def forgotten():
    """As in a new process, before and after."""
    optional.cache_clear()
    yield
    optional.cache_clear()


def messages(caplog) -> list[str]:
    # pytest attaches its handler to several loggers: a record may be there twice.
    return list({id(r): r.getMessage() for r in caplog.records}.values())


def test_a_library_that_is_there_is_used_without_a_word(caplog):
    assert optional("json", "Reading annotations") is json
    assert messages(caplog) == []


def test_the_want_of_one_is_said_once(caplog):
    caplog.set_level(logging.WARNING, "ssl_backbones")
    for _ in range(3):
        assert optional("no_such_library", "Reading JPEG files") is None
    (message,) = messages(caplog)
    assert message == (
        "Reading JPEG files takes a slower way with the same result, for want of no_such_library (No module "
        "named 'no_such_library'); pip install 'ssl-backbones[fast]' has it"
    )


def test_one_can_be_switched_off(caplog, monkeypatch):
    monkeypatch.setenv(WITHOUT, "simplejpeg,numba")
    assert numba_or_none("Resizing images") is None
    assert optional("json", "Reading annotations") is json
    (message,) = messages(caplog)
    assert f"{WITHOUT} names it" in message


@pytest.fixture
def nowhere_to_cache(monkeypatch):
    """Numba, as it is where it may write neither beside the source nor in the user's folder."""
    import numba

    def refuse(**options):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(numba, "njit", refuse)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    acceleration._give_cache.cache_clear()
    yield numba
    acceleration._give_cache.cache_clear()


def test_numba_gets_a_folder_where_it_has_none(nowhere_to_cache, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    assert numba_or_none("Resizing images") is nowhere_to_cache
    assert str(tmp_path / "cache" / "numba") == nowhere_to_cache.config.CACHE_DIR
    assert messages(caplog) == []


def test_and_a_temporary_one_if_need_be(nowhere_to_cache, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "file" / "cache"))
    assert numba_or_none("Resizing images") is nowhere_to_cache
    assert "ssl_backbones_numba_" in nowhere_to_cache.config.CACHE_DIR
    (message,) = messages(caplog)
    assert "this process compiles anew; set NUMBA_CACHE_DIR to one" in message
