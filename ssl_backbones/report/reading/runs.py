"""What is in a run folder, read in such a way that nothing missing or damaged ends the reading."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..content import RunContent
from ..wording import all_encodable, encodable

Curves = dict[str, list[tuple[int, float]]]

SCALARS = "metrics.json"
"""In the run folder: a line an entry, as Detectron2's JSONWriter writes it."""

_EVALUATION = "inference"
_SUBSET = "inference_subset"
_START = "inference_start"
_DETECTIONS = "coco_instances_results.json"
_RECORD = {
    "command_line": list,
    "fingerprint": str,
    "recipe": dict,
    "weights": dict,
    "environment": dict,
    "git": dict,
    "starts": list,
}
"""What run.json holds, beside the seed."""


def read_run(folder: str | os.PathLike) -> RunContent:
    """What is in a run folder; its `problems` say what is not, and what cannot be read.

    `metrics` are of the folder `inference`, or else of another evaluation, which `problems` then name; those
    of further evaluations have their folder before their name, as in "ema/bbox/AP" of `inference_ema` and
    "start/bbox/AP" of `inference_start`.

    Raises:
        InputError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder of a run")
    run = RunContent(name=Path(os.path.abspath(folder)).name, folder=str(folder))
    run.record = _read_record(folder, run.problems)
    run.config = _read_config(folder, run.problems)
    run.curves, problems = read_scalars(folder / SCALARS)
    run.problems += problems
    run.training_pictures = _training_pictures(folder)
    run.evaluation = _read_evaluations(folder, run)
    where = folder / (run.evaluation or _EVALUATION)
    run.detections = _read_detections(where / _DETECTIONS, run.problems)
    _compare_with_schedule(run)
    return run


def short_names(folders: Sequence[str | os.PathLike]) -> list[str]:
    """For each folder the shortest end of its path that no other has, numbered where it is given twice."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    names: list[str] = []
    for own in parts:
        others = [other for other in parts if other != own]
        length = next(
            (n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)),
            len(own),
        )
        name = os.path.join(*own[-length:])
        times = sum(other == own for other in parts[: len(names)])
        names.append(f"{name} ({times + 1})" if times else name)
    return names


def read_scalars(path: str | os.PathLike) -> tuple[Curves, list[str]]:
    """By name of a scalar its points (iteration, value), and sentences on what cannot be read.

    Detectron2's JSONWriter writes the iterations that have come together in any order, each scalar once. A
    run that was resumed, or begun anew in the same folder, appends: an entry that goes back and repeats a
    scalar begins it, and what stands before counts no more from its iteration on. Values that are no finite
    number are left out.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        return {}, [f"There are no learning curves: {path.name}: {error.strerror}."]
    entries: dict[int, dict[str, Any]] = {}
    newest: dict[str, int] = {}
    damaged = 0
    for line in filter(None, lines):
        entry = _entry(line)
        if entry is None:
            damaged += 1
            continue
        iteration = entry.pop("iteration")
        names = [name for name, value in entry.items() if _is_number(value)]
        goes_back = iteration < max(newest.values(), default=-1)
        if goes_back and any(newest.get(name, -1) >= iteration for name in names):
            entries = {i: e for i, e in entries.items() if i < iteration}
            newest = _newest(entries)
        entries[iteration] = {**entries.get(iteration, {}), **entry}
        newest |= {name: max(iteration, newest.get(name, -1)) for name in names}
    problems = []
    if damaged:
        problems.append(
            f"{damaged} of {len(lines)} lines of {path.name} are damaged, and left out."
        )
    elif not entries:
        problems.append(f"There are no learning curves: {path.name} is empty.")
    return _curves(entries, problems), problems


def _newest(entries: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """By name of a scalar its last iteration."""
    found: dict[str, int] = {}
    for iteration, entry in entries.items():
        for name, value in entry.items():
            if _is_number(value):
                found[name] = max(iteration, found.get(name, -1))
    return found


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    iteration = entry.get("iteration") if isinstance(entry, dict) else None
    return entry if isinstance(iteration, int) and not isinstance(iteration, bool) else None


def _curves(entries: Mapping[int, Mapping[str, Any]], problems: list[str]) -> Curves:
    curves: Curves = defaultdict(list)
    broken: dict[str, int] = {}
    for iteration, entry in sorted(entries.items()):
        for name, value in entry.items():
            if not _is_number(value):
                continue
            if is_finite(value):
                curves[encodable(name)].append((iteration, value))
            elif "loss" in name:
                broken.setdefault(encodable(name), iteration)
    problems += [f"{name} is not finite at iteration {i}." for name, i in broken.items()]
    return dict(curves)


def _read_record(folder: Path, problems: list[str]) -> dict[str, Any]:
    from ...engine.record import NAME, read

    try:
        record = all_encodable(read(folder))
    except InputError as error:
        problems.append(f"What was run is not known: {error}.")
        return {}
    except RecursionError:
        problems.append(f"What was run is not known: {NAME} is nested too deeply.")
        return {}
    odd = [name for name, kind in _RECORD.items() if not isinstance(record.get(name), kind)]
    if not all(isinstance(start, dict) for start in record["starts"]):
        odd.append("starts")
    if odd:
        problems.append(f"{NAME} is damaged: it has no usable {', '.join(odd)}.")
    record |= {name: _RECORD[name]() for name in odd}
    problems += [
        f"It was resumed at iteration {start.get('iteration')} with other values of "
        f"{', '.join(changed_fields(start))}."
        for start in record["starts"]
        if start.get("changed")
    ]
    return record


def changed_fields(start: Mapping[str, Any]) -> list[str]:
    """The fields in which a run went on otherwise than it had begun, of an entry of run.json's `starts`."""
    changes = start.get("changed")
    changes = changes if isinstance(changes, list) else []
    return [str(change[0]) for change in changes if isinstance(change, list) and change]


