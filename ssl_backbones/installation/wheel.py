"""A pure-Python wheel written by hand: no setup.py is run, no build tool, no network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..files import write_atomically

# As upstream's setup.py states them, less what nothing imports at run time (black, future, pydot)
# and with iopath's bound lifted to what is tested; and torch and torchvision, which upstream leaves
# to the user.
_REQUIREMENTS = (
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.2",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "Pillow>=9.1",
    "pycocotools>=2.0.2",
    "PyYAML",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch",
    "torchvision",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)
_METADATA = """\
Metadata-Version: 2.1
Name: detectron2
Version: {version}
Summary: Detectron2 without its compiled extension, for any platform
Home-page: https://github.com/facebookresearch/detectron2
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.9
{requirements}

Built by ssl-backbones as pure Python and ported to current NumPy, Pillow and setuptools. A version
that goes on after "pure" names the commit, or what the content of a folder hashes to.
Mask R-CNN and its like need no more: ROIAlign and NMS come from torchvision. Rotated boxes,
deformable convolution on a GPU and the fast COCOeval are absent.
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: ssl-backbones
Root-Is-Purelib: true
Tag: py3-none-any
"""
# Zip files know no earlier time; a fixed one makes the same source give the same wheel.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path, version: str, files: Mapping[str, bytes], *, license: bytes) -> Path:
    """Write `files` (path in site-packages -> content) as a wheel of detectron2 into `folder`.

    Raises:
        InputError: the folder cannot be written to.
    """
    info = f"detectron2-{version}.dist-info"
    requirements = "\n".join(f"Requires-Dist: {requirement}" for requirement in _REQUIREMENTS)
    metadata = _METADATA.format(version=version, requirements=requirements)
    members = {path: files[path] for path in sorted(files)}
    members[f"{info}/LICENSE"] = license
    members[f"{info}/METADATA"] = metadata.encode("utf-8")
    members[f"{info}/WHEEL"] = _WHEEL.encode("utf-8")
    record = [_record_line(path, content) for path, content in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode("utf-8")

    path = folder / f"detectron2-{version}-py3-none-any.whl"
    write_atomically(path, lambda file: _write_zip(file, members))
    return path


def _record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"


def _write_zip(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in members.items():
            member = zipfile.ZipInfo(path, _TIMESTAMP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, content)
