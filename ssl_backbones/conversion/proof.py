"""Proves a conversion: one input through the source's network and Detectron2's gives one result.

What the source's network is, its family knows (`families`). The same comparison is made with conversions
that are wrong on purpose, so that its reader sees that it can fail, and by how much.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .families import RESNET, Family
from .families.family import Architecture, Features, Tensors, Traits

if TYPE_CHECKING:
    from .extraction import Loaded


@dataclass(frozen=True)
class Difference:
    """Largest difference in a stage: as it is, and relative to the stage's largest value."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class Proof:
    """What the comparison found.

    Attributes:
        stages: "float64" and "float32", then res2..res5, to the largest difference.
        controls: what is wrong in a wrong conversion to the largest relative difference that it
            shows, or None where the mistake changes nothing in these weights.
        other_branch: the same for the other network of the file, in place of the one that was
            taken; None where there is none. It may be small: a momentum copy ends near its model.
        tolerances: relative difference allowed, by precision.
    """

    stages: Mapping[str, Mapping[str, Difference]]
    controls: Mapping[str, float | None]
    other_branch: float | None
    tolerances: Mapping[str, float]

    @property
    def margin(self) -> float | None:
        """How many times float32's tolerance the least of the wrong conversions differs."""
        scores = [score for score in self.controls.values() if score is not None]
        return min(scores) / self.tolerances["float32"] if scores else None

    def to_dict(self) -> dict:
        return asdict(self) | {"margin": self.margin}


def prove(
    source: Tensors,
    converted: Tensors,
    architecture: Architecture,
    other_branch: Tensors | None = None,
    *,
    family: Family = RESNET,
    **traits: object,
) -> Proof:
    """Compare every stage of the source's network and of Detectron2's on fixed images, on the CPU.

    Args:
        source: the file's tensors under the source's names.
        converted: the same under Detectron2's names, as they are written.
        other_branch: the tensors that would be written from the file's other network.
        traits: of both networks, as a ResNet's stride_in_1x1.

    Raises:
        InputError: a stage differs by more than the family's tolerances, or a wrong conversion does not;
            what the family needs cannot be imported.
    """
    _import_networks(family)
    with _one_thread():
        expected = family.expected(source, architecture, traits)
        _refuse_spoilt(expected["float32"])
        network = family.network(architecture, traits)

        def compare(tensors: Tensors, precision: str, network=network) -> dict[str, Difference]:
            return _differences(expected[precision], family.features(network, tensors, precision))

        def score(tensors: Tensors | None, of: Traits = traits) -> float | None:
            if tensors is None:
                return None
            other = network if of == traits else family.network(architecture, of)
            stages = compare(tensors, "float32", other)
            return max(difference.relative for difference in stages.values())

        wrong = family.wrong_conversions(converted, architecture, traits)
        proof = Proof(
            controls={one.name: score(one.tensors, one.traits) for one in wrong},
            stages={precision: compare(converted, precision) for precision in family.tolerances},
            other_branch=score(other_branch),
            tolerances=dict(family.tolerances),
        )
    _refuse_unproved(proof, family)
    return proof


def prove_loaded(loaded: Loaded, source: Loaded | None = None) -> Proof:
    """The proof of what would be written of a file's backbone, or was written of `source`'s."""
    source = source or loaded
    # What the file records counts: its source may have lost the text beside it that said so.
    recorded = loaded if loaded.origin["input"] else source
    family = loaded.backbone.family
    return prove(
        source.backbone.tensors,
        family.written(loaded.backbone.tensors),
        loaded.backbone.architecture,
        source.other_branch,
        family=family,
        **family.traits(recorded.origin),
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So little work is done soonest by one thread, above all where others keep the cores busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _import_networks(family: Family) -> None:
    try:
        with warnings.catch_warnings():  # these libraries warn of each other's ageing parts
            warnings.simplefilter("ignore")
            family.import_networks()
    except ImportError as error:
        raise InputError(
            f"cannot be proved without {family.needs} ({error}); install them, or convert without the proof "
            "(--no-verify)"
        ) from error


def _refuse_spoilt(features: Features) -> None:
    for stage, values in features.items():
        largest = np.abs(values).max()
        if not 0 < largest < np.inf:
            raise InputError(
                f"holds weights whose own network gives features of size {largest} in {stage}: the "
                "training went wrong; give another checkpoint of it"
            )


def _refuse_unproved(proof: Proof, family: Family) -> None:
    for precision, stages in proof.stages.items():
        allowed = proof.tolerances[precision]
        for stage, difference in stages.items():
            if difference.relative > allowed:
                raise InputError(
                    f"failed the proof: {stage} of Detectron2's network in {precision} differs from "
                    f"{family.reference}'s by {difference.relative:.1e} of its largest value, more than "
                    f"{allowed:.0e}; please report this with the file"
                )
    for name, score in proof.controls.items():
        if score is not None and score <= proof.tolerances["float32"]:
            raise InputError(
                f"cannot be proved: a conversion with {name} gives the same features within "
                f"{score:.1e}, so the comparison shows nothing; the weights look untrained or dead "
                "(--no-verify converts without the proof)"
            )


def _differences(expected: Features, features: Features) -> dict[str, Difference]:
    differences = {}
    for stage, values in expected.items():
        absolute = np.abs(np.asarray(features[stage]) - values).max()
        # NaN and infinity, which a wrong conversion may give, have no place in JSON.
        both = (absolute, absolute / np.abs(values).max())
        differences[stage] = Difference(*(_finite(difference) for difference in both))
    return differences


def _finite(value: np.floating) -> float:
    largest = float(np.finfo(np.float32).max)
    return float(np.nan_to_num(value, nan=largest, posinf=largest))
