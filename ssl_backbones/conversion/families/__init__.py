"""The families of networks. What one knows of its architecture stands in its file; all else in a conversion
is one code for every family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .convnext import CONVNEXT
from .family import Family
from .resnet import RESNET
from .vit import VIT

FAMILIES: Mapping[str, Family] = {family.name: family for family in (RESNET, CONVNEXT, VIT)}
"""By the name that stands in the provenance, as architecture.family; where it is absent, "resnet"."""


def family_of(architecture: Mapping[str, object]) -> Family:
    """Of an architecture as the provenance has it."""
    return FAMILIES[str(architecture.get("family", RESNET.name))]


def family_in(keys: Iterable[object]) -> Family | None:
    """The one whose Detectron2 names stand among these, under any prefix; None without one."""
    names = [f".{key}" for key in keys if isinstance(key, str)]
    found = (
        family
        for family in FAMILIES.values()
        if any(name.endswith(f".{family.stem}") for name in names)
    )
    return next(found, None)
