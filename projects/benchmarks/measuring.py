"""Measuring one row: both sides in turn, in one process, and whether their results agree.

    python -m projects.benchmarks.measuring NAME FOLDER --repeats 5 --report FD [--small]

does it in a process of its own, as benchmark.py does for every row, so that no row finds the memory, the
threads or the caches that another one left. It writes a JSON object a line to the descriptor FD:
{"step": ...} for each step begun, and at last {"result": ...}.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .row import Comparison, Disagreement, Row, all_rows

MET, MUST_MET, SHORT, NO_GOAL = "met", "must met", "falls short", "no goal"
DIFFERENT, FAILED, NOT_RUN = "results differ", "failed", "not run"
BAD = (DIFFERENT, FAILED)
"""Verdicts with which a benchmark fails; a row that falls short is stated, and no failure."""


def measure(
    row: Row,
    folder: Path,
    *,
    repeats: int,
    small: bool = False,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """The row's result, ready for JSON: "verdict", "reason" where there are no numbers, or the numbers.

    Unless it is small or long, one untimed run of each side comes first. Its results are compared, and those
    of the last repeat. From repeat to repeat the sides change places, so that a drift of the machine's speed
    falls on both.
    """
    reason = row.needs() if row.needs else None
    if reason:
        return {"verdict": NOT_RUN, "reason": reason}
    try:
        on_step("inputs")
        comparison = row.prepare(folder, small)
        values = _measure(row, comparison, repeats, on_step, warm_up=not (row.long or small))
        limit = comparison.limit() if comparison.limit else None
        return {
            "verdict": judge(row, values),
            "opponent": comparison.opponent,
            "ratio": ratio(values),
            **values,
            "limit": limit,
            "notes": comparison.notes(),
        }
    except Disagreement as error:
        return {"verdict": DIFFERENT, "reason": str(error) or "no details"}
    except Exception as error:
        traceback.print_exc()
        return {"verdict": FAILED, "reason": f"{type(error).__name__}: {error}"}


def ratio(values: dict[str, list[float]]) -> float:
    """Ours to stock's, of the medians."""
    return statistics.median(values["ours"]) / statistics.median(values["stock"])


def judge(row: Row, values: dict[str, list[float]]) -> str:
    """What the row's goal and bound say of its values."""
    reached = statistics.median(values["ours"]) if row.absolute else ratio(values)
    if row.goal is None and row.must is None:
        return NO_GOAL
    if row.goal is not None and reached <= row.goal:
        return MET
    return MUST_MET if row.must is not None and reached <= row.must else SHORT


def _measure(
    row: Row,
    comparison: Comparison,
    repeats: int,
    on_step: Callable[[str], None],
    *,
    warm_up: bool,
) -> dict[str, list[float]]:
    sides = {"stock": comparison.stock, "ours": comparison.ours}
    values: dict[str, list[float]] = {name: [] for name in sides}
    if row.long:
        repeats = 1
    if warm_up:
        on_step("warm-up")
        _compare(comparison, {name: _timed(sides[name], comparison)[0] for name in sides})
    for repeat in range(repeats):
        results = {}
        for name in list(sides) if repeat % 2 == 0 else reversed(sides):
            on_step(f"{repeat + 1} of {repeats}: {name}")
            results[name], value = _timed(sides[name], comparison)
            values[name].append(value)
            if repeat < repeats - 1:
                del results[name]
    on_step("comparing")
    _compare(comparison, results)
    return values


def _timed(side: Callable[[], Any], comparison: Comparison) -> tuple[Any, float]:
    """A side's result and its value: what it measured itself, or its seconds."""
    gc.collect()  # what other runs left is not this one's to clear away
    started = time.perf_counter()
    result = side()
    seconds = time.perf_counter() - started
    return result if comparison.measured else (result, seconds)


def _compare(comparison: Comparison, results: dict[str, Any]) -> None:
    comparison.check(results["stock"], results["ours"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, required=True)
    parser.add_argument("--report", type=int, required=True, metavar="FD")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(argv)
    (row,) = (row for row in all_rows() if row.name == options.name)
    with os.fdopen(options.report, "w", buffering=1) as report:

        def tell(**event: Any) -> None:
            report.write(json.dumps(event) + "\n")

        result = measure(
            row,
            options.folder,
            repeats=options.repeats,
            small=options.small,
            on_step=lambda step: tell(step=step),
        )
        tell(result=result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
