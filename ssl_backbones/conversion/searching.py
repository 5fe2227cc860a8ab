"""What a file holds: its dictionaries of tensors, and the ResNets in them, of whatever layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..errors import InputError, format_name
from .families import FAMILIES, Family
from .layouts import HALF_NETWORKS, LAYOUTS, Renames, covers, reason_to_drop, renamed

_MOST_PLACES = 50  # in one state dict
_HAIKU_DEEPEST = 6  # levels of dictionaries

WRAPPERS = {
    "module": "DataParallel, DistributedDataParallel, AveragedModel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_fpw_module": "FullyShardedDataParallel of torch 1.12",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
"""Parts of names that only say what a module was wrapped in, and what puts them there."""

_WRAPPER = re.compile(rf"(?:(?<=\.)|\A)(?:{'|'.join(WRAPPERS)})\.")
_LEADING = re.compile(rf"\A(?:(?:{'|'.join(WRAPPERS)})\.)+")

# Honest files have at most a third of each.
_MOST_TENSORS = 20_000  # of one state dict
_MOST_PARTS = 32  # of one name
_DEEPEST = 8  # levels of dictionaries that are searched where no layout says where to look
_MOST_STATE_DICTS = 50


class StateDict:
    """A dictionary of tensors, and the entries beside it.

    Attributes:
        names: each key without the wrappers in it.
    """

    def __init__(self, tensors: dict[str, object], beside: tuple[str, ...]):
        self.tensors = tensors
        self.beside = beside
        self.names = unwrapped(tensors)
        self.keys = list(self.names.values())
        self._names = {
            key[:end] for key in self.keys for end in (*dots(key), len(key))
        }  # every key, and everything that one is below

    def holds(self, name: str) -> bool:
        if "*" not in name:
            return name in self._names
        return any(covers(name, key) for key in self.keys)


def dots(name: str) -> Iterator[int]:
    """Where the parts of a name end."""
    return islice((place for place, letter in enumerate(name) if letter == "."), _MOST_PARTS)


def without_wrappers(name: str) -> str:
    return _WRAPPER.sub("", name)


def unwrapped(keys: Iterable[str]) -> dict[str, str]:
    """Each key to its name without wrappers; as they are where two would become one name."""
    names = {key: without_wrappers(key) for key in keys}
    return names if len(set(names.values())) == len(names) else {key: key for key in names}


def wrappers_inside(keys: Iterable[str]) -> list[str]:
    """The wrappers that stand inside of names, behind a part that is none."""
    inside = {found[:-1] for key in keys for found in _WRAPPER.findall(_LEADING.sub("", key))}
    return [wrapper for wrapper in WRAPPERS if wrapper in inside]


def format_key(key: object) -> str:
    """A dictionary's key as text."""
    return key if type(key) is str else f"({type(key).__name__})"


def _is_state_dict(value: object) -> bool:
    return (
        type(value) is dict
        and len(value) <= _MOST_TENSORS
        and all(type(key) is str for key in value)
        and any(isinstance(entry, np.ndarray) for entry in value.values())
    )


class File:
    """A file's content, with each state dict in it looked at once."""

    def __init__(self, content: dict):
        self.content = content
        self._known: dict[tuple[str, ...], StateDict | None] = {}

    def state_dict(self, container: tuple[str, ...]) -> StateDict | None:
        """What lies behind these keys; None where that is no dictionary of tensors."""
        if container not in self._known:
            self._known[container] = self._read(container)
        return self._known[container]

    def _read(self, container: tuple[str, ...]) -> StateDict | None:
        value, beside = self.content, []
        for entry in container:
            if type(value) is not dict or entry not in value:
                return None
            beside += [format_key(key) for key in value if key != entry]
            value = value[entry]
        return StateDict(value, tuple(beside)) if _is_state_dict(value) else None


def state_dicts_in(content: dict) -> Iterator[tuple[tuple[str, ...], StateDict]]:
    """Every dictionary of tensors in a file with the keys that lead to it, the uppermost first."""
    waiting, seen, count = [((), content)], {id(content)}, 0
    for path, value in waiting:
        if _is_state_dict(value):
            count += 1
            yield path, StateDict(value, ())
        if count == _MOST_STATE_DICTS:
            return
        for key, entry in value.items() if len(path) < _DEEPEST else ():
            if type(key) is str and type(entry) is dict and id(entry) not in seen:
                seen.add(id(entry))  # hostile files hold one dictionary a thousand times
                waiting.append(((*path, key), entry))


# ResNets in files of no known layout

_VARIANT = "a variant that is not converted"


