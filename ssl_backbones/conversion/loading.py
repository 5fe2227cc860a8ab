"""The backbone of a checkpoint file, whoever wrote it: a pretraining, Detectron2, or this converter."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import InputError
from .extraction import Backbone, extract
from .layouts import Identified, identify
from .reading import Checkpoint, read_checkpoint
from .registry import Layout
from .resnet import detectron2_name, torchvision_name
from .unpickling import shown

DETECTRON2 = Layout(
    name="detectron2",
    selfsup="detectron2",
    methods=("a converted file", "a trained detector"),
    source="https://github.com/facebookresearch/detectron2: detectron2/modeling/backbone/resnet.py",
    container=("model",),
    prefix="",
    signature=(),
)
"""No row of the registry: `auto` never takes a detector for a pretraining."""

_STEM = "stem.conv1.weight"
_DESCRIPTIONS = ("__author__", "matching_heuristics", "provenance")


class _Detector(Identified):
    """A file whose ResNet has Detectron2's names."""

    def torchvision_name(self, key: str) -> str | None:
        # The heads of a C4 model hold its last stage, and may have a norm of their own behind the blocks.
        in_heads = re.match(r"roi_heads\.res5\.\d", key)
        prefix = "roi_heads." if in_heads else self.prefix
        name = key.removeprefix(prefix)
        # "stem." alone would take in the heads that MoCo's own converter leaves there.
        parts = ("stem.conv", "res2.", "res3.", "res4.", "res5.")
        if not key.startswith(prefix) or not name.startswith(parts):
            return None
        try:
            return torchvision_name(name)
        except ValueError:  # it has no place in a plain ResNet, which is then said
            return name


@dataclass(frozen=True)
class Loaded:
    """A file's backbone and where it is from.

    Attributes:
        origin: "method", "layout", "branch" and "input", as the provenance has them.
        found: None where the file is Detectron2's.
    """

    checkpoint: Checkpoint
    backbone: Backbone
    origin: Mapping[str, object]
    found: Identified | None

    @cached_property
    def other_branch(self) -> Mapping[str, np.ndarray] | None:
        """What would be written from the file's other network; None where it is no such ResNet."""
        other = self.found and self.found.other
        if other is None:
            return None
        try:
            backbone = extract(other)
        except InputError:
            return None
        if backbone.architecture != self.backbone.architecture:
            return None
        return {detectron2_name(name): array for name, array in backbone.tensors.items()}


def load_backbone(
    path: str | os.PathLike,
    *,
    selfsup: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
) -> Loaded:
    """The backbone of any file that the converter reads or writes.

    Raises:
        InputError: the file cannot be read, or holds no whole ResNet in a known layout.
    """
    checkpoint = read_checkpoint(path)
    with naming(path):
        if is_detectron2(checkpoint.content):
            return from_detector(checkpoint)
        return from_pretraining(checkpoint, selfsup=selfsup, branch=branch, prefix=prefix)


def from_pretraining(
    checkpoint: Checkpoint, *, selfsup: str, branch: str | None, prefix: str | None
) -> Loaded:
    """The backbone of a pretraining's file; errors are without the file's name."""
    found = identify(checkpoint.content, selfsup, branch=branch, prefix=prefix)
    origin = {
        "method": found.method,
        "layout": found.layout.name,
        "branch": found.branch,
        "input": dict(found.layout.input),
    }
    return Loaded(checkpoint, extract(found), origin, found)


def from_detector(checkpoint: Checkpoint) -> Loaded:
    """The backbone of a file for Detectron2 or of one that its trainer wrote.

    Raises:
        InputError: there is no ResNet under Detectron2's names, or more than one; without the
            file's name.
    """
    content = checkpoint.content
    if not is_detectron2(content):
        raise InputError(
            "holds no ResNet under Detectron2's names (stem, res2..res5): give a run folder's .pth "
            "or a converted file, or leave --from-detector out"
        )
    model = {key: value for key, value in _model(content).items() if isinstance(key, str)}
    beside = () if "model" not in content else (str(key) for key in content if key != "model")
    found = _Detector(
        layout=DETECTRON2,
        method=DETECTRON2.selfsup,
        branch=None,
        prefix=_prefix(model),
        state_dict=model,
        wrapper="",
        drops={},
        beside=tuple(key for key in beside if key not in _DESCRIPTIONS),
        beside_reasons={},
    )
    backbone = extract(found)
    left = {key: "outside the ResNet" if key in model else "beside the model"
            for key in backbone.unknown}  # fmt: skip
    backbone = replace(backbone, dropped={**backbone.dropped, **left}, unknown=())
    recorded = provenance_of(checkpoint)
    origin = {
        "method": shown(recorded.get("method", DETECTRON2.selfsup)),
        "layout": DETECTRON2.name,
        "branch": recorded.get("branch"),
        "input": recorded.get("input"),
    }
    return Loaded(checkpoint, backbone, origin, None)


def is_detectron2(content: object) -> bool:
    """Whether a file's content has a ResNet under Detectron2's names."""
    model = _model(content)
    return isinstance(model, dict) and any(_is_stem(key) for key in model)


def provenance_of(checkpoint: Checkpoint) -> Mapping[str, object]:
    """The provenance that a converted file carries, in whichever format; {} where it has none.

    Anybody may have written it: fields of a wrong type are left out, and all of it where it holds
    what no converted file does.
    """
    content = checkpoint.content
    found = content.get("provenance") if isinstance(content, dict) else None
    if found is None and isinstance(content, dict) and isinstance(content.get("meta"), dict):
        found = content["meta"].get("provenance")
    if found is None and "provenance" in checkpoint.metadata:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(checkpoint.metadata["provenance"])
    if not isinstance(found, dict) or not _is_plain(found):
        return {}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, _FIELD_TYPES.get(name, object))
    }


_FIELD_TYPES = {
    **dict.fromkeys(("source", "source_sha256", "method", "layout", "tool", "date"), str),
    "branch": str | None,
    "architecture": dict,
    "input": dict | None,
}
_MOST_VALUES = 1000  # of a provenance; an honest one has about 80


def _is_plain(value: object) -> bool:
    """Whether it is made of text, numbers, None, lists and dictionaries, and of not too many."""
    waiting, count = [value], 0
    while waiting and count + len(waiting) <= _MOST_VALUES:
        value = waiting.pop()
        count += 1
        if type(value) is dict and all(type(key) is str for key in value):
            waiting += value.values()
        elif type(value) is list:
            waiting += value
        elif type(value) is int:
            if abs(value) >= 1 << 31:  # more than is ever written
                return False
        elif type(value) not in (str, float, bool, type(None)):
            return False
    return not waiting


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Put the file's name before what is said about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{os.fspath(path)} {error}") from error


def _model(content: object) -> object:
    """The tensors: under "model" in all of Detectron2's files, at the top in safetensors."""
    return content.get("model", content) if isinstance(content, dict) else None


def _is_stem(key: object) -> bool:
    return isinstance(key, str) and f".{key}".endswith(f".{_STEM}")


def _prefix(model: Mapping[str, object]) -> str:
    prefixes = [key.removesuffix(_STEM) for key in model if _is_stem(key)]
    if len(prefixes) > 1:
        listed = ", ".join(shown(prefix) or "(none)" for prefix in prefixes[:4])
        raise InputError(f"holds several ResNets ({listed}): give a file with one")
    return prefixes[0]
