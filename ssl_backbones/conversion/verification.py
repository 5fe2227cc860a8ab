"""Proves an existing file again, also one that somebody else made."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import InputError, format_name
from ..hashing import sha256_of
from .extraction import Loaded, load_backbone
from .proof import Proof, prove_loaded
from .reading import naming, provenance_of

_NAMED_AT_MOST = 3


@dataclass(frozen=True)
class Verification:
    """What was found in a file in which nothing is wrong.

    Attributes:
        tensors: how many there are, all of the right shape and finite.
        zero_variances: channels whose running variance is 0: they died, which is no fault.
        channels: how many channels have a running variance.
        source: the file whose tensors these are; None where none was given.
        same_file: whether the source's sha256 is the one that the provenance states; None where
            it states none or no source was given.
        proof: None where it was not asked for.
    """

    path: str
    architecture: Mapping[str, object]
    tensors: int
    zero_variances: int
    channels: int
    provenance: Mapping[str, object]
    source: str | None
    same_file: bool | None
    proof: Proof | None

    def to_dict(self) -> dict:
        """The same, of types that JSON knows."""
        return asdict(self) | {"proof": self.proof and self.proof.to_dict()}


def verify(
    path: str | os.PathLike,
    source: str | os.PathLike | None = None,
    *,
    selfsup: str = "auto",
    branch: str | None = None,
    prefix: str | None = None,
    network: Mapping[str, object] | None = None,
    proof: bool = True,
    progress: Callable[[str], None] = lambda step: None,
) -> Verification:
    """Check a converted file, or anybody's, and the source that it claims to come from.

    Args:
        selfsup, branch, prefix, network: how to read `source`, as in `convert`; the branch is by default the
            one that the provenance states.
        proof: run the numerical proof too; needs torch, torchvision and Detectron2.
        progress: called with the name of each step as it begins.

    Raises:
        InputError: the first thing found wrong.
    """
    progress("checking every tensor")
    loaded = load_backbone(path)
    recorded = provenance_of(loaded.checkpoint)
    with naming(path):
        _check_trained(loaded)
        _check_architecture(loaded, recorded)
    origin, same_file = None, None
    if source is not None:
        progress("comparing with the source")
        stated = recorded.get("branch")
        branch = branch or (stated if isinstance(stated, str) else None)
        origin = load_backbone(
            source, selfsup=selfsup, branch=branch, prefix=prefix, network=network
        )
        with naming(path):
            _check_same(loaded, origin, source)
            _check_same_input(recorded, origin, source)
        stated = recorded.get("source_sha256")
        same_file = sha256_of(source) == stated if stated else None
    if proof:
        progress("proving the conversion")
        with naming(path):
            proof = prove_loaded(loaded, origin)
    variances = [a for n, a in loaded.backbone.tensors.items() if n.endswith("running_var")]
    return Verification(
        path=os.fspath(path),
        architecture=loaded.backbone.architecture.to_dict(),
        tensors=len(loaded.backbone.tensors),
        zero_variances=sum(int((variance == 0).sum()) for variance in variances),
        channels=sum(variance.size for variance in variances),
        provenance=recorded,
        source=os.fspath(source) if source is not None else None,
        same_file=same_file,
        proof=proof or None,
    )


def _check_trained(loaded: Loaded) -> None:
    if not loaded.backbone.family.is_trained(loaded.backbone.tensors):
        raise InputError(
            f"holds {loaded.backbone.family.untrained}: this backbone looks untrained; give a checkpoint of "
            "the end of the training"
        )


def _check_architecture(loaded: Loaded, recorded: Mapping[str, object]) -> None:
    stated = recorded.get("architecture")
    found = loaded.backbone.architecture.to_dict()
    if isinstance(stated, dict) and stated != found:
        stated_name = format_name(str(stated.get("name")))
        raise InputError(
            f"holds a {found['name']}, but its provenance says {stated_name}: it was altered after its "
            "conversion; convert the source again"
        )


def _check_same_input(
    recorded: Mapping[str, object], origin: Loaded, source: str | os.PathLike
) -> None:
    """Refuse a file that was made before the text in and beside its source was read."""
    ours, theirs = recorded.get("input"), origin.origin["input"]
    beside = recorded.get("texts_beside", {})
    # Where the source has other text beside it than it had, that says nothing of this file.
    if (
        not ours
        or not theirs
        or not beside.items() <= origin.origin.get("texts_beside", {}).items()
    ):
        return
    for field, text in origin.origin.get("input_stated_by", {}).items():
        if field in ours and ours[field] != theirs[field]:
            raise InputError(
                f"says {field} is {format_name(str(ours[field]))}, but {os.fspath(source)} says "
                f"{theirs[field]} ({text}): convert the source again"
            )


def _check_same(loaded: Loaded, origin: Loaded, source: str | os.PathLike) -> None:
    ours, theirs = loaded.backbone, origin.backbone
    mine, others = (
        {n: v for n, v in one.architecture.to_dict().items() if n != "assumed"}
        for one in (ours, theirs)
    )
    if mine["name"] != others["name"]:
        raise InputError(f"holds a {mine['name']}, and {os.fspath(source)} a {others['name']}")
    if differing := [name for name in mine if mine[name] != others.get(name)]:
        facts = ", ".join(f"{n} {format_name(str(mine[n]))}" for n in differing)
        raise InputError(
            f"says {facts}, and {os.fspath(source)} {others.get(differing[0])} by its layout: give what the "
            "conversion was told (--selfsup, --network)"
        )
    different = [
        ours.sources[name]
        for name, array in theirs.tensors.items()
        if not np.array_equal(ours.tensors[name], array)
    ]
    if different:
        named = ", ".join(different[:_NAMED_AT_MOST]) + (
            "..." if different[_NAMED_AT_MOST:] else ""
        )
        other = origin.other_branch
        hint = "convert the source again"
        if other is not None and all(
            np.array_equal(ours.tensors[name], other[ours.family.to_detectron2(name)])
            for name in ours.tensors
        ):
            hint = "it is the source's other network: --branch says which to take"
        raise InputError(
            f"does not hold the tensors of {os.fspath(source)}: {len(different)} of "
            f"{len(theirs.tensors)} differ ({named}); {hint}"
        )
