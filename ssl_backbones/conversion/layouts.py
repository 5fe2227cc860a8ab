"""How each pretraining project lays out its checkpoints: a row of data each, and how to pick one.

Names in a row are dotted; each part may hold shell wildcards, and a name stands for itself and all
below it: `encoder_k` covers `encoder_k.conv1.weight` and never `encoder_k2.conv1.weight`. A leading
`module.`, which DistributedDataParallel puts before every name, is not written in rows: it is taken
off where every key of the file has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from ..errors import InputError
from .unpickling import shown

_TRAINING = {
    "epoch": "state of the training",
    "arch": "state of the training",
    "optimizer": "state of the training",
    "amp": "state of the training",
}


@dataclass(frozen=True)
class Layout:
    """Where a project's checkpoints keep a ResNet with torchvision's names.

    Attributes:
        name: stands in the provenance.
        selfsup: what the command line calls it, also the provenance's method.
        methods: the published methods whose files look like this.
        source: the project's code that writes such files.
        container: keys that lead from the top of the file to the state dict.
        prefix: of the backbone's names, ending in a dot; empty where there is none.
        signature: names that a file of this layout holds, and no other layout's does.
        drops: names of the state dict that are left out on purpose, each with the reason.
        beside: entries of the file beside the state dict, each with the reason to leave it out.
    """

    name: str
    selfsup: str
    methods: tuple[str, ...]
    source: str
    container: tuple[str, ...]
    prefix: str
    signature: tuple[str, ...]
    drops: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)


_SWAV_HEADS = {
    "projection_head": "projection head of the pretraining",
    "prototypes": "prototypes of the pretraining",
}

LAYOUTS = (
    Layout(
        name="moco",
        selfsup="moco",
        methods=("MoCo v1", "MoCo v2"),
        source="https://github.com/facebookresearch/moco: main_moco.py, moco/builder.py",
        container=("state_dict",),
        prefix="encoder_q.",
        signature=("encoder_q",),
        drops={
            "encoder_q.fc": "projection head of the pretraining",
            "encoder_k": "momentum copy of the encoder",
            "queue": "queue of negatives",
            "queue_ptr": "queue of negatives",
        },
        beside=_TRAINING,
    ),
    Layout(
        name="swav",
        selfsup="swav",
        methods=("SwAV",),
        source="https://github.com/facebookresearch/swav: hubconf.py, src/resnet50.py",
        container=(),
        prefix="",
        signature=("projection_head",),
        drops=_SWAV_HEADS,
    ),
    Layout(
        name="swav-training",
        selfsup="swav",
        methods=("SwAV",),
        source="https://github.com/facebookresearch/swav: main_swav.py, src/resnet50.py",
        container=("state_dict",),
        prefix="",
        signature=("projection_head",),
        drops=_SWAV_HEADS,
        beside=_TRAINING,
    ),
)

SELFSUP_NAMES = tuple(dict.fromkeys(layout.selfsup for layout in LAYOUTS))

_FOREIGN_NETWORKS = {
    "patch_embed": "a Vision Transformer",
    "cls_token": "a Vision Transformer",
    "pos_embed": "a Vision Transformer",
}


@dataclass(frozen=True)
class Identified:
    """A file's state dict, and the layout that it has."""

    layout: Layout
    state_dict: Mapping[str, object]
    wrapper: str
    beside: tuple[str, ...]

    def plain(self, key: str) -> str:
        """The key without the wrapper that DistributedDataParallel put before it."""
        return key[len(self.wrapper) :]


def identify(content: object, selfsup: str = "auto") -> Identified:
    """The layout of what a checkpoint holds; `selfsup` names the only ones to try, or "auto".

    Raises:
        InputError: no layout, or not the named one, fits; the message says what does.
    """
    if selfsup not in ("auto", *SELFSUP_NAMES):
        known = ", ".join(("auto", *SELFSUP_NAMES))
        raise InputError(f"there is no method {selfsup!r}; choose one of {known}")
    if type(content) is not dict:
        raise InputError(f"holds a {type(content).__name__} instead of a dictionary of tensors")
    fitting = [found for layout in LAYOUTS if (found := _fit(content, layout)) is not None]
    chosen = [found for found in fitting if selfsup in ("auto", found.layout.selfsup)]
    if len(chosen) == 1:
        _refuse_foreign_networks(chosen[0].state_dict)
        return chosen[0]
    if chosen:
        names = ", ".join(found.layout.selfsup for found in chosen)
        raise InputError(f"could be of several layouts ({names}); name one with --selfsup")
    if fitting:
        fits = fitting[0].layout.selfsup
        raise InputError(
            f"is not laid out as {selfsup} does it but as {fits}: use --selfsup {fits}"
        )
    raise _unknown(content)


def covers(pattern: str, key: str) -> bool:
    """Whether `pattern` names `key` or something above it, part by part."""
    parts, names = pattern.split("."), key.split(".")
    return len(parts) <= len(names) and all(map(fnmatchcase, names, parts))


def reason_to_drop(reasons: Mapping[str, str], key: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if covers(pattern, key)), None)


def _fit(content: dict, layout: Layout) -> Identified | None:
    state_dict, beside = content, []
    for entry in layout.container:
        if type(state_dict) is not dict or entry not in state_dict:
            return None
        beside += [str(key) for key in state_dict if key != entry]
        state_dict = state_dict[entry]
    if not _is_state_dict(state_dict):
        return None
    wrapped = all(key.startswith("module.") for key in state_dict)
    found = Identified(layout, state_dict, "module." if wrapped else "", tuple(beside))
    keys = [found.plain(key) for key in state_dict]
    whole = all(any(covers(name, key) for key in keys) for name in layout.signature)
    return found if whole else None


def _is_state_dict(value: object) -> bool:
    return (
        type(value) is dict
        and all(type(key) is str for key in value)
        and any(isinstance(entry, np.ndarray) for entry in value.values())
    )


def _refuse_foreign_networks(keys: Iterable[str]) -> None:
    for key in keys:
        for part in key.split("."):
            if part in _FOREIGN_NETWORKS:
                raise InputError(
                    f"holds {_FOREIGN_NETWORKS[part]} ({shown(key)}), not a ResNet; give a file that was "
                    "pretrained with a ResNet-50"
                )


def _unknown(content: dict) -> InputError:
    """Why no layout fits: another network by name, or the top of the tree of keys."""
    if {"model", "__author__"} <= content.keys():
        return InputError("is in Detectron2's format already: train from it as it is")
    for candidate in (content, *content.values()):
        if _is_state_dict(candidate):
            try:
                _refuse_foreign_networks(candidate)
            except InputError as error:
                return error
    top = ", ".join(_top(content)) or "nothing"
    return InputError(
        f"has none of the known layouts ({', '.join(SELFSUP_NAMES)}); it holds {top}: give the "
        "checkpoint as its project published it"
    )


def _top(content: dict, limit: int = 6) -> list[str]:
    """The first entries of the file, for a message."""
    entries = []
    for key, value in content.items():
        inside = next(iter(value), None) if type(value) is dict and value else None
        name = shown(str(key))
        entries.append(name if inside is None else f"{name} (of {shown(str(inside))}, ...)")
        if len(entries) == limit:
            return [*entries, "..."]
    return entries
