"""From a self-supervised checkpoint to a file for Detectron2, a module a step.

    read_checkpoint -> identify -> extract -> prove -> write_detectron2

`convert` is the whole of it. It is imported when it is asked for: to print a help text, numpy and
the rest are not needed.
"""

from __future__ import annotations

__all__ = ["ConversionReport", "convert"]


def __getattr__(name: str):
    if name in __all__:
        from . import converting

        return getattr(converting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
