"""The plots of a report as SVG: learning curves, precision against recall, error types, confusion."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ..analysis.findings import ERROR_TYPES, TaskAnalysis
from ..content import TASKS, RunContent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# A figure is drawn in stand-ins, which are replaced by what the page's CSS decides about, so that it is
# readable in dark and light. No colour map gives a colour as near to black as these.
INK = "#010101"
_RUN = "#0102{:02x}"

NUM_COLOURS = 8  # that the style sheet defines as --run-0 and so on
DASHES = ((None, None), (5, 2), (1.5, 1.5), (7, 2, 1.5, 2), (3, 1, 1, 1, 1, 1))
"""Line patterns in units of the line's width, so that runs can be told apart without colours."""

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


def run_colour(index: int) -> str:
    """The stand-in for the colour of a run, for matplotlib."""
    return _RUN.format(index % NUM_COLOURS)


def run_dashes(index: int) -> tuple[float | None, ...]:
    """The line pattern of a run, which is another than those of the four runs before it."""
    return DASHES[index % len(DASHES)]


@contextmanager
def figure_style() -> Iterator[None]:
    """How figures for a page are made and saved; names in them are text, never formulas."""
    import matplotlib

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "grid.alpha": 0.18,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
    }
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context({**style, **dict.fromkeys((*inked, "grid.color"), INK)}):
        yield


def to_svg(figure: Figure, *, name: str, description: str) -> str:
    """An <svg> element to stand in HTML; call it within `figure_style`.

    Args:
        name: letters and digits, another for each figure of the page: it makes the ids in it unique.
        description: what a screen reader says in place of the picture; any text.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # Words about matplotlib, and rules that would hold in the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        _adapt(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-label", description)
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _adapt(element: ElementTree.Element, name: str) -> None:
    """Make one element's ids unique, its colours the page's, and its numbers short."""
    attributes = element.attrib
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if _LINK in attributes:
        link = attributes.pop(_LINK)
        # The others are pictures, which lie within the link.
        attributes["href"] = f"#{name}-{link[1:]}" if link.startswith("#") else link
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{name}-")
    if "style" in attributes:
        attributes["style"] = _themed(attributes["style"])
    for key in ("d", "x", "y", "transform"):
        if key in attributes:
            attributes[key] = re.sub(r"-?\d+\.\d+", _rounded, attributes[key])


def _themed(style: str) -> str:
    for index in range(NUM_COLOURS):
        style = style.replace(run_colour(index), f"var(--run-{index})")
    style = style.replace(INK, "currentColor")
    return re.sub(r"(font: [^;']*?px) [^;]*", r"\1 system-ui, sans-serif", style)


def _rounded(match: re.Match) -> str:
    """To a hundredth of a point, which no eye sees."""
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


PANEL_INCHES = (3.5, 2.4)
MOST_POINTS = 400  # of a curve: more are averaged, since a panel has hardly more pixels
THRESHOLDS_TO_COMPARE = (0.5, 0.75)
FEW_POINTS = 15  # of a curve: fewer are marked
FAINTEST = 0.25  # opacity of the highest IoU threshold's curve
_MATRIX_BLUE = (0.18, 0.47, 0.9)

_APS = tuple(f"{task}/AP" for task in TASKS)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """An <svg> element with its title and a caption, both plain text."""

    title: str
    svg: str
    caption: str = ""


def curves_of(run: RunContent) -> dict[str, Points]:
    """The scalars of a run that are drawn: AP, the losses with their sum first, and the learning rate.

    AP before the first iteration, where it was measured, begins its curve.
    """
    known = {name: list(points) for name, points in run.curves.items() if len(points)}
    for name in _APS:
        before = run.metrics.get(f"start/{name}")
        if before is not None and name in known:
            known[name].insert(0, (0, before))
    return {name: known[name] for name in _ordered(known)}


def scalar_names(runs: Sequence[RunContent]) -> list[str]:
    """The scalars that any of the runs has, in the order of `curves_of`."""
    return _ordered({name for run in runs for name in curves_of(run)})


def _ordered(names: Collection[str]) -> list[str]:
    losses = sorted((n for n in names if "loss" in n), key=lambda n: (n != "total_loss", n))
    return [name for name in [*_APS, *losses, "lr"] if name in names]


def scalar_title(name: str) -> str:
    """In words where there are better ones than the log's own."""
    task, _, metric = name.partition("/")
    words = f"{TASKS[task]} {metric}" if task in TASKS else name
    return {"lr": "learning rate", "total_loss": "total loss"}.get(name, words)


