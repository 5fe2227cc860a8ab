"""Takes the backbone out of a state dict and accounts for every key on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .layouts import Identified
from .matching import reason_to_drop
from .resnet import Architecture, closest
from .unpickling import shown

_COUNTER = "num_batches_tracked"
_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Backbone:
    """A whole and finite ResNet, and what became of every key of its file.

    Attributes:
        tensors: torchvision name to float32 array, in the architecture's order.
        sources: torchvision name to the key in the file.
        dropped: key in the file to the reason why it is left out.
        unknown: keys outside the backbone that the layout does not mention; left out as well.
    """

    architecture: Architecture
    tensors: Mapping[str, np.ndarray]
    sources: Mapping[str, str]
    dropped: Mapping[str, str]
    unknown: tuple[str, ...]


def extract(found: Identified) -> Backbone:
    """The backbone of an identified file.

    Raises:
        InputError: no ResNet, a variant that Detectron2 does not have, two copies that differ, or
            tensors that are missing, unknown, of a wrong shape or type, or not finite; with the
            first of them and their number.
    """
    sources, dropped, unknown = _sort_keys(found)
    _check_duplicate(found, sources)
    if not any(name.startswith(("conv1.", "layer")) for name in sources):
        raise _no_backbone(found)
    values = {name: found.state_dict[key] for name, key in sources.items()}
    architecture, problems = closest({name: _shape(value) for name, value in values.items()})
    problems = problems or dict(_faulty_values(values))
    if problems:
        raise _faulty(architecture, problems, sources)
    tensors = {name: _as_float32(values[name]) for name in architecture.shapes}
    return Backbone(
        architecture, tensors, {name: sources[name] for name in tensors}, dropped, unknown
    )


def _sort_keys(found: Identified) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    sources, dropped, unknown = {}, {}, []
    for key in found.state_dict:
        plain = found.plain(key)
        name = found.torchvision_name(key)
        if reason := reason_to_drop(found.drops, plain):
            dropped[key] = reason
        elif name is None:
            unknown.append(key)
        elif plain.endswith(f".{_COUNTER}"):
            dropped[key] = "counter of training steps, of no use after it"
        elif name in sources:
            raise InputError(
                f"holds {name} twice, as {shown(sources[name])} and as {shown(key)}: it was put "
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
    for name, key in sources.items():
        twin = f"{found.wrapper}{duplicate}{found.plain(key).removeprefix(found.prefix)}"
        if not _same(found.state_dict[key], found.state_dict.get(twin, found.state_dict[key])):
            raise InputError(
                f"holds the backbone twice and {name} differs between {shown(key)} and "
                f"{shown(twin)}: it was put together wrongly; say which to take with --prefix"
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


def _no_backbone(found: Identified) -> InputError:
    tops = dict.fromkeys(shown(found.plain(key).split(".")[0]) for key in found.state_dict)
    tops = list(tops)[:_NAMED_AT_MOST]
    place = f"under {found.prefix!r}" if found.prefix else "in it"
    return InputError(
        f"holds no backbone: no ResNet {place}, only {', '.join(tops)}; give the "
        "checkpoint of the whole pretraining"
    )


def _faulty(
    architecture: Architecture, problems: Mapping[str, str], sources: Mapping[str, str]
) -> InputError:
    first = [
        f"{shown(sources.get(name, name))} {problem}"
        for name, problem in list(problems.items())[:_NAMED_AT_MOST]
    ]
    more = len(problems) - len(first)
    return InputError(
        f"is not a whole {architecture.name}: {'; '.join(first)}"
        f"{f'; and {more} more' if more else ''} ({len(problems)} of {len(architecture.shapes)} "
        "tensors are at fault): get the file again, or one that training has not spoilt"
    )
