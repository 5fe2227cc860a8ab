"""What can be said of each metric of a run: how sure it is, and whether it differs from the first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..analysis.findings import METRICS, Interval
from ..content import TASKS, RunContent, Verdict
from ..reading.published import RECIPES, why_not_comparable

if TYPE_CHECKING:
    from ..analysis.bootstrap import Resampled

HIGHER, LOWER, TIE, REFERENCE = "higher", "lower", "no difference shown", "the reference"
TOO_FEW_IMAGES, TOO_FEW_RESAMPLES = "too few images to say", "too few resamples to say"
COMPARED = (HIGHER, LOWER, TIE)

LEAST_IMAGES, LEAST_RESAMPLES = 30, 100
"""With fewer nothing is called higher or lower: an interval of 95 % is then not what its name says."""


def verdicts(
    run: RunContent,
    resampled: Mapping[str, Resampled],
    reasons: Mapping[str, str],
    *,
    images: int,
    resamples: int,
) -> dict[str, Verdict]:
    """By "bbox/AP" and so on, of each metric that the run has.

    Args:
        resampled: the bootstrap by task, as far as there are detections.
        reasons: by task why the run is not compared with the first; "" where it is.
        images: that it was tested on.
        resamples: of the bootstrap.
    """
    doubt = ""
    if images < LEAST_IMAGES:
        doubt = TOO_FEW_IMAGES
    elif resamples < LEAST_RESAMPLES:
        doubt = TOO_FEW_RESAMPLES
    found = {}
    for task in TASKS:
        for metric in METRICS:
            name = f"{task}/{metric}"
            if name in run.metrics:
                found[name] = _verdict(run, name, resampled.get(task), reasons[task], doubt)
    return found


def format_verdict(verdict: Verdict) -> str:
    """How a run compares with the first, or why it does not."""
    if verdict.word in (*COMPARED, REFERENCE, TOO_FEW_IMAGES, TOO_FEW_RESAMPLES):
        return verdict.word
    return f"not compared: {verdict.word}"


def _verdict(
    run: RunContent, name: str, resampled: Resampled | None, reason: str, doubt: str
) -> Verdict:
    metric = name.partition("/")[2]
    interval = difference = share = None
    if resampled is not None:
        interval = resampled.values[metric]
        if not reason:
            difference = resampled.differences[metric]
            share = resampled.shares_higher[metric]
    recipe = RECIPES.get(run.published_recipe)
    published = recipe.ap.get(name) if recipe else None
    return Verdict(
        value=run.metrics[name],
        interval=interval,
        difference=difference,
        share_higher=share,
        word=reason or ("no objects to find" if interval is None else _word(difference, doubt)),
        published=published,
        published_source="" if published is None else recipe.source,
        published_note="" if published is None else why_not_comparable(run),
    )


def _word(difference: Interval | None, doubt: str) -> str:
    """ "higher" or "lower" where the whole interval is on that side of 0, unless there is `doubt`."""
    if difference is None:
        return REFERENCE
    if doubt:
        return doubt
    if difference.low > 0:
        return HIGHER
    return LOWER if difference.high < 0 else TIE
