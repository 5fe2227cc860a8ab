"""What is compared: arms, as words say them, and the controls among them, which are wrong on purpose."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

RANDOM, SUPERVISED = "scratch", "supervised"
_NAMED = {SUPERVISED: "ssl://supervised_imagenet", RANDOM: ""}

SPOILT = {
    "shuffled": "its layers in the wrong order",
    "bgr": "its first convolution for BGR, shown RGB",
}
"""By the word behind an arm's colon, what is done to it. Names and shapes stay as they were."""


@dataclass(frozen=True)
class Arm:
    """Where a backbone's weights come from.

    Attributes:
        source: a pretraining's file, a converted one, or ssl://NAME; "" for random weights.
        spoilt: one of `SPOILT`; "" for weights as they are.
    """

    name: str
    source: str
    spoilt: str = ""

    @property
    def intact(self) -> str:
        """The name of the arm that this one is a control of; its own where it is none."""
        return self.name.removesuffix(f"-{self.spoilt}")


def parse_arms(words: Sequence[str], fewest: int = 2) -> list[Arm]:
    """From "moco.pth", "ssl://NAME", "scratch" and "supervised", any with ":shuffled" or ":bgr" behind it.

    Raises:
        InputError: fewer than `fewest`, one that is not there, two of one name, or spoilt random weights.
    """
    arms = [_parse(word) for word in words]
    if len(arms) < fewest:
        raise InputError("one arm has nothing to be compared with: name another, or scratch")
    for arm in arms:
        if arm.spoilt and arm.intact not in {other.name for other in arms}:
            raise InputError(
                f"{arm.name} is a control of {arm.intact}, which is no arm: name {arm.source} as well"
            )
    if twice := [name for name, count in Counter(arm.name for arm in arms).items() if count > 1]:
        raise InputError(
            f"two arms would be called {twice[0]}: give each a name of its own, as NAME=FILE"
        )
    return arms


def _parse(word: str) -> Arm:
    given, equals, rest = word.partition("=")
    named = given if equals and re.fullmatch(r"[\w-]+", given) else ""
    source, colon, spoilt = (rest if named else word).rpartition(":")
    if not colon or spoilt not in SPOILT:
        source, spoilt = rest if named else word, ""
    if not source:
        raise InputError(f"the arm {word!r} has no file: write NAME=FILE")
    if source in _NAMED:
        name, source = source, _NAMED[source]
    else:
        _check_source(source)
        name = re.sub(r"(\.pth)?\.\w+$", "", source.rpartition("/")[2])
    if spoilt and not source:
        raise InputError(f"{word}: random weights have nothing that could be spoilt")
    name = re.sub(r"[^\w.-]", "_", named or name)
    return Arm(f"{name}-{spoilt}" if spoilt else name, source, spoilt)


def _check_source(source: str) -> None:
    from ..weights.resolution import SSLWeightsHandler, row_of

    if source.startswith(SSLWeightsHandler.PREFIX):
        row_of(source)
    elif "=" in source:
        raise InputError(
            f"there is no file {source}; an override is written key.of.the.config=value"
        )
    elif Path(source).is_dir():
        raise InputError(f"{source} is a folder: an arm is the file of a checkpoint")
    elif not Path(source).is_file():
        raise InputError(
            f"there is no file {source}: an arm is a checkpoint, ssl://NAME, {RANDOM} or {SUPERVISED}, and "
            f"with :{' or :'.join(SPOILT)} behind it a control"
        )


# Controls


_CONVOLUTION = re.compile(r"((?:stem|res\d)\.(?:\d+\.)?)(conv\d)\.weight")


def spoil(source: str | os.PathLike, destination: str | os.PathLike, how: str) -> None:
    """Write a converted backbone spoilt in one of the ways of `SPOILT`, which its provenance then says.

    Raises:
        InputError: the source is no converted backbone, or the file cannot be written.
    """
    from ..conversion.families import RESNET, family_of
    from ..conversion.reading import provenance_of, read_checkpoint
    from ..conversion.writing import write_detectron2

    checkpoint = read_checkpoint(source)
    provenance = dict(provenance_of(checkpoint))
    if not provenance or "model" not in checkpoint.content:
        raise InputError(f"{source} is no converted backbone: give the pretraining's own file")
    tensors = dict(checkpoint.content["model"])
    family = family_of(provenance["architecture"])
    if how == "shuffled" and family is not RESNET:
        raise InputError(f"{source} holds a {family.title}, and :shuffled is of ResNets: take :bgr")
    changed = _shuffled(tensors) if how == "shuffled" else _for_bgr(tensors, family.stem)
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


def _for_bgr(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    import numpy as np

    return {**tensors, name: np.ascontiguousarray(tensors[name][:, ::-1])}