def _read_config(folder: Path, problems: list[str]) -> str:
    try:
        return (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        problems.append(f"There is no config: config.yaml: {error.strerror}.")
        return ""


def _training_pictures(folder: Path) -> list[str]:
    """What the trainer drew of its first batches, and tools/browse_data.py of its data."""
    found = [*sorted(folder.glob("training_batch_*.jpg")), folder / "browse_data" / "overview.png"]
    return [str(path.relative_to(folder)) for path in found if path.is_file()]


def _read_evaluations(folder: Path, run: RunContent) -> str:
    """Fill in dataset, facts and metrics; gives the name of the evaluation that they are of, or ""."""
    evaluations = {
        path.parent.name: path for path in sorted(folder.glob(f"{_EVALUATION}*/metrics.json"))
    }
    numbers, facts = {}, {}
    for name, path in evaluations.items():
        found = _read_numbers(path, run.problems)
        if found is not None:
            numbers[name], facts[name] = found
    known = [*(name for name in (_EVALUATION, _SUBSET) if name in numbers), *numbers]
    main = next((name for name in known if name != _START), _EVALUATION)
    if main not in evaluations:
        run.problems.append(f"There is no evaluation: {_EVALUATION}/metrics.json is missing.")
    elif main != _EVALUATION:
        run.problems.append(f"The numbers are of {main}/, for want of {_EVALUATION}/metrics.json.")
    run.metrics = {
        f"{'' if name == main else _prefix(name)}{metric}": value
        for name, metrics in sorted(numbers.items(), key=lambda item: item[0] != main)
        for metric, value in metrics.items()
    }
    run.facts = facts.get(main, {})
    run.dataset = str(run.facts.get("dataset") or "") or _dataset_of(run.record)
    return main if main in numbers else ""


def _read_numbers(
    path: Path, problems: list[str]
) -> tuple[dict[str, float | None], dict[str, Any]] | None:
    from ...evaluation.metrics import flatten, read_metrics

    try:
        results, facts = all_encodable(list(read_metrics(str(path))))
        numbers = flatten(results)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        problems.append(f"{path.parent.name}/{path.name} is damaged.")
        return None
    if not numbers:
        problems.append(f"{path.parent.name}/{path.name} holds no metrics.")
        return None
    return {n: value if math.isfinite(value) else None for n, value in numbers.items()}, facts


def _prefix(evaluation: str) -> str:
    """ "inference_ema_tta" as the trainer names its metrics: "ema/tta/"."""
    return evaluation.removeprefix(f"{_EVALUATION}_").replace("_", "/") + "/"


def _dataset_of(record: Mapping[str, Any]) -> str:
    """The test set that the run was started with, by the name in Detectron2's catalogs."""
    names = record.get("recipe", {}).get("dataloader.test.dataset.names", "")
    return names if isinstance(names, str) else ""


def _read_detections(path: Path, problems: list[str]) -> list[dict[str, Any]] | None:
    """COCO results, or None where not all of them can be read: part of them would be another result."""
    from ...fast.annotations.coco_json import collector_paused, parse_json

    name = f"{path.parent.name}/{path.name}"
    try:
        with collector_paused():
            detections = parse_json(path.read_bytes())
    except OSError as error:
        problems.append(f"There are no detections: {name}: {error.strerror}.")
        return None
    except (ValueError, RecursionError):
        problems.append(f"There are no detections: {name} is damaged.")
        return None
    if not isinstance(detections, list) or not all(map(_is_detection, detections)):
        problems.append(f"There are no detections: {name} does not hold COCO results.")
        return None
    return detections


def _is_detection(found: Any) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("image_id"), int | str):
        return False
    box, mask = found.get("bbox"), found.get("segmentation")
    is_box = isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))
    is_mask = mask is None or (isinstance(mask, dict) and {"size", "counts"} <= mask.keys())
    has_class = isinstance(found.get("category_id"), int)
    return is_box and is_mask and has_class and is_finite(found.get("score"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value from a JSON file is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # JSON has integers that no float is as large as
        return False


def _compare_with_schedule(run: RunContent) -> None:
    """Say of a run that it has not come to the end of its schedule."""
    if run.iterations is not None and run.iterations[0] < run.iterations[1]:
        done, planned = run.iterations
        run.problems.append(
            f"It did {done:,} of {planned:,} iterations: it was interrupted, ended early, or goes on."
        )
