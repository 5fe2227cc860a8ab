"""What a file holds, told without writing anything and without refusing what cannot be converted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from ..errors import InputError, format_name
from ..hashing import Sha256
from .containers.allow_list import Foreign
from .extraction import Loaded, from_either
from .reading import provenance_of, read_checkpoint

_SHOWN_CHILDREN = 12
_MAX_DEPTH = 40  # of the tree; no honest file comes near


@dataclass(slots=True)
class Node:
    """A part of the tree of keys: entries of dictionaries and parts of dotted names alike.

    Attributes:
        value: of a leaf, in words: shape and type of a tensor, or the type of another thing.
        tensors: how many are below, itself included.
        elements: how many numbers those hold.
    """

    name: str
    value: str | None = None
    tensors: int = 0
    elements: int = 0
    children: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """What a file is, what it holds, and what a conversion would do with it.

    Attributes:
        sha256: hexadecimal, of the whole file.
        provenance: what a converted file says of itself; {} in others.
        loaded: the backbone that a conversion would write; None where it would refuse.
        refusal: why it would, in words that follow the file's name; None where it would not.
    """

    path: str
    size: int
    sha256: str
    container: str
    foreign: tuple[str, ...]
    provenance: Mapping[str, object]
    tree: Node
    loaded: Loaded | None
    refusal: str | None

    def to_dict(self) -> dict:
        """The same, of types that JSON knows."""
        loaded = None
        if self.loaded is not None:
            backbone = self.loaded.backbone
            loaded = {
                **self.loaded.origin,
                "architecture": backbone.architecture.to_dict(),
                "kept": backbone.kept,
                "dropped": dict(backbone.dropped),
                "unknown": list(backbone.unknown),
            }
        return {
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "container": self.container,
            "foreign": list(self.foreign),
            "provenance": dict(self.provenance),
            "tree": asdict(self.tree),
            "backbone": loaded,
            "refusal": self.refusal,
        }


def inspect(
    path: str | os.PathLike,
    *,
    selfsup: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    network: Mapping[str, object] | None = None,
) -> Inspection:
    """Look at a file that may come from anybody; needs no torch.

    Raises:
        InputError: it cannot be read at all.
    """
    loaded, refusal = None, None
    with Sha256(path) as sha256:
        checkpoint = read_checkpoint(path)
        try:
            loaded = from_either(
                checkpoint, selfsup=selfsup, branch=branch, prefix=prefix, network=network
            )
        except InputError as error:
            refusal = str(error)
        return Inspection(
            path=os.fspath(path),
            size=os.path.getsize(path),
            sha256=sha256.hexdigest(),
            container=checkpoint.container,
            foreign=checkpoint.foreign,
            provenance=provenance_of(checkpoint),
            tree=key_tree(checkpoint.content),
            loaded=loaded,
            refusal=refusal,
        )


def key_tree(content: object) -> Node:
    """The tree of a content's keys, each tensor counted in every node above it."""
    root = Node("")
    for parts, value in _leaves(content, (), set()):
        elements = value.size if isinstance(value, np.ndarray) else 0
        node = root
        for part in (None, *parts):
            if part is not None:
                node = node.children.setdefault(part, Node(part))
            node.tensors += isinstance(value, np.ndarray)
            node.elements += elements
        node.value = _format_value(value)
    return root


def lines(node: Node, depth: int, indent: int = 0) -> Iterator[tuple[str, str]]:
    """A line for each node down to `depth`, as name and content; chains without a fork are one."""
    children = list(node.children.values())
    for number, child in enumerate(children):
        if number == _SHOWN_CHILDREN and len(children) > _SHOWN_CHILDREN + 1:
            yield f"{'  ' * indent}...", f"{len(children) - number} more"
            return
        name = child.name
        while len(child.children) == 1 and child.value is None:
            (child,) = child.children.values()
            name = f"{name}.{child.name}"
        text = child.value
        if child.children:
            plural = "" if child.tensors == 1 else "s"
            text = f"{child.tensors} tensor{plural}, {child.elements:,} numbers"
        yield f"{'  ' * indent}{format_name(name)}", text or ""
        if indent + 1 < depth:
            yield from lines(child, depth, indent + 1)


def _leaves(
    value: object, parts: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Everything that is no dictionary, with its path; lists are not unfolded.

    A dictionary that stands in several places, or in itself, is unfolded once.
    """
    if not isinstance(value, dict) or not value or len(parts) >= _MAX_DEPTH or id(value) in seen:
        yield parts, value
        return
    seen.add(id(value))
    for key, entry in value.items():
        path = (*parts, *str(key).split("."))
        yield from _leaves(entry, path[:_MAX_DEPTH], seen)


def _format_value(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{'x'.join(map(str, value.shape)) or 'scalar'} {value.dtype}"
    if isinstance(value, Foreign):
        return f"{value.type_name}, not read"
    if isinstance(value, str | int | float | bool | None):
        return format_name(repr(value), 60)
    if isinstance(value, dict | list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
