"""One checkpoint under several protocols, one run after another; goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..fidelity.protocols import Protocol
from ..files import write_atomically
from .processes import Outcome, Step, alone_in, run_steps
from .protocol_runs import (
    DONE,
    STARTED,
    Run,
    conversion_step,
    identity_of,
    preparation_step,
    result_of,
    run_step,
    runs_of,
)


@dataclass
class Evaluation:
    """What was asked for, and the results that are there.

    Attributes:
        checkpoint: a file of a pretraining, a converted one, or a name such as ssl://moco_v2_800ep.
        output: folder for the runs and the tables.
        seed: of the first run of each protocol.
        folds: at most, of protocols that have some.
        repeats: runs, with seeds of their own, of protocols that have none.
        flags: of tools/train_net.py, for every run.
        overrides: of every run's config.
        results: by the run's name, "status", what `identity_of` gives, and of a run that is done what
            `result_of` gives.
    """

    checkpoint: str
    protocols: Sequence[Protocol]
    output: Path
    seed: int
    folds: int
    repeats: int = 1
    flags: Sequence[str] = ()
    overrides: Sequence[str] = ()
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        for protocol in self.protocols:
            protocol.config_path()  # raises where it is not here
        _check_checkpoint(self.checkpoint)
        names = Counter(run.name for protocol in self.protocols for run in self.runs(protocol))
        if twice := [name for name, number in names.items() if number > 1]:
            raise InputError(f"two runs would be called {twice[0]}: rename one of the configs")
        self.results = _read(self.output / "runs.json")

    def runs(self, protocol: Protocol) -> list[Run]:
        return list(runs_of(protocol, seed=self.seed, folds=self.folds, repeats=self.repeats))

    def missing(self, protocol: Protocol) -> list[Run]:
        return [run for run in self.runs(protocol) if not self.is_done(run)]

    def is_done(self, run: Run) -> bool:
        return self.results.get(run.name, {}).get("status") == DONE

    def failed(self) -> list[str]:
        runs = (run for protocol in self.protocols for run in self.missing(protocol))
        return [run.name for run in runs if run.name in self.results]

    def step(self, run: Run) -> Step:
        return run_step(run, self.weights, self.output / run.name, self.flags, self.overrides)

    def preparations(self) -> list[Step]:
        """What makes the files that missing runs need, each once."""
        by_words = {p.preparation: p for p in self.protocols if p.preparation and self.missing(p)}
        return [preparation_step(protocol) for protocol in by_words.values()]

    def conversion(self) -> Step | None:
        """None where there is nothing to convert, or it is done; named weights are when they are fetched."""
        if self.weights == self.checkpoint or Path(self.weights).exists():
            return None
        return conversion_step(self.checkpoint, Path(self.weights))

    @property
    def weights(self) -> str:
        """What the runs start from."""
        if "://" in self.checkpoint or self._is_converted:
            return self.checkpoint
        return str(self.output / "backbone.pkl")

    @cached_property
    def _is_converted(self) -> bool:
        from ..conversion.reading import provenance_of, read_checkpoint

        return bool(provenance_of(read_checkpoint(self.checkpoint)))

    def check_results(self) -> None:
        """Refuse what has been run, wholly or in part, under a name that now means another config.

        Of whose folder is gone nothing is left to mix with: that is forgotten, and done again.

        Raises:
            InputError: another config had that name, or it has been edited.
        """
        for protocol in self.protocols:
            for run in self.runs(protocol):
                before = self.results.get(run.name)
                folder = self.output / run.name
                if before is None or (changed := self._changed(run, before)) is None:
                    continue
                if folder.exists():
                    raise InputError(
                        f"{folder} {changed}: give another --output, or remove that folder to do it again"
                    )
                del self.results[run.name]

    def _changed(self, run: Run, before: Mapping[str, Any]) -> str | None:
        now = identity_of(run, self.overrides)
        if before.get("config") != now["config"]:
            return f"is a run of {before.get('config')}, not of {now['config']}"
        if before.get("config_fingerprint") != now["config_fingerprint"]:
            return f"is a run of {now['config']} before that was edited"
        return None

    def run(self) -> None:
        """All that is missing. A run that fails stops no other.

        Raises:
            InputError: the folder holds the evaluation of something else, or another one is at work there.
            StepFailed: what all runs wait for went wrong.
        """
        with alone_in(self.output):
            # Another one may have been at work here until now.
            self.results = _read(self.output / "runs.json")
            self._check_settings()
            self.check_results()
            if step := self.conversion():
                outcome = self._do("conversion", step)
                if outcome.status:
                    raise StepFailed(
                        f"conversion: {outcome.last_line()} (all of it: {outcome.log})"
                    )
            for number, protocol in enumerate(self.protocols, 1):
                title = f"{protocol.name}, {number} of {len(self.protocols)}"
                missing = self.missing(protocol)
                if not missing:
                    print(f"\n== {title}: done before", flush=True)
                for run in missing:
                    self._begin(run)
                    self._record(run, self._do(title, self.step(run)))

    def _do(self, title: str, step: Step) -> Outcome:
        logs = self.output / "logs"
        print(f"\n== {title}\n$ {step.command({})}", flush=True)
        print(f"   log: {logs / step.name}.txt", flush=True)
        return do_step(step, logs)

    def _begin(self, run: Run) -> None:
        """Say what the run is of before it has a folder that another one could go on with."""
        self.results[run.name] = {"status": STARTED, **identity_of(run, self.overrides)}
        self._write()

    def _record(self, run: Run, outcome: Outcome) -> None:
        begun = self.results[run.name]
        identity = {name: begun[name] for name in ("config", "config_fingerprint")}
        if outcome.status:
            result = {"status": f"exit status {outcome.status}: {outcome.last_line()}"}
        else:
            result = self._result(run)
        self.results[run.name] = {**result, **identity}
        self._write()
        said = [f"{name} {value}" for name, value in result.get("metrics", {}).items()]
        print(f"   {', '.join(said) or result['status']}; {outcome.seconds:.0f} s", flush=True)

    def _result(self, run: Run) -> dict[str, Any]:
        try:
            return {"status": DONE, **result_of(run, self.output / run.name)}
        except Exception as error:
            # The folder may hold anything, and the runs after this one have nothing to do with it.
            said = str(error) if isinstance(error, InputError) else repr(error)
            return {"status": f"the result cannot be read: {said}"}

    def _write(self) -> None:
        text = json.dumps(self.results, indent=1) + "\n"
        write_atomically(self.output / "runs.json", lambda file: file.write(text.encode()))

    def _check_settings(self) -> None:
        """Write what all runs share, or refuse to mix runs of other settings with them."""
        path = self.output / "evaluation.json"
        settings = {
            "checkpoint": _identity(self.checkpoint),
            "seed": self.seed,
            "list of overrides": list(self.overrides),
        }
        try:
            before = json.loads(path.read_text())
        except FileNotFoundError:
            text = json.dumps(settings, indent=1) + "\n"
            write_atomically(path, lambda file: file.write(text.encode()))
            return
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged: give another --output") from error
        for name, value in settings.items():
            if not isinstance(before, dict) or before.get(name) != value:
                raise InputError(
                    f"{self.output} holds an evaluation whose {name} is another: give another --output"
                )


class StepFailed(Exception):
    """A command that all runs wait for ended badly; says which and why."""


def do_step(step: Step, logs: Path) -> Outcome:
    """Run one command in the current folder, its output in `logs`."""
    outcomes: list[Outcome] = []
    run_steps(
        [step],
        folder=Path.cwd(),
        jobs=1,
        logs=logs,
        variables={},
        on_end=lambda _, outcome: outcomes.append(outcome),
    )
    return outcomes[0]


def _check_checkpoint(checkpoint: str) -> None:
    from ..weights.resolution import NAMED_WEIGHTS, SSLWeightsHandler

    prefix = SSLWeightsHandler.PREFIX
    if checkpoint.startswith(prefix) and checkpoint.removeprefix(prefix) not in NAMED_WEIGHTS:
        names = ", ".join(prefix + name for name in NAMED_WEIGHTS)
        raise InputError(f"no weights are named {checkpoint}; there are {names}")
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise InputError(f"no file at {checkpoint}: give the checkpoint of a pretraining")


def _identity(checkpoint: str) -> str:
    from ..hashing import sha256_of

    return sha256_of(checkpoint) if os.path.isfile(checkpoint) else checkpoint


_OF_DONE = {"metrics", "fingerprint", "weights", "seed", "differs"}


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        results = json.loads(path.read_text())
        for result in results.values():
            if not {"status", *(_OF_DONE if result["status"] == DONE else ())} <= set(result):
                raise ValueError("it is something else")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged: move it away, finished runs are read again"
        ) from error
    return results