def learning_curves(runs: Sequence[RunContent]) -> list[Plot]:
    """A panel for each scalar, with a curve for each run that has it."""
    plots, by_run = [], [curves_of(run) for run in runs]
    last = max((points[-1][0] for of in by_run for points in of.values()), default=0)
    for number, name in enumerate(scalar_names(runs)):
        curves = {i: thinned(of[name]) for i, of in enumerate(by_run) if name in of}
        title = scalar_title(name)
        ends = [
            f"{runs[i].name} from {_short(points[0][1])} to {_short(points[-1][1])} at iteration "
            f"{_short(points[-1][0])}"
            for i, (points, _) in curves.items()
        ]
        averaged = max(count for _, count in curves.values())
        plots.append(
            _panel(
                title,
                f"curve{number}",
                lambda axis, curves=curves, name=name: _draw_curves(axis, curves, name, last),
                f"{title} against iterations: {'; '.join(ends)}",
                f"Each point is the mean of up to {averaged} entries." if averaged > 1 else "",
            )
        )
    return plots


def thinned(points: Points) -> tuple[Points, int]:
    """At most `MOST_POINTS` points, each the mean of neighbours, and of how many at most."""
    count = math.ceil(len(points) / MOST_POINTS)
    if count <= 1:
        return points, 1
    groups = [points[start : start + count] for start in range(0, len(points), count)]
    means = [
        tuple(sum(values) / len(group) for values in zip(*group, strict=True)) for group in groups
    ]
    return means, count


def precision_recall(runs: Sequence[RunContent], task: str) -> list[Plot]:
    """Runs beside each other at two IoU thresholds, then each run at all of its thresholds."""
    analyses = {i: run.analyses[task] for i, run in enumerate(runs) if task in run.analyses}
    plots = []
    for threshold in THRESHOLDS_TO_COMPARE:
        curves = {
            i: (_pairs(analysis, threshold), 1)
            for i, analysis in analyses.items()
            if threshold in analysis.precision
        }
        if len(analyses) > 1 and curves:
            plots.append(
                _panel(
                    f"IoU {threshold:.2f}, all runs",
                    f"pr{task}{round(100 * threshold)}",
                    lambda axis, curves=curves: _draw_recall(axis, curves),
                    f"precision against recall at IoU {threshold:.2f} of "
                    + ", ".join(runs[i].name for i in curves),
                )
            )
    for i, analysis in analyses.items():
        thresholds = sorted(analysis.precision)
        if not thresholds:
            continue
        means = ", ".join(f"{mean_precision(analysis, t):.1f} at {t:.2f}" for t in thresholds)
        plots.append(
            _panel(
                runs[i].name if len(analyses) > 1 else "Every IoU threshold",
                f"pr{task}run{i}",
                lambda axis, i=i, analysis=analysis: _draw_thresholds(axis, i, analysis),
                f"precision against recall of {runs[i].name} by IoU threshold; AP is {means}",
                f"From IoU {thresholds[0]:.2f} (strongest) to {thresholds[-1]:.2f} (faintest).",
            )
        )
    return plots


def mean_precision(analysis: TaskAnalysis, threshold: float) -> float:
    """AP at one IoU threshold in percent: the mean precision over the recalls."""
    precision = analysis.precision[threshold]
    return 100 * sum(precision) / len(precision) if len(precision) else math.nan


def error_gains(runs: Sequence[RunContent], task: str) -> Plot | None:
    """What mending each type of error gains, a bar for each run."""
    analyses = {i: run.analyses[task] for i, run in enumerate(runs) if task in run.analyses}
    if not any(analysis.errors for analysis in analyses.values()):
        return None
    words = [
        f"{runs[i].name}: "
        + ", ".join(f"{kind} {e.gain:.1f}" for kind in ERROR_TYPES if (e := a.errors.get(kind)))
        for i, a in analyses.items()
    ]
    return _panel(
        "Gain in TIDE’s AP50 from mending each type",
        f"errors{task}",
        lambda axis: _draw_gains(axis, analyses),
        f"points of TIDE’s AP50 gained by mending each type of error, {'; '.join(words)}",
        inches=(7, 2.4),
    )


