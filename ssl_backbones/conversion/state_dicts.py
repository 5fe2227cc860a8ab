"""The dictionaries of tensors in a file, and their names as the layouts see them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from .matching import covers

_WRAPPERS = ("module.", "_orig_mod.")

# Honest files have at most a third of each.
_MOST_TENSORS = 20_000  # of one state dict
_MOST_PARTS = 32  # of one name
_DEEPEST = 8  # levels of dictionaries that are searched where no layout says where to look
_MOST_STATE_DICTS = 50


class StateDict:
    """A dictionary of tensors, its names behind the wrapper, and the entries beside it."""

    def __init__(self, tensors: dict[str, object], beside: tuple[str, ...]):
        self.tensors = tensors
        self.beside = beside
        self.wrapper = _wrapper(tensors)
        self.keys = [key[len(self.wrapper) :] for key in tensors]
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


def _wrapper(keys: Iterable[str]) -> str:
    wrapper = ""
    while more := next(
        (w for w in _WRAPPERS if all(key.startswith(wrapper + w) for key in keys)), None
    ):
        wrapper += more
    return wrapper


def in_words(key: object) -> str:
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
            beside += [in_words(key) for key in value if key != entry]
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
