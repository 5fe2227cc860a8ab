"""The pinned source and the wheel made of it, fetched and built once."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from ssl_backbones.installation.sources import download_pinned

INSTALLER = "tools/install_detectron2.py"


@pytest.fixture(scope="session")
def sdist(tmp_path_factory) -> Path:
    """The pinned source archive, from the index that pip is set up for."""
    return download_pinned(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def install(run_tool):
    """Run the installer; an index at `mirror`, a folder, takes the place of all that pip knows."""

    def run(*words: str, mirror: Path | None = None, **variables) -> subprocess.CompletedProcess:
        environment = {**os.environ, **variables}
        if mirror is not None:
            environment.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(mirror))
            environment.update(PIP_CONFIG_FILE=os.devnull)
        return run_tool(INSTALLER, *words, env=environment)

    return run


@pytest.fixture(scope="session")
def wheel(sdist, install, tmp_path_factory) -> Path:
    """The wheel that the installer builds of the pinned source, served from a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    result = install("--wheel-dir", str(folder), mirror=sdist.parent)
    assert result.returncode == 0, result.stderr
    return folder / "detectron2-0.6+pure-py3-none-any.whl"


@pytest.fixture(scope="session")
def unpacked_wheel(wheel, tmp_path_factory) -> Path:
    """A folder to put on Python's path."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
