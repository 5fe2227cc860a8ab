"""COCO with 1, 2, 5 and 10 % of its labels, five folds each, in one table. Goes on where it stopped.

Every run is a command that can be typed by itself; it stands in the CSV beside its result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.low_shot.lists import FOLDS, SHARES, name_of
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.evaluation.metrics import metric_name
from ssl_backbones.fidelity.protocols import Protocol, protocols
from ssl_backbones.studies.over_seeds import Spread
from ssl_backbones.studies.processes import Outcome, Step
from ssl_backbones.studies.runner import (
    DONE,
    METRICS,
    Record,
    Row,
    Study,
    results_of_run,
    write_text,
)
from ssl_backbones.tables import Table

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = Path("projects/low_shot/configs")

_LENGTH = "train.max_iter"

COLUMNS = (
    *("run", "share", "fold", "seed", "status", *METRICS, "iterations", "images", "list"),
    *("fingerprint", "weights", "seconds", "finished", "command"),
)
"""`list` is the SHA-256 of the JSON that was trained on; `weights` that of the pretrained file, its method
and branch."""

PUBLISHED = {1: 10.0, 5: 20.92, 10: 26.94}
"""Box AP of a supervised Faster R-CNN R50-FPN, mean of five folds of STAC's, from Soft Teacher's README
(microsoft/SoftTeacher at commit 0d90d7c): another detector, other weights and augmentations, other folds."""


def protocol() -> Protocol:
    """All shares have its length and its time."""
    return protocols()["low_shot_1"]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=(
            "examples:\n"
            "  python projects/low_shot/low_shot.py --plan\n"
            "  python projects/low_shot/low_shot.py --weights my_method.pkl --num-gpus 8\n"
            "  one share alone:\n"
            "    python projects/low_shot/low_shot.py --shares 10 --num-gpus 8\n\n"
            "Exit status: 0 all runs are done, 1 a run failed, 2 bad usage, 130 interrupted: the same "
            "command goes on."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--weights",
        metavar="FILE",
        help="as train.init_checkpoint takes it (default: the config's)",
    )
    add("--shares", type=_some_of(SHARES), default=SHARES, metavar="PERCENT,...", help="1,2,5,10")
    add("--folds", type=_some_of(FOLDS), default=FOLDS, metavar="FOLD,...", help="0,1,2,3,4")
    add("--num-gpus", type=int, metavar="N", help="of each run")
    add(
        "--output",
        type=Path,
        default=Path("output/low_shot"),
        metavar="FOLDER",
        help="runs, CSV and table (default: output/low_shot)",
    )
    add("--plan", action="store_true", help="list the runs, say how long they take, and end")
    add("--jobs", type=int, default=1, metavar="N", help="runs at once (default: 1)")
    add(
        "--configs",
        type=Path,
        default=CONFIGS,
        metavar="FOLDER",
        help=f"holds a low_shot_SHARE.py for each share (default: {CONFIGS})",
    )
    add("opts", nargs="*", metavar="key=value", help="overrides of every run's config")
    return parser.parse_intermixed_args(argv)


def _some_of(known: Sequence[int]) -> Callable[[str], list[int]]:
    """Reads numbers with commas between them, which are among those that are known."""

    def read(text: str) -> list[int]:
        chosen = text.split(",")
        if not set(chosen) <= set(map(str, known)):
            raise argparse.ArgumentTypeError(f"{text!r}: give some of {','.join(map(str, known))}")
        return [number for number in known if str(number) in chosen]

    return read


class LowShot(Study):
    """The runs that were asked for, and the rows of those that have ended."""

    def __init__(self, arguments: argparse.Namespace):
        folder = arguments.output.resolve()
        # The runs start in the checkout, from where a relative path would be another one.
        self.datasets = CHECKOUT / "datasets"
        variables = {}
        if "DETECTRON2_DATASETS" in os.environ:
            self.datasets = Path(os.environ["DETECTRON2_DATASETS"]).absolute()
            variables["DETECTRON2_DATASETS"] = str(self.datasets)
        record = Record(folder / "runs.csv", COLUMNS)
        super().__init__(
            folder, record, "study.json", root=CHECKOUT, variables=variables, jobs=arguments.jobs
        )
        self.arguments = arguments
        self.weights = _weights(arguments.weights)
        # Fold by fold: whoever stops early has all shares, of fewer folds.
        wanted = ((share, fold) for fold in arguments.folds for share in arguments.shares)
        self.runs = {name_of(share, fold): (share, fold) for share, fold in wanted}

    def names(self) -> list[str]:
        return list(self.runs)

    def settings(self) -> dict[str, object]:
        settings = {"weights": self.weights, "configs": str(self.arguments.configs)}
        return settings | {"overrides": self.arguments.opts}

    def identity(self, name: str) -> dict[str, object]:
        share, fold = self.runs[name]
        return {"run": name, "share": share, "fold": fold, "seed": fold}

    def results(self, name: str) -> dict[str, object]:
        from projects.low_shot.lists import read_list
        from ssl_backbones.engine import record

        found = results_of_run(self.folder / name, record.read(self.folder / name))
        images, sha256 = read_list(self.datasets, *self.runs[name])
        return {**found, "images": images, "list": sha256}

    def told(self, name: str, row: Row, outcome: Outcome) -> str:
        ap = f"box AP {float(row['bbox/AP'] or 0):.2f}"
        return f"{name}: {ap if row['status'] == DONE else row['status']}, {row['seconds']} s"

    def place(self, row: Row) -> tuple[int, int]:
        return int(row["share"]), int(row["fold"])

    def step(self, name: str) -> Step:
        share, fold = self.runs[name]
        arguments = self.arguments
        gpus = [] if arguments.num_gpus is None else ["--num-gpus", str(arguments.num_gpus)]
        words = (
            "tools/train_net.py",
            *("--config-file", str(arguments.configs / f"low_shot_{share}.py"), "--resume", *gpus),
            *([] if self.weights is None else [f"train.init_checkpoint={self.weights}"]),
            f"train.output_dir={self.folder / name}",
            f"train.seed={fold}",
            f"dataloader.train.dataset.names=coco_low_shot_{name}_train",
            *arguments.opts,
        )
        return Step(name, words, self.folder / name / "inference" / "metrics.json")

    @property
    def iterations(self) -> int:
        """Of each run."""
        given = [word for word in self.arguments.opts if word.startswith(f"{_LENGTH}=")]
        return int(given[-1].partition("=")[2]) if given else protocol().iterations

    def go_on(self) -> str:
        """Make the lists unless they are there, then the missing runs; returns the table of all."""
        from projects.low_shot.lists import write_lists

        with self.at_work():
            write_lists(self.datasets)
            steps = [self.step(name) for name in self.missing()]
            if steps:
                command = steps[0].command(self.variables)
                print(f"== {len(steps)} runs, such as\n$ {command}", flush=True)
            self.run(steps)
            rows = list(self.rows.values())
            table = format_markdown(rows, len(FOLDS))
            summary = json.dumps(as_json(rows, len(FOLDS)), indent=1, allow_nan=False) + "\n"
            write_text(self.folder / "table.md", table)
            write_text(self.folder / "table.json", summary)
        return table


def _weights(given: str | None) -> str | None:
    """A file by its whole path, since the runs start in the checkout; a named weight as it is.

    Raises:
        InputError: there is no such file.
    """
    if given is None or "://" in given:
        return given
    if not Path(given).is_file():
        raise InputError(f"--weights {given}: there is no such file")
    return str(Path(given).resolve())


def check_arguments(arguments: argparse.Namespace) -> None:
    for share in arguments.shares:
        path = CHECKOUT / arguments.configs / f"low_shot_{share}.py"
        if not path.is_file():
            raise InputError(
                f"--configs {arguments.configs}: there is no low_shot_{share}.py in it"
            )
    for option, number in (("--jobs", arguments.jobs), ("--num-gpus", arguments.num_gpus)):
        if number is not None and number < 1:
            raise InputError(f"{option} {number}: give at least 1")
    for word in arguments.opts:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is no override: write key=value")
        if key == _LENGTH and not value.isdecimal():
            raise InputError(f"{word}: give a whole number of iterations")


def show_plan(study: LowShot) -> None:
    if study.settings_file.exists():
        study.read()
    missing = study.missing()
    for name in missing:
        print(study.step(name).command(study.variables))
    done = len(study.runs) - len(missing)
    if done:
        print(f"\n{done} of {len(study.runs)} runs are done")
    hours = study.iterations * protocol().seconds / 3600
    print(
        f"\n{len(missing)} runs of {study.iterations:,} iterations, each about "
        f"{hours:.1f} hours on 8 V100 GPUs (a stock Mask R-CNN R50-FPN there: Detectron2's MODEL_ZOO.md), "
        f"all {len(missing) * hours:.0f}\n"
        "next: the same without --plan"
    )


def run(arguments: argparse.Namespace) -> int:
    check_arguments(arguments)
    study = LowShot(arguments)
    if arguments.plan:
        show_plan(study)
        return 0
    table = study.go_on()
    done = len(study.runs) - len(study.missing())
    print(
        f"\n{table}\n{done} of {len(study.runs)} runs are done\n"
        f"table: {study.folder / 'table.md'}\nruns: {study.record.path}"
    )
    return study.tell_failures()


# The table


def number(row: Row, metric: str) -> float | None:
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
            values = [value for row in of_share if (value := number(row, metric)) is not None]
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
        and any(number(row, metric) is not None for metric in METRICS)
    ]


def _numbers(summary: Spread | None) -> dict[str, Any]:
    if summary is None:
        return {"mean": None, "deviation": None, "values": []}
    return {"mean": summary.mean, "deviation": summary.deviation, "values": summary.values}


def format_markdown(rows: Iterable[Row], num_folds: int) -> str:
    """Mean ± standard deviation over folds, each fold's value, and a published number to compare."""
    rows = list(rows)
    columns = ["COCO", "images", "folds", *map(metric_name, METRICS)]
    columns += ["box AP of each fold", "published, supervised*"]
    cells = [
        _cells(share, summaries, _with_values(rows, share), num_folds)
        for share, summaries in summarize(rows).items()
    ]
    lines = [Table("", columns, cells).format_markdown()]
    if len({row["weights"] for row in rows if row["status"] == DONE}) > 1:
        lines += ["", "**Not all runs started from the same weights**: see the CSV."]
    lines += [
        "",
        "Mean ± standard deviation (n - 1) over the folds that are done; seed = fold.",
        "*Faster R-CNN R50-FPN from supervised ImageNet weights, mean of five other folds: "
        "microsoft/SoftTeacher, README.md. Another recipe, here for scale.",
    ]
    return "\n".join(lines) + "\n"


def _cells(
    share: int, summaries: Mapping[str, Spread], done: Sequence[Row], num_folds: int
) -> list[str]:
    values = [number(row, "bbox/AP") for row in done]
    each = ", ".join("none" if value is None else f"{value:.2f}" for value in values)
    published = PUBLISHED.get(share)
    return [
        f"{share} %",
        "/".join(sorted({row["images"] for row in done})),
        f"{len(done)} of {num_folds}",
        *(summaries.get(metric, Spread([])).format(2) for metric in METRICS),
        each,
        "" if published is None else f"{published:g}",
    ]


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
