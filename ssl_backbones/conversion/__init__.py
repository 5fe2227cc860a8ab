"""From a self-supervised checkpoint to a file for Detectron2, a module a step.

    read_checkpoint -> identify -> extract -> prove -> write_backbone

`convert` is the whole of it; `inspect` and `verify` look at a file and write nothing. Each is
imported when it is asked for: to print a help text, numpy and the rest are not needed.
"""

from __future__ import annotations

CONVERSION = 3
"""Raised whenever an equal file may be converted otherwise than before: kept copies are then made anew.

1: nothing but the tensors was read. 2: also the text in and beside a file. 3: lightly-train's
`normalize_args` as well.
"""

_MODULES = {
    "ConversionReport": "converting",
    "convert": "converting",
    "convert_all": "converting",
    "inspect": "inspection",
    "verify": "verification",
}

__all__ = ["CONVERSION", "ConversionReport", "convert", "convert_all", "inspect", "verify"]


def __getattr__(name: str):
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
