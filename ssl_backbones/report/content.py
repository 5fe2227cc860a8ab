"""What a report says of runs, before it is a page, a Markdown file or a CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..evaluation.metrics import TASKS
from .analysis.findings import Interval, TaskAnalysis

_KINDS = {
    "subset": "of part of the images",
    "ema": "of averaged weights",
    "tta": "with test-time augmentation",
}
"""By the parts of an evaluation's name."""


@dataclass(frozen=True)
class Verdict:
    """What is known of one metric of one run.

    Attributes:
        value: percent; None where there is none.
        interval: of the value itself, over images.
        difference: to the first run, paired over images; None of the first run, and where nothing can be
            compared.
        share_higher: of the resamples in which this run is above the first; None as above.
        word: the difference in words, as `comparing.verdicts` has them, or why it is not compared.
        published: percent, of the recipe that the run is of; None if there is none.
        published_source: who published it, and which configuration.
        published_note: why the published number is not of the same thing; "" if it is.
    """

    value: float | None
    interval: Interval | None = None
    difference: Interval | None = None
    share_higher: float | None = None
    word: str = ""
    published: float | None = None
    published_source: str = ""
    published_note: str = ""


@dataclass(frozen=True)
class Deviation:
    """A field in which a run differs from the packaged recipe that it is of."""

    key: str
    recipe: Any
    run: Any


@dataclass(frozen=True)
class PublishedField:
    """A field of a published recipe, beside what this run has, and the fields of a config that hold it."""

    name: str
    published: str
    here: str
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class RecipeDifference:
    """A field in which the packaged recipe itself is not what was published.

    Attributes:
        name: of the field, in words.
        published, here: the two values, in words.
        reason: why they differ.
    """

    name: str
    published: str
    here: str
    reason: str


@dataclass
class RunContent:
    """All that is reported of one run.

    Attributes:
        name: tells it from the other runs of the report.
        problems: sentences on what is missing or damaged.
        evaluation: the folder that `metrics`, `facts` and `detections` are of, "inference" for that of the
            final weights on all images; "" without any.
        metrics: of this evaluation, "bbox/AP" and so on, in percent; None where undefined.
        curves: by name of a scalar ("total_loss", "lr", "bbox/AP", ...), points (iteration, value).
        record: run.json as it is; {} without one.
        config: config.yaml as it is; "" without one.
        training_pictures: paths below `folder` of pictures that show what it was trained on.
        detections: COCO results; None without any.
        analyses: by task.
        verdicts: by "bbox/AP" and so on.
        published_recipe: name of the packaged config that the run is of; "" for none.
        recipe_differences: in what that config is not the published recipe.
        deviations: in what the run is not that config.
    """

    name: str
    folder: str
    problems: list[str] = field(default_factory=list)
    dataset: str = ""
    evaluation: str = ""
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""
    training_pictures: Sequence[str] = ()
    detections: Sequence[Mapping[str, Any]] | None = None
    analyses: Mapping[str, TaskAnalysis] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    published_recipe: str = ""
    published_fields: Sequence[PublishedField] = ()
    recipe_differences: Sequence[RecipeDifference] = ()
    deviations: Sequence[Deviation] = ()

    @property
    def other_metrics(self) -> dict[str, float | None]:
        """The metrics of the evaluation that are of none of `TASKS`, such as "keypoints/AP", by name.

        Those of other evaluations, as "ema/bbox/AP", and those of single classes are left out.
        """
        found = {}
        for name, value in self.metrics.items():
            task, _, metric = name.partition("/")
            if metric and task not in TASKS and "/" not in metric and not metric.startswith("AP-"):
                found[name] = value
        return found

    @property
    def kind_of_evaluation(self) -> str:
        """In what the evaluation is not that of the final weights on single images; "" where it is."""
        parts = self.evaluation.removeprefix("inference").split("_")
        words = [_KINDS.get(part, f"of {self.evaluation}") for part in filter(None, parts)]
        augmentation = self.facts.get("test_time_augmentation")
        if isinstance(augmentation, str) and augmentation not in ("none", ""):
            words = [word for word in words if word != _KINDS["tta"]]
            words.append(f"{_KINDS['tta']} ({augmentation})")
        return ", ".join(words)

    @property
    def iterations(self) -> tuple[int, int] | None:
        """How many it did and how many were planned; None where that is not known."""
        planned = self.record.get("recipe", {}).get("train.max_iter")
        last = max((points[-1][0] for points in self.curves.values()), default=None)
        if last is None or isinstance(planned, bool) or not isinstance(planned, int):
            return None
        return last + 1, planned


@dataclass
class ImageSource:
    """Where the pictures of a test set come from.

    Attributes:
        files: image id -> path.
        annotations: image id -> COCO annotations.
        class_names: COCO's category id -> name.
    """

    files: Mapping[Any, str]
    annotations: Mapping[Any, Sequence[Mapping[str, Any]]]
    class_names: Mapping[int, str]


@dataclass
class Report:
    """Runs beside each other, the first being what the others are compared with.

    Attributes:
        differences: (field, values of the runs in their order) that affect the result.
        environment_differences: the same of versions, machine and code.
        test_images: by the dataset's name.
        problems: sentences that concern no single run.
        resamples: of the bootstrap.
    """

    runs: list[RunContent]
    min_score: float
    resamples: int
    seed: int
    differences: Sequence[tuple[str, Sequence[Any]]] = ()
    environment_differences: Sequence[tuple[str, Sequence[Any]]] = ()
    test_images: Mapping[str, ImageSource] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    command_line: Sequence[str] = ()
