"""What runs were tested on, and whether two of them can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .content import RunContent
from .ground_truth import GroundTruth

if TYPE_CHECKING:
    from .analysis.bootstrap import Resampled
    from .analysis.outcomes import Outcomes


@dataclass
class Tested:
    """What a run was tested on, and what came out.

    Attributes:
        truth: None where it cannot be had.
        image_ids: of the images that were evaluated; None for all.
        tasks: in which there are detections to hold against `truth`.
        outcomes, resampled: by task.
        of_others: tasks in which the run's numbers are not those of its detections.
    """

    run: RunContent
    truth: GroundTruth | None = None
    image_ids: Sequence[Any] | None = None
    tasks: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    resampled: dict[str, Resampled] = field(default_factory=dict)
    of_others: set[str] = field(default_factory=set)

    @property
    def num_images(self) -> int:
        if self.truth is None:
            return 0
        return len(self.truth.coco.imgs if self.image_ids is None else self.image_ids)

    def is_like(self, other: Tested) -> bool:
        """Whether both are of the same images."""
        return self.truth is other.truth and self.image_ids == other.image_ids


def why_not_compared(test: Tested, first: Tested, task: str) -> str:
    """Why a run cannot be compared with the first one; "" if it can be."""
    if task not in test.outcomes:
        return "no usable detections"
    if task in test.of_others:
        return "its numbers are not of its detections"
    if task not in first.outcomes:
        return f"{first.run.name} has no usable detections"
    if task in first.of_others:
        return f"the numbers of {first.run.name} are not of its detections"
    if not test.is_like(first):
        return "other test images"
    if test.run.kind_of_evaluation != first.run.kind_of_evaluation:
        return "another kind of evaluation"
    return ""


def set_apart(tests: Sequence[Tested]) -> list[str]:
    """Say which runs were tested on other images than the first one, or in another way."""
    first = tests[0]
    sentences = []
    for test in tests[1:]:
        if test.truth is None or first.truth is None:
            continue
        own, other = test.run.kind_of_evaluation, first.run.kind_of_evaluation
        if not test.is_like(first):
            ways = (
                f"tested on {_images(test, first)}, and {first.run.name} on {_images(first, test)}"
            )
        elif own != other:
            ways = f"evaluated {own or 'plainly'}, and {first.run.name} {other or 'plainly'}"
        else:
            continue
        sentences.append(f"{test.run.name} was {ways}: they are not compared.")
    return sentences


def _images(test: Tested, other: Tested) -> str:
    words = f"{test.num_images:,} images of {test.run.dataset}"
    is_enough = test.num_images != other.num_images or test.run.dataset != other.run.dataset
    return words if is_enough else f"{words} by {test.truth.path}"
