"""What the tests of families ask alike."""

from dataclasses import replace
from pathlib import Path

import pytest

from ssl_backbones.conversion.extraction import extract
from ssl_backbones.conversion.identification import identify
from ssl_backbones.conversion.layouts import Layout
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.errors import InputError


@pytest.fixture
def assert_noticed(monkeypatch):
    """A row with a wrong signature, these renames or another prefix takes nothing out of its file."""

    def check(row: Layout, path: Path, renames: tuple | None) -> None:
        content = read_checkpoint(path).content
        spoilt = [{"signature": ("nobody.has.this",)}]
        if renames is not None:
            spoilt.append({"renames": renames})
        if row.prefix:
            spoilt.append({"prefix": "elsewhere."})
        for change in spoilt:
            broken = replace(row, **change)
            monkeypatch.setattr("ssl_backbones.conversion.identification.LAYOUTS", (broken,))
            with pytest.raises(InputError):
                extract(identify(content))

    return check
