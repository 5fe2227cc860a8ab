"""Reads the text of a Python config by its literals: nothing of it is run, and what is no literal is unknown.

OpenMMLab's projects keep such text in their checkpoints, either as their Config prints it (literals and
`dict(...)` only) or as it was written, base files first, each behind a line with its path (mmcv
utils/config.py, `_file2dict`).
"""

from __future__ import annotations

import ast
import re
import warnings

LONGEST = 1 << 17  # characters; printed configs have about 20,000

_PATH_LINE = re.compile(r"^[^=#'\"(){}\[\],\n]*\.py[ \t]*$", re.MULTILINE)


class _Unknown:
    """Stands for a value that no literal gives."""

    def __repr__(self) -> str:
        return "(not read)"


UNKNOWN = _Unknown()


def read_config(text: str) -> dict[str, object]:
    """What the config assigns, base files merged as mmcv merges them; {} where it cannot be read.

    What is built by an expression, or is touched by anything but one plain assignment a file, is `UNKNOWN`
    or left out.
    """
    if len(text) > LONGEST:
        return {}
    config: dict[str, object] = {}
    unsure: set[str] = set()
    for part in _PATH_LINE.split(text):
        values = _assignments(part, unsure)
        if values is None:
            return {}
        config = _merged(config, values)
    return {name: value for name, value in config.items() if name not in unsure}


def _assignments(text: str, unsure: set[str]) -> dict[str, object] | None:
    """The top-level assignments of one file, None where it cannot be read.

    Adds to `unsure` every name whose value may be changed otherwise, as by `model.update(...)`.
    """
    try:
        with warnings.catch_warnings():  # of odd escapes in strings
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    values: dict[str, object] = {}
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if name in values:
                    unsure.add(name)
                values[name] = _value(value, values)
                unsure |= _names(value)
            case ast.ImportFrom(names=[ast.alias(name="*")]):
                return None
            case _:
                unsure |= _names(statement)
    return values


def _names(node: ast.AST) -> set[str]:
    """Names that occur; not those that are only unpacked into another dictionary, which copies them."""
    nodes = list(ast.walk(node))
    unpacked = {
        id(keyword.value)
        for call in nodes
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg is None
    }
    names = {n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in unpacked}
    return names | {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}


def _value(node: ast.expr, known: dict[str, object]) -> object:
    # Brackets nest 200 deep at most in what Python parses, and nothing else is followed.
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items):
            return [_value(item, known) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, known) for item in items)
        case ast.Dict(keys=keys, values=values):
            if all(isinstance(key, ast.Constant) for key in keys):
                pairs = zip(keys, values, strict=True)
                return {key.value: _value(value, known) for key, value in pairs}
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return _called_dict(keywords, known)
    return UNKNOWN


def _called_dict(keywords: list[ast.keyword], known: dict[str, object]) -> object:
    result: dict[object, object] = {}
    for keyword in keywords:
        if keyword.arg is not None:
            more = {keyword.arg: _value(keyword.value, known)}
        else:
            more = known.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else None
            # Of flat ones only: others, unpacked again and again, would grow without an end.
            if not isinstance(more, dict) or any(isinstance(v, dict) for v in more.values()):
                return UNKNOWN
        if result.keys() & more.keys():  # which Python refuses
            return UNKNOWN
        result |= more
    return result


def _merged(base: dict, changes: dict) -> dict:
    """`changes` over `base`: dictionaries are merged, unless one says `_delete_`; all else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(value, dict) and not value.get("_delete_"):
            if old is UNKNOWN:
                value = UNKNOWN
            elif isinstance(old, dict):
                value = _merged(old, value)
        result[key] = value
    return result
