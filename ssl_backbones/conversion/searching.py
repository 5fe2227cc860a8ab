"""Looks for a ResNet in files of no known layout, and says what else they hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .matching import renamed
from .registry import LAYOUTS, Renames
from .resnet import closest
from .state_dicts import StateDict, dots, in_words, state_dicts_in
from .unpickling import shown

ROOTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
"""What torchvision's names of a ResNet begin with, the classifier aside."""

_MOST_PLACES = 50  # in one state dict
_HAIKU_DEEPEST = 6  # levels of dictionaries


@dataclass(frozen=True)
class Place:
    """Where a ResNet lies in a file that no layout describes, and what is wrong with it, if so."""

    container: tuple[str, ...]
    prefix: str
    renames: Renames
    architecture: str
    fault: str

    @property
    def label(self) -> str:
        """What --prefix takes: the entries that lead to the state dict, then the names' prefix."""
        return "/".join((*self.container, self.prefix))

    @property
    def shown(self) -> str:
        return f"'{shown(self.label, limit=300)}'"


def places(content: dict) -> list[Place]:
    """Everything in the file that has a ResNet's names, under any prefix."""
    found: dict[tuple, Place] = {}
    for container, held in state_dicts_in(content):
        # Renaming leaves torchvision's own names as they are, which are therefore tried first.
        for renames in sorted({layout.renames for layout in LAYOUTS}, key=len):
            for prefix in _prefixes(held.keys, renames)[:_MOST_PLACES]:
                if (container, prefix) not in found:
                    place = _place(held, container, prefix, renames)
                    found[container, prefix] = place
    return list(found.values())


def _place(held: StateDict, container: tuple[str, ...], prefix: str, renames: Renames) -> Place:
    try:
        architecture, problems = closest(_shapes(held, prefix, renames))
    except InputError as error:
        return Place(container, prefix, renames, "a variant that is not converted", str(error))
    name, fault = architecture.name, ""
    if problems:
        of = f"{len(problems)} of its {len(architecture.shapes)} tensors"
        fault = f"it holds a {name} that is not whole ({of} are at fault); get the file again"
    return Place(container, prefix, renames, name, fault)


def _prefixes(keys: Iterable[str], renames: Renames) -> list[str]:
    """What stands before a name that, renamed, is one which only a whole ResNet has."""
    prefixes = (
        key[:start]
        for key in keys
        if key.endswith(".weight")
        for start in (0, *(place + 1 for place in dots(key)))
        if renamed(key[start:], renames) == "layer4.0.conv1.weight"
    )
    return list(dict.fromkeys(prefixes))


def _shapes(held: StateDict, prefix: str, renames: Renames) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for key, value in zip(held.keys, held.tensors.values(), strict=True):
        if key.startswith(prefix) and isinstance(value, np.ndarray):
            name = renamed(key.removeprefix(prefix), renames)
            if name.split(".")[0] in ROOTS and not name.endswith(".num_batches_tracked"):
                shapes[name] = value.shape
    return shapes


def options(places: Iterable[Place], limit: int = 6) -> str:
    """The places to choose from, for a message."""
    choices = [f"{place.shown} ({place.architecture})" for place in places]
    return ", ".join(choices[:limit] + ["..."] * (len(choices) > limit))


def is_haiku(content: dict) -> bool:
    """Whether names as haiku makes them (`res_net50/~/initial_conv`) stand near the file's top."""
    waiting, depth = [content], 0
    while waiting and depth < _HAIKU_DEEPEST:
        if any(type(key) is str and "/~/" in key for value in waiting for key in value):
            return True
        waiting = [v for value in waiting for v in value.values() if type(v) is dict]
        waiting, depth = waiting[:_MOST_PLACES], depth + 1
    return False


def tree(content: dict) -> str:
    """The top of the tree of keys, in one line."""
    return f"it holds {', '.join(_top(content)) or 'nothing'}"


def _top(content: dict, limit: int = 6) -> list[str]:
    entries = []
    for key, value in content.items():
        name = shown(in_words(key))
        if type(value) is dict and value:
            inside = dict.fromkeys(in_words(inner).split(".")[0] for inner in value)
            parts = [shown(part) for part in list(inside)[:3]] + ["..."] * (len(inside) > 3)
            name = f"{name} ({len(value)} of {', '.join(parts)})"
        entries.append(name)
        if len(entries) == limit and len(content) > limit:
            return [*entries, "..."]
    return entries


def nearest(content: dict) -> str:
    """The layout of which the file has most, and what it lacks of it."""
    best, best_score, lacking = None, 0.0, []
    for _, held in state_dicts_in(content):
        for layout in LAYOUTS:
            missing = [name for name in layout.signature if not held.holds(name)]
            score = 1 - len(missing) / len(layout.signature)
            if score > best_score:
                best, best_score, lacking = layout, score, missing
    if best is None:
        return ""
    without = f", of which it lacks {', '.join(lacking)}" if lacking else ""
    return f"; the nearest known layout is {best.name}{without}"
