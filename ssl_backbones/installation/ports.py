"""The textual changes that let Detectron2 run without a compiler on current NumPy and Pillow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, InstallationError


@dataclass(frozen=True)
class Port:
    """One textual change: `pattern` becomes `replacement` wherever it stands in a Python file.

    `pinned` says how often it stands in each file of the pinned v0.6, so that a file which differs
    from what was tested is noticed; elsewhere the text may be gone already.
    """

    name: str
    pattern: re.Pattern[str]
    replacement: str
    pinned: Mapping[str, int]


PORTS = (
    Port(
        # NumPy 1.24 removed its aliases of Python's own types.
        "NumPy's aliases of built-in types",
        re.compile(r"\bnp\.(bool|int|float|object|str)\b"),
        r"\1",
        {
            "detectron2/data/build.py": 2,
            "detectron2/data/datasets/pascal_voc.py": 1,
            "detectron2/evaluation/pascal_voc_evaluation.py": 2,
            "detectron2/evaluation/sem_seg_evaluation.py": 7,
            "detectron2/structures/masks.py": 3,
            "detectron2/utils/video_visualizer.py": 1,
            "detectron2/utils/visualizer.py": 3,
        },
    ),
    Port(
        # Pillow 10 removed the old name of the same filter.
        "Pillow's Image.LINEAR",
        re.compile(r"\bImage\.LINEAR\b"),
        "Image.BILINEAR",
        {"detectron2/data/transforms/transform.py": 1},
    ),
    Port(
        # setuptools 81 removed pkg_resources, which the model zoo uses to find its configs.
        "import of pkg_resources",
        re.compile(r"^import pkg_resources$", re.MULTILINE),
        "from importlib import resources",
        {"detectron2/model_zoo/model_zoo.py": 1},
    ),
    Port(
        "use of pkg_resources",
        re.compile(
            r'pkg_resources\.resource_filename\(\s*("[\w.]+"),'
            r'\s*os\.path\.join\("configs", config_path\)\s*\)'
        ),
        r'str(resources.files(\1).joinpath("configs", config_path))',
        {"detectron2/model_zoo/model_zoo.py": 1},
    ),
)

_NOTICE = "\n# Changed by ssl-backbones for current NumPy, Pillow and setuptools.\n"
_UNGUARDED_EXTENSION = re.compile(r"^from detectron2 import _C$", re.MULTILINE)


def port(files: Mapping[str, bytes], *, pinned: bool) -> tuple[dict[str, bytes], dict[str, int]]:
    """Port Detectron2's files (path in the wheel -> content) and count the changes made to each.

    The stand-in for the compiled extension is added where Detectron2 imports it without a guard
    (v0.6); where the import is guarded (main), its absence is what makes Detectron2 fall back.

    Args:
        pinned: the files are those of the pinned v0.6: every text must stand where it is expected.

    Raises:
        InstallationError: a text of the pinned v0.6 was not found, or found elsewhere.
        InputError: pkg_resources is used in a way that has no port.
    """
    ported = dict(files)
    found: dict[tuple[str, str], int] = {}
    for path in sorted(path for path in files if path.endswith(".py")):
        ported[path], changes = _port_file(path, files[path])
        found.update({(name, path): count for name, count in changes.items()})
    if pinned:
        _require_as_pinned(found)
    if _needs_stand_in(files):
        ported["detectron2/_C.py"] = Path(__file__).with_name("stand_in.py").read_bytes()
    changed: dict[str, int] = {}
    for (_, path), count in found.items():
        changed[path] = changed.get(path, 0) + count
    return ported, changed


def _port_file(path: str, content: bytes) -> tuple[bytes, dict[str, int]]:
    """The ported content, and how often each port that had something to do was applied."""
    text = content.decode("utf-8")
    changes = {}
    for p in PORTS:
        text, count = p.pattern.subn(p.replacement, text)
        if count:
            changes[p.name] = count
    if "pkg_resources" in text:
        raise InputError(
            f"{path} of this Detectron2 uses pkg_resources in a way that is not known here, and "
            "setuptools 81 removed it: give another commit to --from"
        )
    # The licence (Apache-2.0, 4b) asks that changed files say so.
    return ((text + _NOTICE).encode("utf-8") if changes else content), changes


def _require_as_pinned(found: Mapping[tuple[str, str], int]) -> None:
    expected = {(p.name, path): count for p in PORTS for path, count in p.pinned.items()}
    for name, path in sorted(expected.keys() | found.keys()):
        count, right = found.get((name, path), 0), expected.get((name, path), 0)
        if count != right:
            raise InstallationError(
                f"{path} holds {name} {count} times where Detectron2 v0.6 has {right}: "
                "this is not the source that the ports were written for"
            )


def _needs_stand_in(files: Mapping[str, bytes]) -> bool:
    return any(
        _UNGUARDED_EXTENSION.search(content.decode("utf-8"))
        for path, content in files.items()
        if path.startswith("detectron2/layers/") and path.endswith(".py")
    )
