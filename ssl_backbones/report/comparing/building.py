"""A report's content from run folders: what was run, what came out, and how sure it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...evaluation.metrics import metric_name
from ...progress import progress_bar
from ..analysis.findings import METRICS
from ..content import TASKS, Report, RunContent
from ..reading.ground_truth import GroundTruth, GroundTruths, evaluated_images
from ..reading.published import deviations, published_fields, recipe_differences, recipe_of
from ..reading.runs import read_run, short_names
from ..wording import encodable
from .verdicts import verdicts

if TYPE_CHECKING:
    from ..analysis.bootstrap import Resampled
    from ..analysis.outcomes import Outcomes


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


Progress = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Makes a bar of so many steps, as `ssl_backbones.progress.progress_bar` does."""

NOT_RECORDED = "(not recorded)"

_ROUNDING = 0.05
"""Percent points by which an AP may differ from what is computed from its detections, which are rounded."""


def build(
    folders: Sequence[str | os.PathLike],
    *,
    min_score: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    annotations: str | os.PathLike | None = None,
    image_root: str | os.PathLike | None = None,
    progress: Progress = progress_bar,
    command_line: Sequence[str] = (),
) -> Report:
    """Read runs and compare each with the first.

    What is missing or damaged in a folder is a sentence in `problems` of its run. Runs of other test images
    than the first run's are shown and not compared.

    Args:
        folders: of runs, such as a config's `train.output_dir`.
        min_score: 0 to 1; detections below it count neither in the confusion matrix nor in the scores of
            images.
        resamples: of the bootstrap over test images.
        seed: of the resamples, 0 or more.
        annotations: the test set's COCO JSON, in place of what Detectron2's catalogs say of it.
        image_root: the folder of its images, likewise.
        command_line: how the report is made, told in it.

    Raises:
        InputError: a folder does not exist, `annotations` cannot be used, or an option is out of range.
    """
    _check_options(folders, min_score, resamples, seed)
    truths = GroundTruths(annotations, image_root)
    runs = [read_run(folder) for folder in folders]
    for run, name in zip(runs, short_names(folders), strict=True):
        run.name = encodable(name)
        _compare_with_recipe(run)
    tests = [_test(run, truths) for run in runs]
    with progress(sum(len(test.tasks) for test in tests)) as advance:
        for test in tests:
            _analyse(test, min_score, advance)
    _resample(tests, resamples, seed, progress)
    for test in tests:
        reasons = {task: why_not_compared(test, tests[0], task) for task in TASKS}
        test.run.verdicts = verdicts(
            test.run, test.resampled, reasons, images=test.num_images, resamples=resamples
        )
        test.run.problems = list(map(encodable, test.run.problems))
    return Report(
        runs,
        min_score,
        resamples,
        seed,
        differences=_differences([_recipe(run) for run in runs]),
        environment_differences=_differences([_environment(run) for run in runs]),
        test_images={t.run.dataset: t.truth.images for t in tests if t.truth is not None},
        problems=list(map(encodable, set_apart(tests))),
        command_line=tuple(map(encodable, command_line)),
    )


def _check_options(folders: Sequence[Any], min_score: float, resamples: int, seed: int) -> None:
    if not folders:
        raise InputError("no run to report on: give the folder of a run")
    if not 0 <= min_score <= 1:
        raise InputError(f"--min-score {min_score}: give a number from 0 to 1")
    if resamples < 1:
        raise InputError(f"--resamples {resamples}: give at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed}: give 0 or more")


def _compare_with_recipe(run: RunContent) -> None:
    recipe = recipe_of(run.record.get("command_line", ()))
    if recipe is None or not run.record["recipe"]:
        return
    images = run.facts.get("images")
    run.published_recipe = recipe.name
    run.published_fields = published_fields(recipe, run.record)
    run.recipe_differences = recipe_differences(recipe)
    run.deviations = deviations(recipe, run.record, images if isinstance(images, int) else None)


def _test(run: RunContent, truths: GroundTruths) -> Tested:
    test = Tested(run)
    run.dataset = run.dataset or truths.name
    try:
        test.truth = truths.of(run.dataset, run.folder)
    except InputError as error:
        if truths.name:  # the user's own choice, not something that the run lacks
            raise
        if run.detections is not None:
            run.problems.append(f"Its detections cannot be compared with annotations: {error}.")
        return test
    try:
        test.image_ids = evaluated_images(test.truth, run.facts)
    except InputError as error:
        run.problems.append(f"Its detections are not analysed: {error}.")
        return test
    if run.detections is not None:
        test.tasks = _usable_tasks(run, test.truth)
    return test


