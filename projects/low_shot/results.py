"""What came of the runs: a row for each, and mean and deviation over folds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from projects.low_shot.lists import read_list
from ssl_backbones.evaluation.metrics import metric_name
from ssl_backbones.studies.over_seeds import Spread
from ssl_backbones.studies.protocol_runs import DONE
from ssl_backbones.tables import format_row

METRICS = tuple(f"{task}/{name}" for task in ("bbox", "segm") for name in ("AP", "AP50", "AP75"))
COLUMNS = (
    *("run", "share", "fold", "seed", "status", *METRICS, "iterations", "images", "list"),
    *("fingerprint", "weights", "seconds", "finished", "command"),
)
"""`list` is the SHA-256 of the JSON that was trained on; `weights` that of the pretrained file, its method
and branch."""

PUBLISHED = {1: 10.0, 5: 20.92, 10: 26.94}
"""Box AP of a supervised Faster R-CNN R50-FPN, mean of five folds of STAC's, from Soft Teacher's README
(microsoft/SoftTeacher at commit 0d90d7c): another detector, other weights and augmentations, other folds."""

Row = Mapping[str, str]


def row_of(
    name: str, share: int, fold: int, command: str, status: str, seconds: float
) -> dict[str, str]:
    """What every row says, of a run that failed as well."""
    return dict.fromkeys(COLUMNS, "") | {
        "run": name,
        "share": str(share),
        "fold": str(fold),
        "seed": str(fold),
        "status": status,
        "seconds": f"{seconds:.0f}",
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def results_of(run_folder: Path, datasets: Path, share: int, fold: int) -> dict[str, str]:
    """What the folder of a finished run adds.

    Raises:
        InputError: something in the folder is missing.
    """
    from ssl_backbones.engine import record
    from ssl_backbones.studies.initializations import read_average_precisions

    run = record.read(run_folder)
    numbers = read_average_precisions(run_folder)
    images, sha256 = read_list(datasets, share, fold)
    return {metric: repr(numbers[metric]) for metric in METRICS if metric in numbers} | {
        "iterations": str(run["recipe"].get("train.max_iter", "")),
        "images": str(images),
        "list": sha256,
        "fingerprint": run["fingerprint"],
        "weights": str(run["recipe"].get("weights", "")),
    }


def value_of(row: Row, metric: str) -> float | None:
    """None where there is none: a metric of COCO without an object of its kind is not a number."""
    value = float(row[metric] or "nan")
    return value if math.isfinite(value) else None


def summarize(rows: Iterable[Row]) -> dict[int, dict[str, Spread]]:
    """Share to metric to its summary, of the runs that are done."""
    found: dict[int, dict[str, Spread]] = {}
    done = [row for row in rows if row["status"] == DONE]
    for share in sorted({int(row["share"]) for row in done}):
        of_share = [row for row in done if int(row["share"]) == share]
        for metric in METRICS:
            values = [value for row in of_share if (value := value_of(row, metric)) is not None]
            if values:
                found.setdefault(share, {})[metric] = Spread(values)
    return found


def as_json(rows: Iterable[Row], num_folds: int) -> dict:
    """The table for programs: JSON's null where there is no value, of the folds that are done alone."""
    rows = [row for row in rows if row["status"] == DONE]
    return {
        str(share): {
            "folds": num_folds,
            "folds_done": len(_with_values(rows, share)),
            "fingerprints": [row["fingerprint"] for row in _with_values(rows, share)],
            "metrics": {metric: _numbers(summaries.get(metric)) for metric in METRICS},
        }
        for share, summaries in summarize(rows).items()
    }


def _with_values(rows: Iterable[Row], share: int) -> list[Row]:
    """The runs of a share that are done and measured something."""
    return [
        row
        for row in rows
        if (row["share"], row["status"]) == (str(share), DONE)
        and any(value_of(row, metric) is not None for metric in METRICS)
    ]


def _numbers(summary: Spread | None) -> dict[str, Any]:
    if summary is None:
        return {"mean": None, "deviation": None, "values": []}
    return {"mean": summary.mean, "deviation": summary.deviation, "values": summary.values}


def as_markdown(rows: Iterable[Row], num_folds: int) -> str:
    """Mean ± standard deviation over folds, each fold's value, and a published number to compare."""
    rows = list(rows)
    columns = ["COCO", "images", "folds", *map(metric_name, METRICS), "box AP of each fold"]
    columns.append("published, supervised*")
    lines = [
        format_row(columns),
        "|---" * (len(METRICS) + 5) + "|",
    ]
    for share, summaries in summarize(rows).items():
        lines.append(_line(share, summaries, _with_values(rows, share), num_folds))
    if len({row["weights"] for row in rows if row["status"] == DONE}) > 1:
        lines += ["", "**Not all runs started from the same weights**: see the CSV."]
    lines += [
        "",
        "Mean ± standard deviation (n - 1) over the folds that are done; seed = fold.",
        "*Faster R-CNN R50-FPN from supervised ImageNet weights, mean of five other folds: "
        "microsoft/SoftTeacher, README.md. Another recipe, here for scale.",
    ]
    return "\n".join(lines) + "\n"


def _line(share: int, summaries: Mapping[str, Spread], done: Sequence[Row], num_folds: int) -> str:
    values = [value_of(row, "bbox/AP") for row in done]
    each = ", ".join("none" if value is None else f"{value:.2f}" for value in values)
    published = PUBLISHED.get(share)
    cells = [
        f"{share} %",
        "/".join(sorted({row["images"] for row in done})),
        f"{len(done)} of {num_folds}",
        *(summaries.get(metric, Spread([])).shown(2) for metric in METRICS),
        each,
        "" if published is None else f"{published:g}",
    ]
    return format_row(cells)
