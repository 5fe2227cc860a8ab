"""Detectron2's metrics in files: JSON for programs, a table by class for people."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping

from ..files import write_atomically
from ..tables import Table

Results = Mapping[str, Mapping[str, float]]

TASKS = {"bbox": "box", "segm": "mask"}
"""The tasks of COCO that every report has, and what people call them."""

_BY_CLASS = "AP-"
"""How Detectron2 begins the name of a class's average precision."""


def write_metrics(
    results: Results, path: str, dataset: str = "", facts: Mapping[str, str | int] | None = None
) -> None:
    """Write Detectron2's results as JSON: per task the COCO numbers, and AP by class below "per_class".

    Args:
        facts: what else is told of the evaluation, beside "dataset".
    """
    content: dict = {"dataset": dataset, **(facts or {})}
    for task, metrics in results.items():
        numbers = {name: _or_none(value) for name, value in metrics.items()}
        content[task] = {
            name: value for name, value in numbers.items() if not name.startswith(_BY_CLASS)
        }
        content[task]["per_class"] = {
            name.removeprefix(_BY_CLASS): value
            for name, value in numbers.items()
            if name.startswith(_BY_CLASS)
        }
    _write(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_metrics(path: str) -> tuple[dict[str, dict[str, float]], dict[str, str | int]]:
    """The results and the facts that `write_metrics` wrote, to the last bit.

    Raises:
        OSError, ValueError: there is no such file, or it is none of ours.
    """
    with open(path, "rb") as file:
        content = json.load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no metrics")
    tasks = {k: v for k, v in content.items() if isinstance(v, dict) and "per_class" in v}
    facts = {k: v for k, v in content.items() if k not in tasks}
    return {task: _flat(metrics) for task, metrics in tasks.items()}, facts


def write_classes(results: Results, path: str) -> None:
    """Write AP in percent by class as CSV: a row a class, a column a task; empty where there is no object."""
    by_task = {task: _by_class(metrics) for task, metrics in results.items()}
    by_task = {task: classes for task, classes in by_task.items() if classes}
    names = list(dict.fromkeys(name for classes in by_task.values() for name in classes))
    rows = []
    for name in names:
        values = [_or_none(classes.get(name, math.nan)) for classes in by_task.values()]
        rows.append([name, *("" if v is None else f"{v:.3f}" for v in values)])
    _write(path, Table("", ["class", *(f"{task}/AP" for task in by_task)], rows).format_csv())


def metric_name(metric: str) -> str:
    """ "bbox/AP50" as people say it: "box AP50"."""
    task, _, number = metric.partition("/")
    return f"{TASKS.get(task, 'keypoint' if task == 'keypoints' else task)} {number}"


def flatten(results: Results) -> dict[str, float]:
    """{"bbox": {"AP": 1.0}} as {"bbox/AP": 1.0}, all numbers."""
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{rest}": number for rest, number in flatten(value).items()}
        else:
            flat[name] = float(value)
    return flat


def _flat(metrics: Mapping) -> dict[str, float]:
    classes = {f"{_BY_CLASS}{name}": value for name, value in metrics["per_class"].items()}
    numbers = {name: value for name, value in metrics.items() if name != "per_class"} | classes
    return {name: math.nan if value is None else value for name, value in numbers.items()}


def _by_class(metrics: Mapping[str, float]) -> dict[str, float]:
    return {k.removeprefix(_BY_CLASS): v for k, v in metrics.items() if k.startswith(_BY_CLASS)}


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
