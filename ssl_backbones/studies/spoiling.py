"""Backbones that are wrong on purpose: the controls by which one sees that a comparison sees anything."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

SPOILT = {
    "shuffled": "its layers in the wrong order",
    "bgr": "its first convolution for BGR, shown RGB",
}
"""By the word behind an arm's colon, what is done to it. Names and shapes stay as they were."""

_CONVOLUTION = re.compile(r"((?:stem|res\d)\.(?:\d+\.)?)(conv\d)\.weight")


def spoil(source: str | os.PathLike, destination: str | os.PathLike, how: str) -> None:
    """Write a converted backbone spoilt in one of the ways of `SPOILT`, which its provenance then says.

    Raises:
        InputError: the source is no converted backbone, or the file cannot be written.
    """
    from ..conversion.reading import provenance_of, read_checkpoint
    from ..conversion.writing import write_detectron2

    checkpoint = read_checkpoint(source)
    provenance = dict(provenance_of(checkpoint))
    if not provenance or "model" not in checkpoint.content:
        raise InputError(f"{source} is no converted backbone: give the pretraining's own file")
    tensors = dict(checkpoint.content["model"])
    changed = _shuffled(tensors) if how == "shuffled" else _for_bgr(tensors)
    # A converted file's proof is of other tensors than these, and its hash of another file.
    provenance |= {
        "method": f"{provenance['method']}, {how}",
        "source_sha256": hashlib.sha256(
            f"{provenance['source_sha256']} {how}".encode()
        ).hexdigest(),
        "spoilt": SPOILT[how],
        "proof": None,
    }
    write_detectron2(destination, changed, lambda: provenance)


def _shuffled(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the convolutions of one shape in a stage each takes the place of the next, with its batch norm."""
    places: dict[tuple, list[str]] = defaultdict(list)
    for name, value in tensors.items():
        if (found := _CONVOLUTION.fullmatch(name)) and not name.startswith("stem"):
            places[found[1].split(".")[0], value.shape].append(name.removesuffix("weight"))
    result = dict(tensors)
    for layers in places.values():
        for to, origin in zip(layers, layers[-1:] + layers[:-1], strict=True):
            result |= {
                to + name.removeprefix(origin): value
                for name, value in tensors.items()
                if name.startswith(origin)
            }
    return result


def _for_bgr(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    import numpy as np

    name = "stem.conv1.weight"
    return {**tensors, name: np.ascontiguousarray(tensors[name][:, ::-1])}
