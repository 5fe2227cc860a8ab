"""The wheel is one that pip takes, says what it is, and is the same each time."""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from ssl_backbones.errors import InputError
from ssl_backbones.installation.wheel import write_wheel

FILES = {"detectron2/__init__.py": b'__version__ = "0.6"\n', "detectron2/a.py": b"x = 1\n"}


def write(folder):
    return write_wheel(folder, "0.6+pure", FILES, license=b"a licence")


def test_name(wheel):
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("detectron2", "0.6+pure")
    assert [str(tag) for tag in tags] == ["py3-none-any"]


def test_pip_installs_it(wheel, tmp_path):
    options = ["--no-deps", "--no-index", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, str(wheel)], check=True)
    (installed,) = Distribution.discover(path=[str(tmp_path)])
    assert (installed.name, installed.version) == ("detectron2", "0.6+pure")
    assert (tmp_path / "detectron2/model_zoo/configs/Base-RCNN-FPN.yaml").is_file()


def test_requirements_are_met_by_what_is_installed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("detectron2-0.6+pure.dist-info/METADATA").decode()
    lines = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    requirements = [Requirement(line.partition(": ")[2]) for line in lines]
    assert {"torch", "torchvision", "fvcore", "pycocotools"} <= {r.name for r in requirements}
    for requirement in requirements:
        assert requirement.specifier.contains(Distribution.from_name(requirement.name).version)


def test_record_has_every_file_with_its_sha256_and_size(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("detectron2-0.6+pure.dist-info/RECORD").decode()
        record = {path: (digest, size) for path, digest, size in csv.reader(io.StringIO(text))}
        assert record.keys() == set(archive.namelist())
        assert record.pop("detectron2-0.6+pure.dist-info/RECORD") == ("", "")
        for path, (digest, size) in record.items():
            content = archive.read(path)
            expected = base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "=")
            assert (hashlib.sha256(content).digest(), len(content)) == (expected, int(size))


def test_same_files_give_the_same_bytes(tmp_path):
    first = write(tmp_path).read_bytes()
    assert write(tmp_path).read_bytes() == first


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "missing")
