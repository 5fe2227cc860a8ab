"""The figure of a transfer study: AP against the budget of labels, a curve for each initialisation."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import InputError
from ..evaluation.metrics import metric_name
from ..files import write_atomically
from .initializations import Result, summarize
from .over_seeds import Spread

_PANEL_INCHES = (4.8, 4.0)
_APART = 1.03
_MARKERS = "osD^vP*X"


def draw_budget_curves(
    results: Sequence[Result], metrics: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw a panel for each protocol and metric: means, bands, and every seed as a point.

    The bands are Student's intervals of the mean over seeds (`Spread.interval`): they tell how far the mean
    would move with other seeds, not with other pretrainings or test images.

    Raises:
        InputError: a budget is no number, or `path` cannot be written.
    """
    from matplotlib.figure import Figure

    protocols = list(dict.fromkeys(result.protocol for result in results))
    arms = list(dict.fromkeys(result.arm for result in results))
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(protocols), height * len(metrics)), layout="constrained")
    axes = figure.subplots(len(metrics), len(protocols), squeeze=False, sharey="row", sharex=True)
    for row, metric in zip(axes, metrics, strict=True):
        summaries = summarize(results, metric)
        for axis, protocol in zip(row, protocols, strict=True):
            for arm in arms:
                # A little apart, so that points of equal budgets can be told from each other.
                shift = _APART ** (arms.index(arm) - (len(arms) - 1) / 2)
                points = [
                    (_number(budget) * shift, found[arm])
                    for (of, budget), found in summaries.items()
                    if of == protocol and arm in found
                ]
                if points:
                    _draw_arm(axis, points, arms.index(arm), arm)
            axis.set(title=protocol, xlabel="labelled scenes", xscale="log")
            axis.grid(alpha=0.3)
            ticks = sorted({_number(budget) for _, budget in summaries})
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        row[0].set_ylabel(f"{metric_name(metric)} (%)")
    curves = {line.get_label(): line for axis in axes.flat for line in axis.get_lines()}
    drawn = [arm for arm in arms if arm in curves]
    figure.legend([curves[arm] for arm in drawn], drawn, loc="outside lower center", ncols=6)
    for axis in axes.flat:
        axis.set_ylim(bottom=0)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=150))


def _draw_arm(axis, points: list[tuple[float, Spread]], index: int, arm: str) -> None:
    colour = f"C{index}"
    budgets = [budget for budget, _ in points]
    bands = [spread.interval() for _, spread in points]
    means = [spread.mean for _, spread in points]
    marker = _MARKERS[index % len(_MARKERS)]
    axis.plot(budgets, means, color=colour, marker=marker, markersize=5, label=arm)
    axis.fill_between(budgets, *zip(*bands, strict=True), color=colour, alpha=0.12, linewidth=0)
    # A band between two budgets is seen; at a single one it is a bar.
    axis.vlines(budgets, *zip(*bands, strict=True), color=colour, alpha=0.4, linewidth=1)
    for budget, spread in points:
        axis.plot([budget] * len(spread.values), spread.values, ".", color=colour, markersize=3)


def _number(budget: str) -> float:
    try:
        return float(budget)
    except ValueError as error:
        raise InputError(
            f"the budget {budget!r} is no number of images: a figure against it needs the CSV of a study"
        ) from error
