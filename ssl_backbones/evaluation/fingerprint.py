"""What decides an evaluation's outcome, as one hash: where it is the same, detections can be used again."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from ..lazy import stock_name


def sha256_of_weights(model: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer of `model`."""
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().reshape(-1).cpu().contiguous()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def settings_of(model: nn.Module) -> dict[str, Any]:
    """What a model computes with besides its tensors: thresholds, numbers of detections, scales.

    Taken from the public attributes of its modules, so that it does not matter which config built them. What
    depends on the number of processes alone (the kind of synchronised batch norm) is not in it.
    """
    found = {name: _settings(vars(module)) for name, module in model.named_modules()}
    return {name: settings for name, settings in found.items() if settings}


def _settings(thing: Any, depth: int = 3) -> Any:
    """The numbers, words and flags in `thing`; None if there are none."""
    if isinstance(thing, bool | int | float | str):
        return repr(thing)
    if depth == 0 or isinstance(thing, torch.Tensor | nn.Module | type):
        return None
    if isinstance(thing, Sequence):
        return [_settings(item, depth - 1) for item in thing] or None
    if not isinstance(thing, Mapping):
        thing = getattr(thing, "__dict__", {})
    items = {str(key): _settings(value, depth - 1) for key, value in thing.items()}
    # Whatever starts with an underscore is a module's own affair; `training` is what evaluation turns off.
    return {
        key: value
        for key, value in items.items()
        if value is not None and not key.startswith("_") and key != "training"
    } or None


def describe(node: Any) -> Any:
    """A config's node as JSON can hold it: classes and functions by name, other objects by their type.

    What is called and stands in for a part of Detectron2's goes by that one's name.
    """
    if isinstance(node, DictConfig | dict):
        return {
            str(key): stock_name(value) if key == "_target_" else describe(value)
            for key, value in node.items()
        }
    if isinstance(node, ListConfig | list | tuple):
        return [describe(item) for item in node]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    named = node if hasattr(node, "__qualname__") else type(node)
    return f"{named.__module__}.{named.__qualname__}"


def fingerprint(facts: Mapping[str, Any]) -> str:
    """SHA-256 of `facts`, whatever the order of their names."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