@dataclass(frozen=True)
class Place:
    """Where a network lies in a file that no layout describes, and what is wrong with it, if so."""

    family: Family
    container: tuple[str, ...]
    prefix: str
    renames: Renames
    architecture: str
    fault: str

    @property
    def is_variant(self) -> bool:
        """Whether it is whole, but no ResNet that is converted."""
        return self.architecture == _VARIANT

    @property
    def label(self) -> str:
        """What --prefix takes: the entries that lead to the state dict, then the names' prefix."""
        return "/".join((*self.container, self.prefix))

    @property
    def shown(self) -> str:
        return f"'{format_name(self.label, limit=300)}'"


def format_search(content: dict, prefix: str) -> tuple[str, str]:
    """For a file whose layout says that a ResNet lies behind `prefix`, and none is as it should be.

    Returns:
        That there is a whole one among other things; and where else whole ones lie. Empty if not so.
    """
    whole = [place for place in places(content) if not place.fault]
    own = [place for place in whole if place.prefix == prefix]
    if own:
        return (
            f"its stem and stages alone are a whole {own[0].architecture}: confirm that it is the one to "
            f"convert with --prefix {own[0].shown}"
        ), ""
    return "", f"a whole one lies under {format_options(whole)}: --prefix takes it" if whole else ""


def is_whole(held: StateDict, family: Family, prefix: str, renames: Renames) -> bool:
    """Whether such a network lies behind this prefix of a state dict, whatever lies beside it."""
    return not _place(held, family, (), prefix, renames).fault


def places(content: dict) -> list[Place]:
    """Everything in the file that has a network's names, under any prefix."""
    found: dict[tuple, Place] = {}
    for container, held in state_dicts_in(content):
        # Renaming leaves torchvision's own names as they are, which are therefore tried first.
        every = {(layout.family, layout.renames) for layout in LAYOUTS}
        for name, renames in sorted(every, key=lambda one: len(one[1])):
            family = FAMILIES[name]
            for prefix in _prefixes(held.keys, family, renames)[:_MOST_PLACES]:
                known = found.get((container, prefix))
                # Other names may make whole what was not.
                if known is None or (known.fault and family.unshown):
                    place = _place(held, family, container, prefix, renames)
                    if known is None or not place.fault:
                        found[container, prefix] = place
    return list(found.values())


def _place(
    held: StateDict, family: Family, container: tuple[str, ...], prefix: str, renames: Renames
) -> Place:
    try:
        architecture, problems = family.closest(_shapes(held, family, prefix, renames))
    except InputError as error:
        return Place(family, container, prefix, renames, _VARIANT, str(error))
    name, fault = architecture.name, ""
    if architecture.in_channels < 3 and (halves := reason_to_drop(HALF_NETWORKS, f"{prefix}conv1")):
        return Place(family, container, prefix, renames, name, f"it holds {halves}")
    if problems:
        of = f"{len(problems)} of its {len(architecture.shapes)} tensors"
        fault = f"it holds a {name} that is not whole ({of} are at fault); get the file again"
    return Place(family, container, prefix, renames, name, fault)


def _prefixes(keys: Iterable[str], family: Family, renames: Renames) -> list[str]:
    """What stands before a name that, renamed, is one which only a whole network has."""
    prefixes = (
        key[:start]
        for key in keys
        if key.endswith(".weight")
        for start in (0, *(place + 1 for place in dots(key)))
        if renamed(key[start:], renames) == family.landmark
    )
    return list(dict.fromkeys(prefixes))


def _shapes(
    held: StateDict, family: Family, prefix: str, renames: Renames
) -> dict[str, tuple[int, ...]]:
    values, second = {}, None
    for key, value in zip(held.keys, held.tensors.values(), strict=True):
        if key.startswith(prefix) and isinstance(value, np.ndarray):
            name, value = family.plain(renamed(key.removeprefix(prefix), renames), value)
            if name.split(".")[0] in family.roots and not name.endswith(".num_batches_tracked"):
                values[name] = value
            elif name == "conv2.weight":
                second = value.shape
    shapes = {name: value.shape for name, value in family.merged(values)[0].items()}
    # A deep stem's second convolution; beside a 7x7 one it would be something else's.
    if second is not None and shapes.get("conv1.weight", ())[2:] == (3, 3):
        shapes["conv2.weight"] = second
    return shapes


def format_options(places: Iterable[Place], limit: int = 6) -> str:
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


def format_tree(content: dict) -> str:
    """The top of the tree of keys, in one line."""
    return f"it holds {', '.join(_top(content)) or 'nothing'}"


def _top(content: dict, limit: int = 6) -> list[str]:
    entries = []
    for key, value in content.items():
        name = format_name(format_key(key))
        if type(value) is dict and value:
            inside = dict.fromkeys(format_key(inner).split(".")[0] for inner in value)
            parts = [format_name(part) for part in list(inside)[:3]] + ["..."] * (len(inside) > 3)
            name = f"{name} ({len(value)} of {', '.join(parts)})"
        entries.append(name)
        if len(entries) == limit and len(content) > limit:
            return [*entries, "..."]
    return entries


def format_nearest(content: dict) -> str:
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