def _usable_tasks(run: RunContent, truth: GroundTruth) -> list[str]:
    """The tasks in which a run has detections that the annotations can be held against."""
    unknown = {found["image_id"] for found in run.detections} - truth.coco.imgs.keys()
    if unknown:
        run.problems.append(
            f"Its detections are of other images than {truth.path} has, such as {next(iter(unknown))!r}: "
            "they are not analysed."
        )
        return []
    num_masks = sum(found.get("segmentation") is not None for found in run.detections)
    if num_masks < len(run.detections) or not (num_masks or "segm/AP" in run.metrics):
        if "segm/AP" in run.metrics:
            run.problems.append("Not all of its detections have masks: mask AP is not analysed.")
        return ["bbox"]
    if not truth.has_masks:
        run.problems.append(
            f"{run.dataset or truth.path} has objects without a mask: mask AP is not analysed."
        )
        return ["bbox"]
    return ["bbox", "segm"]


def _analyse(test: Tested, min_score: float, advance: Callable[[], None]) -> None:
    from ..analysis.analysis import examine

    run, truth = test.run, test.truth
    analyses = {}
    for task in test.tasks:
        try:
            test.outcomes[task], analyses[task] = examine(
                truth.coco,
                run.detections,
                task,
                min_score=min_score,
                class_names=truth.images.class_names,
                image_ids=test.image_ids,
            )
        except InputError as error:
            run.problems.append(f"Its {metric_name(f'{task}/AP')} is not analysed: {error}.")
        else:
            _compare_metrics(test, task, analyses[task].by_size)
        advance()
    run.analyses = analyses


def _compare_metrics(test: Tested, task: str, computed: Mapping[str, float | None]) -> None:
    """Say where the run's own numbers are not those of its detections; else fill in those that it has not."""
    run = test.run
    numbers = {f"{task}/{metric}": value for metric, value in computed.items()}
    for name in (f"{task}/{metric}" for metric in METRICS):
        known, here = run.metrics.get(name), numbers[name]
        if known is not None and here is not None and abs(known - here) > _ROUNDING:
            test.of_others.add(task)
            run.problems.append(
                f"Its evaluation says {metric_name(name)} {known:.1f}, and its detections give {here:.1f}: "
                "they are of different evaluations, or of other annotations."
            )
            return
    missing = {name: value for name, value in numbers.items() if run.metrics.get(name) is None}
    run.metrics = {**run.metrics, **missing}


def _resample(tests: Sequence[Tested], resamples: int, seed: int, progress: Progress) -> None:
    from ..analysis.bootstrap import bootstrap

    groups = _groups(tests)
    with progress(resamples * len(groups)) as advance:
        for task, group in groups:
            outcomes = [test.outcomes[task] for test in group]
            found = bootstrap(outcomes, resamples=resamples, seed=seed, advance=advance)
            for test, resampled in zip(group, found, strict=True):
                test.resampled[task] = resampled


def _groups(tests: Sequence[Tested]) -> list[tuple[str, list[Tested]]]:
    """Task by task, tests of the same images together, in the order of the runs."""
    groups: list[tuple[str, list[Tested]]] = []
    for task in TASKS:
        for test in tests:
            if task not in test.outcomes or task in test.of_others:
                continue
            alike = [group for of, group in groups if of == task and group[0].is_like(test)]
            if alike:
                alike[0].append(test)
            else:
                groups.append((task, [test]))
    return groups


def _recipe(run: RunContent) -> Mapping[str, Any] | None:
    return run.record.get("recipe")


def _environment(run: RunContent) -> Mapping[str, Any] | None:
    from ...engine.recipe import flat

    if not run.record:
        return None
    return dict(flat({**run.record["environment"], "git": run.record["git"]}))


def _differences(
    fields: Sequence[Mapping[str, Any] | None],
) -> list[tuple[str, list[Any]]]:
    """The fields in which recorded runs differ, by name; of each the values of all runs."""
    from ...engine.recipe import ABSENT

    recorded = [of for of in fields if of is not None]
    found = []
    for key in sorted({key for of in recorded for key in of}):
        values = [of.get(key, ABSENT) for of in recorded]
        if any(value != values[0] for value in values):
            found.append(
                (key, [NOT_RECORDED if of is None else of.get(key, ABSENT) for of in fields])
            )
    return found
