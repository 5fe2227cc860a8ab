"""The backbone of a checkpoint file, with an account of every key in it.

The file may be a pretraining's, whose layout says where the backbone lies, Detectron2's or this converter's.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import InputError, format_name
from .families import Family, family_in, stated_architecture
from .families.family import Architecture, StatedWrongly
from .identification import Identified, identify
from .layouts import Layout, reason_to_drop
from .reading import Checkpoint, naming, provenance_of, read_checkpoint
from .searching import format_search, wrappers_inside
from .stated import network_stated, read_json, stated, texts_beside

_COUNTER = "num_batches_tracked"
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Backbone:
    """A whole and finite network, and what became of every key of its file.

    Attributes:
        tensors: the family's name to float32 array, in the architecture's order.
        sources: the family's name to the key in the file, or to its first of several; what no file holds and
            the family adds has none.
        parts: every other key that one of the tensors is made of, to the family's name.
        dropped: key in the file to the reason why it is left out.
        unknown: keys outside the backbone that the layout does not mention; left out as well.
    """

    family: Family
    architecture: Architecture
    tensors: Mapping[str, np.ndarray]
    sources: Mapping[str, str]
    dropped: Mapping[str, str]
    unknown: tuple[str, ...]
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, str]:
        """Key in the file to the family's name."""
        return {key: name for name, key in self.sources.items()} | dict(self.parts)


class NotThere(InputError):
    """There is no ResNet where the layout says, or one that is not whole or of another shape.

    Attributes:
        what: the message without its mend.
    """

    def __init__(self, what: str, mend: str = ""):
        super().__init__(f"{what}{mend}")
        self.what = what


def extract(found: Identified, known: Mapping[str, object] = MappingProxyType({})) -> Backbone:
    """The backbone of an identified file.

    Args:
        known: what is said of the network beside the file, which goes before what its layout says.

    Raises:
        NotThere: no ResNet, a variant that Detectron2 does not have, or tensors that are missing,
            unknown or of a wrong shape; with the first of them and their number.
        InputError: two copies that differ, or tensors of a wrong type or not finite.
    """
    sources, dropped, unknown = _sort_keys(found)
    _check_duplicate(found, sources)
    family = found.family
    if not family.is_part(list(sources)):
        raise _no_backbone(found)
    values = {}
    for name, key in list(sources.items()):
        own, values_of = family.plain(name, found.state_dict[key])
        values[own], sources[own] = values_of, sources.pop(name)
    known = _known(found, known)
    values, merged = family.merged(values, known)
    first = {name: sources[names[0]] for name, names in merged.items()}
    parts = {sources[part]: name for name, names in merged.items() for part in names[1:]}
    sources |= first
    try:
        architecture, problems = family.closest(
            {name: _shape(value) for name, value in values.items()}, known
        )
    except StatedWrongly:
        raise
    except InputError as error:
        raise NotThere(str(error)) from error
    if problems:
        raise NotThere(*_faulty(architecture, problems, sources))
    if problems := dict(_faulty_values(values)):
        raise InputError("".join(_faulty(architecture, problems, sources)))
    tensors = {name: _as_float32(values[name]) for name in architecture.shapes}
    kept = {name: sources[name] for name in tensors if name in sources}
    return Backbone(family, architecture, tensors, kept, dropped, unknown, parts)


def _known(found: Identified, said: Mapping[str, object]) -> dict[str, object]:
    """What a layout assumes is none where somebody says it."""
    assumed = found.network.get("assumed", [])
    rest = {"assumed": [name for name in assumed if name not in said]} if assumed else {}
    return {**found.network, **rest, **said}


def _sort_keys(found: Identified) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    sources, dropped, unknown = {}, {}, []
    for key in found.state_dict:
        plain = found.plain(key)
        name = found.name_of(key)
        if reason := reason_to_drop(found.drops, plain):
            dropped[key] = reason
        elif name is None:
            unknown.append(key)
        elif plain.endswith(f".{_COUNTER}"):
            dropped[key] = "counter of training steps, of no use after it"
        elif name in sources:
            raise InputError(
                f"holds {name} twice, as {format_name(sources[name])} and as {format_name(key)}: it was put "
                "together wrongly; give the checkpoint as its project published it"
            )
        else:
            sources[name] = key
    for key in found.beside:
        if reason := reason_to_drop(found.beside_reasons, key):
            dropped[key] = reason
        else:
            unknown.append(key)
    return sources, dropped, tuple(unknown)


