"""The pictures of a page: which there are, by what they can be filtered, and how they fit into its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..analysis.findings import ERROR_TYPES
from ..content import TASKS, Report, RunContent
from ..wording import encodable
from .examples import KINDS, LONGEST_SIDE, Example, Picture, choose, draw, encode, ranking_task

MOST_TRAINING_PICTURES = 3  # of a run
NO_ERROR = "none"

_REASON = "the page would be too large otherwise"
_MARGIN = 1000  # bytes for the notes


@dataclass(frozen=True)
class Choice:
    """A choice of a filter: `name` is part of a CSS class, `title` any text."""

    name: str
    title: str


@dataclass
class Gallery:
    """Pictures of one test set, ranked by one task, and the choices of its filters."""

    dataset: str
    task: str
    examples: list[Example]
    groups: list[Choice]
    classes: list[Choice]
    errors: list[Choice]

    def tags(self, example: Example) -> list[str]:
        """The names of all choices under which an example is shown."""
        groups = [_group_name(group.kind, group.run) for group in example.groups]
        classes = [choice.name for choice in self.classes if choice.title in example.classes]
        errors = [f"error-{kind}" for kind in example.errors or [NO_ERROR]]
        return [*groups, *classes, *errors]

    def most_pictures(self) -> int:
        """Of an example, which is how wide it is to be."""
        return max((len(example.pictures) for example in self.examples), default=0)


@dataclass
class Pictures:
    """All pictures of a page, those that a run was trained on by the run's number."""

    galleries: list[Gallery] = field(default_factory=list)
    training: dict[int, list[Picture]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def all(self) -> list[Picture]:
        shown = [p for g in self.galleries for example in g.examples for p in example.pictures]
        return [*shown, *(picture for some in self.training.values() for picture in some)]


def fill(report: Report, num: int, most_bytes: int, page_of: Callable[[Pictures], str]) -> Pictures:
    """Make pictures with which the page stays within `most_bytes`: smaller ones, or fewer, if need be.

    Args:
        num: how many of the best, of the worst and of random images; fewer than that are drawn where
            even the smallest pictures would be too much.
        page_of: makes the page, whose words beside the pictures count as well.
    """
    wanted = num
    while num:
        pictures = _make(report, num)
        if num < wanted:
            pictures.notes.append(f"Only {num} images of each kind are shown: {_REASON}.")
        side = encode(pictures.all(), most_bytes - _MARGIN - _size(page_of(pictures)))
        if side:
            if side < LONGEST_SIDE:
                pictures.notes.append(f"Pictures are shrunk to {side} pixels: {_REASON}.")
            return pictures
        num //= 2
    bare = Pictures(notes=[f"No pictures are shown: {_REASON}."] if wanted else [])
    size = _size(page_of(bare))
    if size + _MARGIN > most_bytes:
        bare.notes.append(
            f"The text alone of this page is {size / 1e6:.1f} MB, more than the {most_bytes / 1e6:g} MB that "
            "a page should be at most."
        )
    return bare


def _size(page: str) -> int:
    """In bytes of UTF-8."""
    return len(encodable(page).encode())


def _make(report: Report, num: int) -> Pictures:
    datasets = list(dict.fromkeys(run.dataset for run in report.runs if run.analyses))
    galleries = []
    for dataset in datasets:
        examples = choose(report, dataset, num)
        draw(report, dataset, examples)
        galleries.append(_gallery(report, dataset, examples))
    pictures = Pictures(galleries)
    for i, run in enumerate(report.runs):
        some, notes = _training_pictures(run)
        if some:
            pictures.training[i] = some
        pictures.notes += notes
    return pictures


def _gallery(report: Report, dataset: str, examples: list[Example]) -> Gallery:
    runs = {i: run for i, run in enumerate(report.runs) if run.dataset == dataset}
    chosen = dict.fromkeys((g.kind, g.run) for e in examples for g in e.groups)
    groups = [
        Choice(_group_name(kind, i), group_title(report, kind, i))
        for kind, i in sorted(chosen, key=lambda g: (KINDS.index(g[0]), g[1] or 0))
    ]
    classes = sorted({name for example in examples for name in example.classes})
    made = {kind for example in examples for kind in example.errors}
    errors = [Choice(f"error-{k}", title) for k, title in ERROR_TYPES.items() if k in made]
    if not all(example.errors for example in examples):
        errors.append(Choice(f"error-{NO_ERROR}", "none"))
    return Gallery(
        dataset,
        TASKS.get(ranking_task(runs.values()), ""),
        examples,
        groups,
        [Choice(f"class-{number}", name) for number, name in enumerate(classes)],
        errors,
    )


def group_title(report: Report, kind: str, run: int | None) -> str:
    """Why an image is shown, with the run's name where there are several."""
    return kind if run is None or len(report.runs) == 1 else f"{kind} of {report.runs[run].name}"


def _group_name(kind: str, run: int | None) -> str:
    return kind if run is None else f"{kind}-{run}"


def _training_pictures(run: RunContent) -> tuple[list[Picture], list[str]]:
    """What is in the run folder, and sentences on the files that cannot be read."""
    import numpy as np
    from PIL import Image

    pictures, notes = [], []
    for name in run.training_pictures[:MOST_TRAINING_PICTURES]:
        try:
            with Image.open(Path(run.folder) / name) as file:
                picture = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or "it is no picture, or a damaged one"
            notes.append(f"{name}, which shows what {run.name} was trained on: {reason}.")
            continue
        picture.thumbnail((2 * LONGEST_SIDE, 2 * LONGEST_SIDE))
        pictures.append(
            Picture(name, f"{name}: images that {run.name} was trained on", np.asarray(picture))
        )
    return pictures, notes
