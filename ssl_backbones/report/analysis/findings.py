"""What an analysis finds in the detections of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ERROR_TYPES = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "classification and localisation",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
"""TIDE's types of errors (Bolya et al., ECCV 2020), and their names in words."""

STATISTICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The first of COCO's twelve: of objects of all sizes, then of small, medium and large ones."""

METRICS = STATISTICS[:3]
"""Those for which there are intervals."""


@dataclass(frozen=True)
class Interval:
    """A number with its bootstrap confidence interval, all in percent points of AP."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassRow:
    """A class of the dataset in one run.

    Attributes:
        detections: of the score that is shown, or above.
        ap, ap50: in percent, None where the test set has no such object.
    """

    name: str
    objects: int
    detections: int
    ap: float | None
    ap50: float | None


@dataclass(frozen=True)
class ErrorSummary:
    """TIDE's errors of one type: how many, and the AP50 in percent points that mending them gains."""

    count: int
    gain: float


@dataclass(frozen=True)
class ImageOutcome:
    """One image under one run and task.

    Attributes:
        score: F1 at IoU 0.5 of the detections shown, 0 to 1; None where there is nothing
            to find and nothing was found.
        classes: names of the classes of its objects and detections.
        errors: TIDE's types that occur in it among the detections shown and the missed objects.
    """

    image_id: Any
    score: float | None
    mean_iou: float
    classes: tuple[str, ...]
    errors: tuple[str, ...]


@dataclass(frozen=True)
class TaskAnalysis:
    """What the detections of one run come to in one task.

    Most numbers are of all detections. `confusion`, `images`, "detections shown" in `counts` and the number
    of detections in `classes` are of those with the score that is shown, or above.

    Attributes:
        recalls: (R,), 0 to 1.
        precision: IoU threshold -> (R,), mean over the classes that have objects, 0 to 1; {} without objects.
        by_size: of `STATISTICS` -> percent or None.
        errors: by TIDE's type, and "FalsePos" and "FalseNeg"; of all detections, and so more than the errors
            of `images`.
        confusion: (classes + 1) squared, rows are what is there, columns what was found, background last.
        class_names: without the background.
        counts: of images, objects, crowds, detections and so on, by what they are in words.
    """

    recalls: Sequence[float]
    precision: Mapping[float, Sequence[float]]
    by_size: Mapping[str, float | None]
    classes: Sequence[ClassRow]
    errors: Mapping[str, ErrorSummary]
    confusion: Sequence[Sequence[int]]
    class_names: Sequence[str]
    images: Sequence[ImageOutcome]
    counts: Mapping[str, int]