def _check_duplicate(found: Identified, sources: Mapping[str, str]) -> None:
    """Refuse two copies of the backbone that differ: one of them is not what was trained."""
    duplicate = found.layout.duplicate
    if not duplicate or found.prefix != found.layout.prefix:
        return
    keys = {name: key for key, name in found.names.items()}
    for name, key in sources.items():
        twin = f"{duplicate}{found.plain(key).removeprefix(found.prefix)}"
        twin = keys.get(twin, twin)
        if not _same(found.state_dict[key], found.state_dict.get(twin, found.state_dict[key])):
            raise InputError(
                f"holds the backbone twice and {name} differs between {format_name(key)} and "
                f"{format_name(twin)}: it was put together wrongly; say which to take with --prefix"
            )


def _same(one: object, other: object) -> bool:
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return one is other
    # Tied tensors lie at the same place of the file, and need not be read to be known as equal.
    at_one_place = (
        one.__array_interface__["data"] == other.__array_interface__["data"]
        and one.strides == other.strides
        and one.shape == other.shape
        and one.dtype == other.dtype
    )
    floating = one.dtype.kind == other.dtype.kind == "f"
    return at_one_place or np.array_equal(one, other, equal_nan=floating)


def _faulty_values(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            yield name, f"is of type {getattr(value, 'dtype', type(value).__name__)}, not floating"
            continue
        value = _as_float32(value)
        if not np.isfinite(value).all():
            yield name, "holds NaN or infinite values"
        # Zero is no fault: the average of a channel that died decays below float32's smallest number.
        elif name.endswith(".running_var") and not (value >= 0).all():
            yield name, "holds negative variances"


def _shape(value: object) -> tuple[int, ...]:
    return value.shape if isinstance(value, np.ndarray) else ()


def _as_float32(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 too large becomes infinite, which is refused
        return array.astype(np.float32, copy=False)


def _no_backbone(found: Identified) -> NotThere:
    tops = dict.fromkeys(format_name(found.plain(key).split(".")[0]) for key in found.state_dict)
    tops = list(tops)[:_NAMED_AT_MOST]
    place = f"under {found.prefix!r}" if found.prefix else "in it"
    return NotThere(
        f"holds no backbone: no {found.family.title} {place}, only {', '.join(tops)}",
        "; give the checkpoint of the whole pretraining",
    )


def _faulty(
    architecture: Architecture, problems: Mapping[str, str], sources: Mapping[str, str]
) -> tuple[str, str]:
    """What is wrong, and how to mend it."""
    first = [
        f"{format_name(sources.get(name, name))} {problem}"
        for name, problem in list(problems.items())[:_NAMED_AT_MOST]
    ]
    more = len(problems) - len(first)
    return (
        f"is not a whole {architecture.name}: {'; '.join(first)}"
        f"{f'; and {more} more' if more else ''} ({len(problems)} of {len(architecture.shapes)} "
        "tensors are at fault)",
        ": get the file again, or one that training has not spoilt",
    )


# Files, a pretraining's and Detectron2's

DETECTRON2 = Layout(
    name="detectron2",
    selfsup="detectron2",
    methods=("a converted file", "a trained detector"),
    source="https://github.com/facebookresearch/detectron2: detectron2/modeling/backbone/resnet.py",
    container=("model",),
    prefix="",
    signature=(),
)
"""None of the `LAYOUTS`: `auto` never takes a detector for a pretraining."""

_DESCRIPTIONS = ("__author__", "matching_heuristics", "provenance")


class _Detector(Identified):
    """A file whose network has Detectron2's names."""

    def name_of(self, key: str) -> str | None:
        # The heads of a C4 model hold its last stage, and may have a norm of their own behind the blocks.
        in_heads = re.match(r"roi_heads\.res5\.\d", key)
        prefix = "roi_heads." if in_heads else self.prefix
        name = key.removeprefix(prefix)
        # "stem." alone would take in the heads that MoCo's own converter leaves there.
        if not key.startswith(prefix) or not name.startswith(self.family.detectron2_roots):
            return None
        try:
            return self.family.from_detectron2(name)
        except ValueError:  # it has no place in a plain network, which is then said
            return name


@dataclass(frozen=True)
class Loaded:
    """A file's backbone and where it is from.

    Attributes:
        origin: "method", "layout", "branch" and "input", as the provenance has them; "wrappers" where
            such were taken off inside of the backbone's names; "input_stated_by" and "texts_beside" where
            the file's own text says something of the input: which text each field is from, and the sha256
            of each that lay beside the file.
        found: None where the file is Detectron2's.
    """

    checkpoint: Checkpoint
    backbone: Backbone
    origin: Mapping[str, object]
    found: Identified | None

    @property
    def stride_in_1x1(self) -> bool:
        """Whether the strides are known to lie in the 1x1 convolutions of the bottlenecks."""
        return self.backbone.family.traits(self.origin).get("stride_in_1x1", False)

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
        return backbone.family.written(backbone.tensors)


def load_backbone(
    path: str | os.PathLike,
    *,
    selfsup: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    network: Mapping[str, object] | None = None,
) -> Loaded:
    """The backbone of any file that the converter reads or writes.

    Raises:
        InputError: the file cannot be read, or holds no whole ResNet in a known layout.
    """
    checkpoint = read_checkpoint(path)
    with naming(path):
        return from_either(
            checkpoint, selfsup=selfsup, branch=branch, prefix=prefix, network=network
        )


def from_either(checkpoint: Checkpoint, **options: Any) -> Loaded:
    """The backbone of a detector's file, or of a pretraining's that is read by `options`."""
    if is_detectron2(checkpoint.content):
        return from_detector(checkpoint, options.get("network"))
    return from_pretraining(checkpoint, **options)


def from_pretraining(
    checkpoint: Checkpoint,
    *,
    selfsup: str,
    branch: str | None,
    prefix: str | None,
    network: Mapping[str, object] | None = None,
) -> Loaded:
    """The backbone of a pretraining's file; errors are without the file's name.

    Args:
        network: what its user says of a network and no tensor shows, as a ViT's num_heads.
    """
    found = identify(checkpoint.content, selfsup, branch=branch, prefix=prefix)
    _check_network(found.family, network)
    texts = texts_beside(checkpoint)
    try:
        backbone = extract(found, {**network_stated(checkpoint, texts), **(network or {})})
    except NotThere as error:
        # The names are a layout's and the network is not: what would be said had no layout fitted.
        among, elsewhere = format_search(checkpoint.content, found.prefix)
        if prefix is not None or not (among or elsewhere):
            raise
        raise InputError(f"{error.what}; {among}" if among else f"{error}; {elsewhere}") from error
    said = stated(checkpoint, backbone, texts)
    if "stride_in_1x1" not in said.input:
        _refuse_folded_norms(backbone)
    origin = {
        "method": found.method,
        "layout": found.layout.name,
        "branch": found.branch,
        **({"license": _license(found.layout)} if found.layout.license else {}),
        **backbone.family.facts(backbone.tensors),
        "input": {**_input(found, backbone.architecture), **said.input},
        **({"input_stated_by": dict(said.by)} if said.by else {}),
        **({"texts_beside": dict(said.beside)} if said.beside else {}),
    }
    if inside := wrappers_inside(backbone.sources.values()):
        origin["wrappers"] = inside
    if "pixel_mean" in said.input and "assumed" not in said.input:
        origin["input"].pop("assumed", None)
    return Loaded(checkpoint, backbone, origin, found)


def _check_network(family: Family, network: Mapping[str, object] | None) -> None:
    """Refuse what a user says of a network whose tensors show it."""
    for name in network or {}:
        if not family.unshown:
            raise InputError(f"holds a {family.title}, whose tensors show all: leave --network out")
        if name not in family.unshown:
            raise InputError(
                f"cannot be told its {format_name(name)}: of a {family.title} --network says one of "
                f"{', '.join(family.unshown)}"
            )


def _license(layout: Layout) -> str:
    """Nothing tells a project's own weights from what others trained with its code."""
    return f"{layout.license}, if these are the project's published weights"


def _refuse_folded_norms(backbone: Backbone) -> None:
    """Refuse batch norms of scales and shifts alone, of which only Caffe2's networks are known.

    mmdet's tools/model_converters/detectron2pytorch.py writes their statistics as 0 and 1.
    """

    def is_all(part: str, value: float) -> bool:
        held = (array for name, array in backbone.tensors.items() if name.endswith(part))
        return all((array == value).all() for array in held)

    is_folded = is_all(".running_mean", 0) and is_all(".running_var", 1)
    if is_folded and not (is_all("bn1.weight", 1) and is_all("bn1.bias", 0)):
        raise InputError(
            "holds batch norms without statistics (mean 0 and variance 1 in all), as networks out of Caffe2 "
            "have; their strides lie in the 1x1 and their images are BGR, which nothing in the file says: "
            "give Detectron2's own file of it, such as detectron2://ImageNetPretrained/MSRA/R-50.pkl"
        )


def _input(found: Identified, architecture: Architecture) -> dict[str, object]:
    """What the network was trained on; of other channels than three a layout's statistics say nothing."""
    known = dict(found.layout.inputs.get(found.method, found.layout.input))
    if architecture.in_channels == 3:
        return known
    stride = {key: known[key] for key in ("stride_in_1x1",) if key in known}
    return {"channels": architecture.in_channels, **stride}


def from_detector(checkpoint: Checkpoint, network: Mapping[str, object] | None = None) -> Loaded:
    """The backbone of a file for Detectron2 or of one that its trainer wrote.

    Args:
        network: as of `from_pretraining`.

    Raises:
        InputError: there is no ResNet under Detectron2's names, or more than one; without the
            file's name.
    """
    content = checkpoint.content
    family = _family(content)
    if family is None:
        raise InputError(
            "holds no ResNet under Detectron2's names (stem, res2..res5): give a run folder's .pth "
            "or a converted file, or leave --from-detector out"
        )
    model = {key: value for key, value in _model(content).items() if isinstance(key, str)}
    recorded = provenance_of(checkpoint)
    known = stated_architecture(recorded.get("architecture")) or _of_its_run(checkpoint.path)
    _check_network(family, network)
    known = {**(known or {"assumed": list(family.unshown)}), **(network or {})}
    if network:
        known["assumed"] = [name for name in known.get("assumed", []) if name not in network]
    beside = () if "model" not in content else (str(key) for key in content if key != "model")
    found = _Detector(
        layout=replace(
            DETECTRON2,
            family=family.name,
            network=known,
        ),
        method=DETECTRON2.selfsup,
        branch=None,
        prefix=_prefix(model, family),
        state_dict=model,
        names={},
        drops={},
        beside=tuple(key for key in beside if key not in _DESCRIPTIONS),
        beside_reasons={},
    )
    backbone = extract(found)
    left = {key: f"outside the {family.title}" if key in model else "beside the model"
            for key in backbone.unknown}  # fmt: skip
    backbone = replace(backbone, dropped={**backbone.dropped, **left}, unknown=())
    origin = {
        "method": format_name(recorded.get("method", DETECTRON2.selfsup)),
        "layout": DETECTRON2.name,
        "branch": recorded.get("branch"),
        "input": recorded.get("input"),
    }
    return Loaded(checkpoint, backbone, origin, None)


def _of_its_run(path: str) -> Mapping[str, object]:
    """The architecture of the weights that a run began with, as the run.json beside its checkpoints says.

    Files of that name may be anybody's, and then say nothing.
    """
    with contextlib.suppress(InputError):
        record = read_json(Path(path).parent / "run.json")
        weights = record.content.get("weights") if record else None
        if isinstance(weights, dict):
            return stated_architecture(weights.get("architecture"))
    return {}


def is_detectron2(content: object) -> bool:
    """Whether a file's content has a network under Detectron2's names."""
    return _family(content) is not None


def _family(content: object) -> Family | None:
    model = _model(content)
    return family_in(model) if isinstance(model, dict) else None


def _model(content: object) -> object:
    """The tensors: under "model" in all of Detectron2's files, at the top in safetensors."""
    return content.get("model", content) if isinstance(content, dict) else None


def _prefix(model: Mapping[str, object], family: Family) -> str:
    stem = family.stem
    prefixes = [key.removesuffix(stem) for key in model if f".{key}".endswith(f".{stem}")]
    if len(prefixes) > 1:
        listed = ", ".join(format_name(prefix) or "(none)" for prefix in prefixes[:4])
        raise InputError(f"holds several {family.title}s ({listed}): give a file with one")
    return prefixes[0]
