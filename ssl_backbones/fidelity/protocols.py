"""The protocols: each a folder with a protocol.yaml, beside the fidelity.yaml of its configs.

The folder of the packaged recipes is one, and so is each of projects/ that has such a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .. import configs_folder
from ..errors import InputError
from .rows import read_yaml

PROCESSES = 8
"""GPUs of the published runs, of two images each: losses are normalised by process."""


@dataclass(frozen=True)
class Published:
    """Numbers that somebody else published under a protocol, in percent.

    Attributes:
        differs: in what their protocol is not, or is not known to be, the same; "" where it is.
    """

    pretraining: str
    metrics: Mapping[str, float]
    source: str
    differs: str = ""


@dataclass(frozen=True)
class Protocol:
    """A way of judging a backbone.

    Attributes:
        config: path below the checkout; in a protocol.yaml, below its folder.
        metrics: those that are reported; () for the AP of every task that the run evaluates.
        iterations: of a run; None where only the config knows.
        seconds: of an iteration, on 8 V100 GPUs, of the same detector with frozen batch norm; None where
            nobody published them.
        timing: whose measurement `seconds` is.
        published: in a protocol.yaml, entries of `source`, `differs` where it does, and `numbers`: by
            pretraining, a number for each of the metrics, null where nobody published one.
        folds: names of the datasets that its runs train on; () for one run on the config's.
        preparation: words of a Python command that makes what the runs need.
    """

    name: str
    title: str
    config: str
    metrics: tuple[str, ...] = ()
    iterations: int | None = None
    seconds: float | None = None
    timing: str = ""
    published: tuple[Published, ...] = ()
    folds: tuple[str, ...] = ()
    preparation: tuple[str, ...] = ()

    def config_path(self) -> Path:
        """Where the config is.

        Raises:
            InputError: it is not here.
        """
        path = root() / self.config
        if not path.is_file():
            raise InputError(
                f"protocol {self.name} needs {self.config}, which only a checkout of this project has: "
                "run tools/evaluate_backbone.py there"
            )
        return path


_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("title", "config", "timing"), str),
    **dict.fromkeys(("metrics", "folds", "preparation", "published"), list),
    **{"iterations": int, "seconds": float},
}
_REQUIRED = ("title", "config", "metrics", "iterations")


def root() -> Path:
    """What holds configs, tools and projects: the checkout, or the installed package with no more of the
    projects than their protocols."""
    return configs_folder().parent


@cache
def protocols() -> Mapping[str, Protocol]:
    """All of them by name, folder by folder.

    Raises:
        InputError: a protocol.yaml is not what it should be, or two have a protocol of one name.
    """
    found: dict[str, Protocol] = {}
    for path in (
        root() / "configs/protocol.yaml",
        *sorted(root().glob("projects/*/protocol.yaml")),
    ):
        for protocol in read_protocols(path):
            if protocol.name in found:
                raise InputError(f"{path}: another folder has a protocol {protocol.name}")
            found[protocol.name] = protocol
    return MappingProxyType(found)


def read_protocols(path: Path) -> Iterator[Protocol]:
    """Read a protocol.yaml.

    Raises:
        InputError: it is missing or no YAML, or a protocol lacks something, has too much or a wrong type.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no protocols: it is their names, with the fields of each")
    for name, given in content.items():
        yield _protocol(str(name), given, path)


def _protocol(name: str, given: Any, path: Path) -> Protocol:
    where = f"{path}: {name}"
    if not isinstance(given, dict) or set(given) - set(_TYPES):
        raise InputError(f"{where} may have {', '.join(sorted(_TYPES))} and nothing else")
    for missing in [field for field in _REQUIRED if field not in given]:
        raise InputError(f"{where} has no `{missing}`")
    for field, value in given.items():
        if type(value) is not _TYPES[field]:
            raise InputError(f"{where}: `{field}` is {value!r}: give a {_TYPES[field].__name__}")
    lists = {
        field: tuple(given[field])
        for field in ("metrics", "folds", "preparation")
        if field in given
    }
    for field, words in lists.items():
        if not words or not all(isinstance(word, str) for word in words):
            raise InputError(f"{where}: `{field}` is {given[field]!r}: give words")
    published = (_published(one, lists["metrics"], where) for one in given.get("published", ()))
    config = Path(os.path.relpath(path.parent / given["config"], root()))
    own = {"config": config.as_posix(), "published": tuple(one for of in published for one in of)}
    return Protocol(name, **{**given, **lists, **own})


def _published(given: Any, metrics: tuple[str, ...], where: str) -> Iterator[Published]:
    """Of one source."""
    if not isinstance(given, dict) or not {"source", "numbers"} <= set(given) <= {
        *("source", "numbers", "differs"),
    }:
        raise InputError(f"{where}: published has `source`, `numbers` and perhaps `differs`")
    for pretraining, numbers in given["numbers"].items():
        if (
            not isinstance(numbers, list)
            or len(numbers) != len(metrics)
            or not all(isinstance(number, float | None) for number in numbers)
        ):
            raise InputError(
                f"{where}: published {pretraining}: give a number with a decimal, or null, for each of "
                f"{', '.join(metrics)}"
            )
        found = zip(metrics, numbers, strict=True)
        values = {metric: number for metric, number in found if number is not None}
        yield Published(pretraining, values, given["source"], given.get("differs", ""))