def confusion_picture(analysis: TaskAnalysis, name: str, description: str) -> str:
    """The matrix as an <svg>, rows normalised, for more classes than a table can show."""
    return _panel(
        "",
        name,
        lambda axis: draw_confusion(axis, analysis.confusion),
        description,
        inches=(6, 6),
    ).svg


def draw_confusion(axis: Axes, confusion: Sequence[Sequence[int]]) -> None:
    """Fill an axis with a confusion matrix, a cell's opacity its share of the row.

    A blue that is seen on white and on black: pixels, unlike lines, do not follow the page's colours.
    """
    import numpy as np

    counts = np.asarray(confusion, dtype=float)
    pixels = np.empty((*counts.shape, 4))
    pixels[..., :3] = _MATRIX_BLUE
    # What is there at all is to be seen.
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pixels[..., 3] = np.where(counts > 0, np.maximum(share, 0.1), 0)
    axis.imshow(pixels, interpolation="none")
    axis.set(xlabel="what was found", ylabel="what is there")
    axis.spines[["top", "right"]].set_visible(True)


def _panel(
    title: str,
    name: str,
    draw: Callable[[Axes], None],
    description: str,
    caption: str = "",
    inches: tuple[float, float] = PANEL_INCHES,
) -> Plot:
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.subplots())
        return Plot(title, to_svg(figure, name=name, description=description), caption)


def _draw_curves(
    axis: Axes, curves: Mapping[int, tuple[Points, int]], name: str, last: float
) -> None:
    for index, (points, _) in curves.items():
        style = {"color": run_colour(index), "dashes": run_dashes(index)}
        draw_curve(axis, points, last, **style)
    if name == "lr":
        axis.ticklabel_format(axis="y", scilimits=(-2, 3))


def draw_curve(axis: Axes, points: Points, last: float, **style: Any) -> None:
    """Draw a scalar against the iterations of a run from 0 to `last`; few points are marked."""
    marker = "o" if len(points) < FEW_POINTS else None
    axis.plot(*zip(*points, strict=True), marker=marker, markersize=3, **style)
    axis.set(xlabel="iteration", xlim=(0, 1.03 * max(last, 1)))
    highest = max((value for line in axis.get_lines() for value in line.get_ydata()), default=0)
    axis.set_ylim(0, 1.08 * highest if highest > 0 else 1)
    axis.grid(True)


def _draw_recall(axis: Axes, curves: dict[int, tuple[Points, int]]) -> None:
    for index, (points, _) in curves.items():
        pairs = zip(*points, strict=True)
        axis.plot(*pairs, color=run_colour(index), dashes=run_dashes(index))
    _as_recall(axis)


def _draw_thresholds(axis: Axes, index: int, analysis: TaskAnalysis) -> None:
    thresholds = sorted(analysis.precision)
    for rank, threshold in enumerate(thresholds):
        alpha = 1 - (1 - FAINTEST) * rank / max(1, len(thresholds) - 1)
        points = zip(*_pairs(analysis, threshold), strict=True)
        axis.plot(*points, color=run_colour(index), alpha=alpha, linewidth=1.3)
    _as_recall(axis)


def _as_recall(axis: Axes) -> None:
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.grid()


def _draw_gains(axis: Axes, analyses: dict[int, TaskAnalysis]) -> None:
    width = 0.8 / len(analyses)
    for rank, (index, analysis) in enumerate(analyses.items()):
        gains = [analysis.errors[t].gain if t in analysis.errors else 0 for t in ERROR_TYPES]
        places = [x - 0.4 + (rank + 0.5) * width for x in range(len(gains))]
        bars = axis.bar(places, gains, width * 0.9, color=run_colour(index))
        axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axis.set_xticks(range(len(ERROR_TYPES)), [_broken(words) for words in ERROR_TYPES.values()])
    axis.tick_params(axis="x", length=0)
    axis.set_ylabel("points of AP50")
    axis.grid(axis="y")
    axis.set_axisbelow(True)


def _broken(words: str) -> str:
    """On two lines where it is long."""
    return words.replace(" and ", "\nand ")


def _pairs(analysis: TaskAnalysis, threshold: float) -> Points:
    return list(zip(analysis.recalls, analysis.precision[threshold], strict=True))


def _short(value: float) -> str:
    return f"{value:.4g}"
