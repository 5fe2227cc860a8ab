"""Compare a config with what its fidelity.yaml says of it, in both directions."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from ssl_backbones.fidelity.rows import BUILT, Fidelity, Row, normal

if TYPE_CHECKING:
    from omegaconf import DictConfig

ABSENT = "(absent)"


def check(cfg: DictConfig, fidelity: Fidelity, config: str) -> list[str]:
    """Every way in which a config is not what the file says: one sentence each; [] if it is.

    Its fields are those of `engine.recipe.recipe`, and what it builds is compared as well.

    Args:
        cfg: as `engine.config.load_config` gives it.
        config: its name in `fidelity.configs`.

    Raises:
        InputError: a row has a key of what is built that does not exist.
    """
    from fidelity_built import Built

    from ssl_backbones.engine.recipe import recipe

    built = Built(cfg)
    problems = check_fields(recipe(cfg), fidelity, config)
    for row, key in _keys(fidelity.rows_of(config)):
        if key.startswith(BUILT):
            problems += _differs(row, key, built.value(key))
    return problems


def check_fields(fields: Mapping[str, Any], fidelity: Fidelity, config: str) -> list[str]:
    """The same of a recipe's fields alone, without building anything."""
    rows = fidelity.rows_of(config)
    keys = [(row, key) for row, key in _keys(rows) if not key.startswith(BUILT)]
    tree = tree_of(fields)
    problems = [p for row, key in keys for p in _differs(row, key, value_of(tree, key))]
    problems += [f"{row.field}: there is no {row.code}" for row in rows if not _exists(row.code)]
    stock, covered = _stock(tuple(fidelity.stock.items())), {key for _, key in keys}
    # How many micro-batches make an iteration is a matter of the command, not of the config.
    inherited = [
        field
        for field in dict.fromkeys([*fields, *stock])
        if field != "slots" and covered.isdisjoint(_within(field))
    ]
    used = set()
    for field in inherited:
        here, there = fields.get(field, ABSENT), stock.get(field, ABSENT)
        matching = _matching(field, tuple(fidelity.inherited))
        used |= matching
        if not matching:
            problems.append(f"{field} = {here!r} is in no row and on no list")
        elif here != there:
            problems.append(f"{field} is {here!r}, and {there!r} where it is inherited from")
    unused = [pattern for pattern in fidelity.inherited if pattern not in used]
    problems += [f"nothing is inherited by {pattern!r}" for pattern in unused]
    return problems


def value_of(tree: Mapping[str, Any], key: str) -> Any:
    """The field of a recipe's `tree` at a dotted key: a leaf, or what is below it as a list or mapping.

    Where there is none, the default of the parameter of that name in what the parent calls, or `ABSENT`.
    """
    node: Any = tree
    *path, name = key.split(".")
    for part in path:
        node = node.get(part, {}) if isinstance(node, dict) else {}
    if isinstance(node, dict):
        if name in node:
            return _joined(node[name])
        return normal(_default(str(node.get("_target_", "")), name))
    return ABSENT


def tree_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe by the parts of their keys, nested."""
    tree: dict[str, Any] = {}
    for field, value in fields.items():
        *path, name = field.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return tree


def _joined(node: Any) -> Any:
    """A part of a tree with its lists as lists, whose items the recipe numbers."""
    if not isinstance(node, dict) or not node:
        return node
    items = {name: _joined(item) for name, item in node.items()}
    return list(items.values()) if all(name.isdigit() for name in items) else items


def _within(field: str) -> list[str]:
    """The keys that cover a field: itself and what it is a part of."""
    parts = field.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]


@cache
def _matching(field: str, patterns: tuple[str, ...]) -> frozenset[str]:
    return frozenset(pattern for pattern in patterns if fnmatchcase(field, pattern))


def _keys(rows: list[Row]) -> Iterator[tuple[Row, str]]:
    return ((row, key) for row in rows for key in row.keys)


def _differs(row: Row, key: str, value: Any) -> list[str]:
    if normal(value) == normal(row.ours):
        return []
    return [f"{row.field}: {key} is {value!r}, and {row.ours!r} in the fidelity file"]


@cache
def _exists(name: str) -> bool:
    from detectron2.utils.registry import locate

    if not name:
        return True
    try:
        return locate(name) is not None
    except Exception:  # what a name imports may raise anything
        return False


@cache
def _default(target: str, parameter: str) -> Any:
    from detectron2.utils.registry import locate

    try:
        found = locate(target) if target else None
    except Exception:  # there is no such target; what a name imports may raise anything
        found = None
    if not callable(found):
        return ABSENT
    # What a class does not name itself it hands on to the one that it is made from.
    for callee in (c.__init__ for c in found.__mro__) if isinstance(found, type) else (found,):
        parameters = inspect.signature(callee).parameters
        if parameter in parameters:
            default = parameters[parameter].default
            return ABSENT if default is inspect.Parameter.empty else default
    return ABSENT


@cache
def _stock(parts: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The fields of Detectron2's own configs: (our part, "FILE NAME" in its model zoo) each."""
    from detectron2 import model_zoo
    from omegaconf import OmegaConf

    from ssl_backbones.engine.recipe import recipe

    # The warm-up in iterations stands for the share of the run, which is then no field of the recipe.
    cfg = OmegaConf.create({"train": {"warmup_iters": 0}}, flags={"allow_objects": True})
    for part, place in parts:
        file, _, name = place.partition(" ")
        cfg[part] = model_zoo.get_config(file)[name or part]
    return {k: v for k, v in recipe(cfg).items() if k.partition(".")[0] in dict(parts)}
