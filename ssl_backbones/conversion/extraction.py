"""Takes the backbone out of a state dict and accounts for every key on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .layouts import Identified, reason_to_drop
from .resnet import CONVERTED, Architecture, closest
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
        InputError: no ResNet, another one than is converted, or a tensor that is missing, unknown,
            of a wrong shape or type, or not finite; with the first of them and their number.
    """
    sources, dropped, unknown = _sort_keys(found)
    if not any(name.startswith(("conv1.", "layer")) for name in sources):
        raise _no_backbone(found)
    values = {name: found.state_dict[key] for name, key in sources.items()}
    architecture, problems = closest({name: _shape(value) for name, value in values.items()})
    if architecture.name not in CONVERTED:
        raise InputError(
            f"holds a {architecture.name}; only {', '.join(CONVERTED)} is converted: give a file "
            "that was pretrained with it"
        )
    problems = problems or dict(_faulty_values(values))
    if problems:
        raise _faulty(architecture, problems, sources)
    tensors = {name: _as_float32(values[name]) for name in architecture.shapes}
    return Backbone(
        architecture, tensors, {name: sources[name] for name in tensors}, dropped, unknown
    )


def _sort_keys(found: Identified) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    layout = found.layout
    sources, dropped, unknown = {}, {}, []
    for key in found.state_dict:
        plain = found.plain(key)
        if reason := reason_to_drop(layout.drops, plain):
            dropped[key] = reason
        elif not plain.startswith(layout.prefix):
            unknown.append(key)
        elif plain.endswith(f".{_COUNTER}"):
            dropped[key] = "counter of training steps, of no use after it"
        else:
            sources[plain.removeprefix(layout.prefix)] = key
    for key in found.beside:
        if reason := reason_to_drop(layout.beside, key):
            dropped[key] = reason
        else:
            unknown.append(key)
    return sources, dropped, tuple(unknown)


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
    place = f"under {found.layout.prefix!r}" if found.layout.prefix else "in it"
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
