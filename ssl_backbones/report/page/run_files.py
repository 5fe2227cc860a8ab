"""The figures that people look for in a run folder: results, precision and recall, confusion, predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...drawing.instances import contact_sheet, save_picture
from ...files import write_atomically
from ..analysis.findings import TaskAnalysis
from ..content import TASKS, Report, RunContent
from ..wording import encodable
from .examples import choose, draw
from .plots import (
    Points,
    curves_of,
    draw_confusion,
    draw_curve,
    mean_precision,
    scalar_title,
    thinned,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

RESULTS = "results.png"
CONFUSION = "confusion_matrix.png"
PREDICTIONS = "predictions_beside_labels.jpg"
NUM_IMAGES = 8  # on the sheet of predictions
MOST_NAMES = 40  # rows of a confusion matrix that have names beside them
MOST_NUMBERS = 16  # rows of one that has numbers in it

_COLUMNS = 4  # panels of the results side by side


def recall_name(task: str) -> str:
    """Of the picture of precision against recall: "pr_curves_box.png"."""
    return f"pr_curves_{TASKS[task]}.png"


def write_run_files(report: Report, run: RunContent) -> Iterator[Path]:
    """Write into a run's folder each picture for which the run has what it takes.

    `RESULTS` holds AP, the losses and the learning rate; `recall_name` and `CONFUSION` are of the last
    evaluation; `PREDICTIONS` shows random test images, the same for all runs of one seed.

    Yields:
        Each file, once it is written.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(run.folder)
    for name, (inches, draw_into) in _figures(run).items():
        _save(folder / name, inches, draw_into)
        yield folder / name
    sheet = _predictions(report, run)
    if sheet is not None:
        save_picture(folder / PREDICTIONS, sheet)
        yield folder / PREDICTIONS


def _figures(run: RunContent) -> dict[str, tuple[tuple[float, float], Callable[[Figure], None]]]:
    """By file name the size in inches, and what draws it."""
    figures = {}
    if curves := curves_of(run):
        size = 3.4 * min(_COLUMNS, len(curves)), 2.6 * -(-len(curves) // _COLUMNS)
        figures[RESULTS] = size, lambda figure: _draw_results(figure, curves)
    for task, analysis in run.analyses.items():
        if analysis.precision:
            figures[recall_name(task)] = (6, 4.5), lambda f, a=analysis: _draw_recall(f, a)
    if run.analyses:
        analysis = next(run.analyses[task] for task in TASKS if task in run.analyses)
        figures[CONFUSION] = (8, 7.5), lambda figure: _draw_matrix(figure, analysis)
    return figures


def _save(path: Path, inches: tuple[float, float], draw_into: Callable[[Figure], None]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    # Names of classes are text, never formulas.
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=inches, layout="constrained")
        draw_into(figure)
        write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))


def _draw_results(figure: Figure, curves: Mapping[str, Points]) -> None:
    columns = min(_COLUMNS, len(curves))
    axes = figure.subplots(-(-len(curves) // columns), columns, squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    last = max(points[-1][0] for points in curves.values())
    for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
        draw_curve(axis, thinned(points)[0], last)
        axis.set_title(scalar_title(name))


def _draw_recall(figure: Figure, analysis: TaskAnalysis) -> None:
    import matplotlib

    axis = figure.subplots()
    thresholds = sorted(analysis.precision)
    colours = matplotlib.colormaps["viridis"]
    for rank, threshold in enumerate(thresholds):
        axis.plot(
            analysis.recalls,
            analysis.precision[threshold],
            color=colours(0.9 * rank / max(1, len(thresholds) - 1)),
            label=f"{threshold:.2f}: {mean_precision(analysis, threshold):.1f}",
        )
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", title="IoU: AP", fontsize=8)


def _draw_matrix(figure: Figure, analysis: TaskAnalysis) -> None:
    axis = figure.subplots()
    draw_confusion(axis, analysis.confusion)
    names = [*map(encodable, analysis.class_names), "background"]
    if len(names) <= MOST_NAMES:
        axis.set_xticks(range(len(names)), names, rotation=90)
        axis.set_yticks(range(len(names)), names)
    if len(names) <= MOST_NUMBERS:
        for row, counts in enumerate(analysis.confusion):
            for column, count in enumerate(counts):
                if count:
                    axis.text(column, row, count, ha="center", va="center", fontsize=8)


def _predictions(report: Report, run: RunContent) -> np.ndarray | None:
    """Random test images, each with its labels to the left of the detections; None if there are none."""
    alone = replace(report, runs=[run])
    examples = choose(alone, run.dataset, NUM_IMAGES)
    examples = [e for e in examples if any(group.kind == "random" for group in e.groups)]
    draw(alone, run.dataset, examples)
    pictures = [(e.file_name, picture) for e in examples for picture in e.pictures]
    if not pictures:
        return None
    captions = [f"{name}: {picture.title}" for name, picture in pictures]
    return contact_sheet([picture.pixels for _, picture in pictures], captions)
