"""The runner of all studies, and their record of what ran: what is interrupted goes on where it stopped."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import write_atomically
from ..tables import Table
from .processes import Outcome, Step, alone_in, run_steps

DONE, STARTED = "done", "started"
"""A run's status; of one that went wrong it says what."""

METRICS = tuple(f"{task}/{name}" for task in ("bbox", "segm") for name in ("AP", "AP50", "AP75"))
"""Columns of a CSV."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """A file with a row for each run, by its name: what it is of, its status, and what came of it.

    Attributes:
        path: a CSV, whose first column is the name, or JSON.
        columns: of the CSV; () for JSON.
        results: what a row of JSON must have of a run that is done.
    """

    path: Path
    columns: tuple[str, ...] = ()
    results: frozenset[str] = frozenset()

    def read(self) -> dict[str, dict[str, Any]]:
        """The rows by name; {} where there is no file.

        Raises:
            InputError: the file is damaged, or is something else.
        """
        try:
            with open(self.path, encoding="utf-8", newline="") as file:
                return self._from_csv(file) if self.columns else self._from_json(file)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, KeyError, TypeError, csv.Error) as error:
            raise InputError(
                f"{self.path} is damaged: move it away, finished runs are read again"
            ) from error

    def _from_csv(self, file: io.TextIOBase) -> dict[str, dict[str, str]]:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != self.columns:
            raise InputError(f"{self.path} is not the record of this study: move it away")
        rows = {row[self.columns[0]]: row for row in table}
        if any(None in row or None in row.values() for row in rows.values()):
            raise ValueError("a row has not a cell for each column")
        return rows

    def _from_json(self, file: io.TextIOBase) -> dict[str, dict[str, Any]]:
        rows = json.load(file)
        for row in rows.values():
            if not {"status", *(self.results if row["status"] == DONE else ())} <= set(row):
                raise ValueError("it is something else")
        return rows

    def row(self, fields: Row) -> dict[str, Any]:
        """As it is read again: in a CSV every column has a word."""
        if not self.columns:
            return dict(fields)
        return {column: str(fields.get(column, "")) for column in self.columns}

    def write(self, rows: Mapping[str, Row]) -> None:
        if not self.columns:
            return write_text(self.path, _as_json(rows))
        table = Table.of_records("", rows.values(), self.columns)
        write_text(self.path, table.format_csv())


class Study:
    """Runs that were asked for, each a command in a process of its own, and the rows of those of before.

    A kind of study says which runs they are (`names`, `settings`), what a row has (`identity`, `results`) and
    what is told of it (`told`).

    Attributes:
        folder: of the runs, their logs, the record and the settings.
        settings_file: in that folder.
        root: where the commands run.
        variables: of their environment.
        jobs: how many run at once.
        places: variables of each of those, as `run_steps` takes them.
        rows: by the run's name.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        settings_file: str,
        *,
        root: Path,
        variables: Mapping[str, str] | None = None,
        jobs: int = 1,
    ):
        self.folder, self.record, self.root, self.jobs = folder, record, root, jobs
        self.settings_file = folder / settings_file
        self.variables = variables or {}
        self.places: Sequence[Mapping[str, str]] = ({},)
        self.rows: dict[str, dict[str, Any]] = {}

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def names(self) -> Sequence[str]:
        """The runs that were asked for, in the order in which they run."""
        raise NotImplementedError

    def settings(self) -> Mapping[str, Any]:
        """What all runs share, as JSON gives it back."""
        raise NotImplementedError

    def identity(self, name: str) -> Row:
        """What a row says of a run whatever comes of it."""
        raise NotImplementedError

    def results(self, name: str) -> Row:
        """What the folder of a finished run adds to its row; may raise anything."""
        raise NotImplementedError

    def told(self, name: str, row: Row, outcome: Outcome) -> str:
        """A line on a run that has ended."""
        raise NotImplementedError

    def place(self, row: Row) -> Any:
        """By what the rows are sorted; those of one place are as they came."""
        return 0

    def say(self, line: str) -> None:
        print(line, flush=True)

    def is_done(self, name: str) -> bool:
        return self.rows.get(name, {}).get("status") == DONE

    def missing(self) -> list[str]:
        return [name for name in self.names() if not self.is_done(name)]

    def failed(self) -> list[str]:
        """Once all have run: those whose row is not one of a run that is done."""
        return [name for name in self.missing() if name in self.rows]

    def read(self) -> None:
        """Read the rows of before; the first one in a folder writes down its settings.

        Raises:
            InputError: they are of a study with other settings, or cannot be read.
        """
        check_settings(self.settings_file, self.settings())
        self.rows = self.record.read()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be alone in the folder, with the rows as the last one there has left them.

        Raises:
            InputError: as `read`, or another one is at work there.
        """
        with alone_in(self.folder):
            self.read()
            yield

    def announce(self, title: str, steps: Sequence[Step], total: int | None = None) -> None:
        """Say which commands are about to run; of many alike, the first."""
        if steps:
            count = total or len(steps)
            print(f"\n== {title}" + (f": {count}, such as" if count > len(steps) else ""))
            for step in steps:
                print(f"$ {step.command(self.variables)}", flush=True)

    def prepare(self, title: str, steps: Sequence[Step]) -> None:
        """Do what all runs wait for.

        Raises:
            StepFailed: nothing that comes after can be done.
        """
        failed: list[str] = []

        def on_end(step: Step, outcome: Outcome) -> None:
            if outcome.status:
                failed.append(f"{step.name}: {outcome.last_line()} (all of it: {outcome.log})")
            else:
                self.say(f"   {step.name}: {outcome.seconds:.0f} s")

        self.announce(title, steps)
        self._do(steps, on_end)
        if failed:
            raise StepFailed("; ".join(failed))

    def run(self, steps: Sequence[Step]) -> None:
        """Do runs, each the step of its name. One that fails stops no other."""
        self._do(steps, self.ended)

    def ended(self, step: Step, outcome: Outcome) -> None:
        """Write the row of a run that has ended, and tell of it."""
        status, found = DONE, {}
        if outcome.status:
            status = f"exit status {outcome.status}: {outcome.last_line()}"
        else:
            try:
                found = self.results(step.name)
            except Exception as error:
                # The folder may hold anything, and the other runs have nothing to do with it.
                said = str(error) if isinstance(error, InputError) else repr(error)
                status = f"the result cannot be read: {said}"
        row = {"status": status, **found, **self.identity(step.name)}
        if self.record.columns:
            row |= {
                "seconds": f"{outcome.seconds:.0f}",
                "cpu_seconds": f"{outcome.cpu_seconds:.0f}",
                "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "command": step.command(self.variables),
            }
        self.keep(step.name, row)
        self.say(f"   {self.told(step.name, self.rows[step.name], outcome)}")

    def keep(self, name: str, row: Row) -> None:
        """Write a row."""
        self.rows[name] = self.record.row(row)
        self.rows = dict(sorted(self.rows.items(), key=lambda item: self.place(item[1])))
        self.record.write(self.rows)

    def tell_failures(self) -> int:
        """Name the runs that failed, and where to look; returns the exit status."""
        if failed := self.failed():
            print(f"error: failed: {', '.join(failed)}; see {self.logs}", file=sys.stderr)
        return 1 if failed else 0

    def _do(self, steps: Sequence[Step], on_end) -> None:
        run_steps(
            steps,
            folder=self.root,
            jobs=self.jobs,
            logs=self.logs,
            variables=self.variables,
            on_end=on_end,
            places=self.places,
        )


class StepFailed(Exception):
    """A command that all runs wait for ended badly; says which and why."""


def check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write what the whole study depends on, or refuse to go on with other settings than it began with.

    Raises:
        InputError: naming the first setting that differs.
    """
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict):
            raise ValueError("it is something else")
    except FileNotFoundError:
        return write_text(path, _as_json(settings))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: give another --output, or remove it") from error
    for name, value in settings.items():
        if before.get(name) != value:
            raise InputError(
                f"{path.parent} holds a study with {name}={before.get(name)} and this one has {value}: give "
                "the same, or another --output"
            )


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def read_average_precisions(run_folder: str | os.PathLike) -> dict[str, float]:
    """AP, AP50, ... of a run's last evaluation, in percent: "bbox/AP" and so on.

    An evaluation without a single detection has no numbers, and an AP of 0.

    Raises:
        InputError: the run has not ended with an evaluation.
    """
    from ..evaluation.metrics import flatten, read_metrics

    path = Path(run_folder) / "inference" / "metrics.json"
    try:
        metrics, _ = read_metrics(str(path))
        numbers = flatten(metrics)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read {path}: give the folder of a finished run") from error
    return {
        name: 0.0 if math.isnan(value) and name.endswith("/AP") else value
        for name, value in numbers.items()
    }


def results_of_run(run_folder: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """What a CSV says of a finished run: `METRICS`, iterations, fingerprint of the recipe, and weights.

    Args:
        run: the record of the run in its folder.

    Raises:
        InputError: something in the folder is missing.
    """
    numbers = read_average_precisions(run_folder)
    return {metric: repr(numbers[metric]) for metric in METRICS if metric in numbers} | {
        "iterations": str(run["recipe"].get("train.max_iter", "")),
        "fingerprint": run["fingerprint"],
        "weights": str(run["recipe"].get("weights", "")),
    }


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"
