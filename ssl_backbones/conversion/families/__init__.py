"""The families of networks. What one knows of its architecture stands in its file; all else in a conversion
is one code for every family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .convnext import CONVNEXT
from .family import Family, StatedWrongly
from .resnet import RESNET
from .vit import VIT

FAMILIES: Mapping[str, Family] = {family.name: family for family in (RESNET, CONVNEXT, VIT)}
"""By the name that stands in the provenance, as architecture.family; where it is absent, "resnet"."""


def family_of(architecture: Mapping[str, object]) -> Family:
    """Of an architecture as the provenance has it."""
    return FAMILIES[str(architecture.get("family", RESNET.name))]


def stated_architecture(recorded: object) -> Mapping[str, object]:
    """What a provenance says of a network, {} where it says nothing.

    Raises:
        StatedWrongly: it is of no family, or a field is missing or of another type than the family's.
    """
    if recorded is None:
        return {}
    is_known = isinstance(recorded, Mapping) and str(recorded.get("family", "resnet")) in FAMILIES
    if not is_known or (fault := family_of(recorded).fault_in(recorded)):
        what = fault if is_known else "it is of no known family"
        raise StatedWrongly(
            f"has a provenance whose architecture is none ({what}): it was altered; convert the source again"
        )
    return recorded


def family_in(keys: Iterable[object]) -> Family | None:
    """The one whose Detectron2 names stand among these, under any prefix; None without one."""
    names = [f".{key}" for key in keys if isinstance(key, str)]
    found = (
        family
        for family in FAMILIES.values()
        if any(name.endswith(f".{family.stem}") for name in names)
    )
    return next(found, None)
