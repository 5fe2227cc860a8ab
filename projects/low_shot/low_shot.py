"""COCO with 1, 2, 5 and 10 % of its labels, five folds each, in one table. Goes on where it stopped.

Every run is a command that can be typed by itself; it stands in the CSV beside its result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: the projects are imported from the checkout.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from projects.low_shot.lists import FOLDS, SHARES, name_of
from ssl_backbones.errors import InputError, run_command
from ssl_backbones.fidelity.protocols import protocols
from ssl_backbones.studies.processes import Outcome, Step, alone_in, run_steps

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIGS = Path("projects/low_shot/configs")

_SETTINGS = "study.json"
_LENGTH = "train.max_iter"

PROTOCOL = protocols()["low_shot_1"]
"""All shares have its length and its time."""


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


class LowShot:
    """The runs that were asked for, and the rows of those that have ended."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.folder = arguments.output.resolve()
        self.csv = self.folder / "runs.csv"
        self.weights = _weights(arguments.weights)
        # The runs start in the checkout, from where a relative path would be another one.
        self.datasets = CHECKOUT / "datasets"
        self.variables = {}
        if "DETECTRON2_DATASETS" in os.environ:
            self.datasets = Path(os.environ["DETECTRON2_DATASETS"]).absolute()
            self.variables["DETECTRON2_DATASETS"] = str(self.datasets)
        # Fold by fold: whoever stops early has all shares, of fewer folds.
        wanted = ((share, fold) for fold in arguments.folds for share in arguments.shares)
        self.runs = {name_of(share, fold): (share, fold) for share, fold in wanted}
        self.rows: dict[str, dict[str, str]] = {}
        self.failed: list[str] = []

    @property
    def missing(self) -> list[str]:
        from ssl_backbones.studies.protocol_runs import DONE

        return [name for name in self.runs if self.rows.get(name, {}).get("status") != DONE]

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
        return int(given[-1].partition("=")[2]) if given else PROTOCOL.iterations

    def read(self) -> None:
        """Read the rows of before.

        Raises:
            InputError: they are of a study with other settings, or cannot be read.
        """
        from projects.low_shot.results import COLUMNS
        from projects.records import check_settings, read_rows

        settings = {"weights": self.weights, "configs": str(self.arguments.configs)}
        settings["overrides"] = self.arguments.opts
        check_settings(self.folder / _SETTINGS, settings)
        self.rows = read_rows(self.csv, COLUMNS)

    def run(self) -> None:
        """Make the lists unless they are there, then the missing runs."""
        from projects.low_shot.lists import write_lists

        self.read()
        write_lists(self.datasets)
        steps = [self.step(name) for name in self.missing]
        if steps:
            print(
                f"== {len(steps)} runs, such as\n$ {steps[0].command(self.variables)}", flush=True
            )
        run_steps(
            steps,
            folder=CHECKOUT,
            jobs=self.arguments.jobs,
            logs=self.folder / "logs",
            variables=self.variables,
            on_end=self._record,
        )

    def _record(self, step: Step, outcome: Outcome) -> None:
        """The run's row, written to the CSV, and the tables that follow from all rows."""
        from projects.low_shot.results import COLUMNS, results_of, row_of
        from projects.records import write_rows
        from ssl_backbones.studies.protocol_runs import DONE

        share, fold = self.runs[step.name]
        status = f"exit status {outcome.status}: {outcome.last_line()}" if outcome.status else DONE
        command = step.command(self.variables)
        row = row_of(step.name, share, fold, command, status, outcome.seconds)
        if not outcome.status:
            try:
                row |= results_of(self.folder / step.name, self.datasets, share, fold)
            except InputError as error:  # stops no other run
                row["status"] = f"no result: {error}"
        if row["status"] != DONE:
            self.failed.append(step.name)
        self.rows[step.name] = row
        ordered = sorted(self.rows.values(), key=lambda row: (int(row["share"]), int(row["fold"])))
        write_rows(self.csv, COLUMNS, ordered)
        said = (
            f"box AP {float(row['bbox/AP'] or 0):.2f}" if row["status"] == DONE else row["status"]
        )
        print(f"   {step.name}: {said}, {row['seconds']} s", flush=True)

    def write_table(self) -> str:
        from projects.low_shot.results import as_json, as_markdown
        from ssl_backbones.files import write_atomically

        rows = sorted(self.rows.values(), key=lambda row: (int(row["share"]), int(row["fold"])))
        table = as_markdown(rows, len(FOLDS))
        summary = json.dumps(as_json(rows, len(FOLDS)), indent=1, allow_nan=False) + "\n"
        for name, text in (("table.md", table), ("table.json", summary)):
            write_atomically(self.folder / name, lambda file, text=text: file.write(text.encode()))
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
    if (study.folder / _SETTINGS).exists():
        study.read()
    for name in study.missing:
        print(study.step(name).command(study.variables))
    done = len(study.runs) - len(study.missing)
    if done:
        print(f"\n{done} of {len(study.runs)} runs are done")
    hours = study.iterations * PROTOCOL.seconds / 3600
    print(
        f"\n{len(study.missing)} runs of {study.iterations:,} iterations, each about "
        f"{hours:.1f} hours on 8 V100 GPUs (a stock Mask R-CNN R50-FPN there: Detectron2's MODEL_ZOO.md), "
        f"all {len(study.missing) * hours:.0f}\n"
        "next: the same without --plan"
    )


def run(arguments: argparse.Namespace) -> int:
    check_arguments(arguments)
    study = LowShot(arguments)
    if arguments.plan:
        show_plan(study)
        return 0
    with alone_in(study.folder):
        study.run()
        table = study.write_table()
    done = len(study.runs) - len(study.missing)
    print(
        f"\n{table}\n{done} of {len(study.runs)} runs are done\n"
        f"table: {study.folder / 'table.md'}\nruns: {study.csv}"
    )
    if study.failed:
        failed = ", ".join(study.failed)
        print(f"error: failed: {failed}; see {study.folder / 'logs'}", file=sys.stderr)
    return 1 if study.failed else 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run_command(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
