"""One checkpoint under several protocols: what is asked for, checked before the first run, and run."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..fidelity.protocols import Protocol
from .processes import Outcome, Step, do_step
from .protocol_runs import (
    Run,
    conversion_step,
    identity_of,
    identity_of_source,
    preparation_step,
    refuse_set,
    result_of,
    run_step,
    runs_of,
)
from .runner import STARTED, Record, Study

_OF_DONE = frozenset({"metrics", "fingerprint", "weights", "seed", "differs"})
_IDENTITY = ("config", "config_fingerprint")

SET_BY = {
    "train.seed": "--seed",
    "train.init_checkpoint": "CHECKPOINT",
    "train.output_dir": "--output",
    "train.device": "--device",
}
"""Keys of a config that are no override here, and what sets them."""

_DATASET = "dataloader.train.dataset.names"


class Evaluation(Study):
    """What was asked for, and the rows that are there.

    A row has "status", what `identity_of` gives, and of a run that is done what `result_of` gives.

    Attributes:
        checkpoint: a file of a pretraining, a converted one, or a name such as ssl://moco_v2_800ep.
        seed: of the first run of each protocol.
        folds: at most, of protocols that have some.
        repeats: runs, with seeds of their own, of protocols that have none.
        flags: of tools/train_net.py, for every run.
        overrides: of every run's config.
    """

    def __init__(
        self,
        checkpoint: str,
        protocols: Sequence[Protocol],
        output: Path,
        seed: int,
        folds: int,
        repeats: int = 1,
        flags: Sequence[str] = (),
        overrides: Sequence[str] = (),
    ):
        record = Record(output / "runs.json", results=_OF_DONE)
        super().__init__(output, record, "evaluation.json", root=Path.cwd())
        self.checkpoint, self.protocols = checkpoint, protocols
        self.seed, self.folds, self.repeats = seed, folds, repeats
        self.flags, self.overrides = flags, overrides
        for protocol in protocols:
            protocol.config_path()  # raises where it is not here
        _check_checkpoint(checkpoint)
        if twice := [name for name, number in Counter(self.names()).items() if number > 1]:
            raise InputError(f"two runs would be called {twice[0]}: rename one of the configs")
        self.rows = record.read()

    def runs(self, protocol: Protocol) -> list[Run]:
        return list(runs_of(protocol, seed=self.seed, folds=self.folds, repeats=self.repeats))

    def names(self) -> list[str]:
        return [run.name for protocol in self.protocols for run in self.runs(protocol)]

    def missing_of(self, protocol: Protocol) -> list[Run]:
        return [run for run in self.runs(protocol) if not self.is_done(run.name)]

    def settings(self) -> dict[str, Any]:
        return {
            "checkpoint": identity_of_source(self.checkpoint),
            "seed": self.seed,
            "list of overrides": list(self.overrides),
        }

    def identity(self, name: str) -> dict[str, Any]:
        """As the run began: its config may have been edited since."""
        return {field: self.rows[name][field] for field in _IDENTITY}

    def results(self, name: str) -> dict[str, Any]:
        runs = (run for protocol in self.protocols for run in self.runs(protocol))
        run = next(run for run in runs if run.name == name)
        return result_of(run, self.folder / name)

    def told(self, name: str, row: Mapping[str, Any], outcome: Outcome) -> str:
        said = [f"{metric} {value}" for metric, value in row.get("metrics", {}).items()]
        return f"{', '.join(said) or row['status']}; {outcome.seconds:.0f} s"

    def step(self, run: Run) -> Step:
        return run_step(run, self.weights, self.folder / run.name, self.flags, self.overrides)

    def preparations(self) -> list[Step]:
        """What makes the files that missing runs need, each once."""
        needing = [p for p in self.protocols if p.preparation and self.missing_of(p)]
        by_words = {protocol.preparation: protocol for protocol in needing}
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
        return str(self.folder / "backbone.pkl")

    @cached_property
    def _is_converted(self) -> bool:
        from ..conversion.reading import provenance_of, read_checkpoint

        return bool(provenance_of(read_checkpoint(self.checkpoint)))

    def check_rows(self) -> None:
        """Refuse what has been run, wholly or in part, under a name that now means another config.

        Of whose folder is gone nothing is left to mix with: that is forgotten, and done again.

        Raises:
            InputError: another config had that name, or it has been edited.
        """
        for protocol in self.protocols:
            for run in self.runs(protocol):
                before = self.rows.get(run.name)
                folder = self.folder / run.name
                if before is None or (changed := self._changed(run, before)) is None:
                    continue
                if folder.exists():
                    raise InputError(
                        f"{folder} {changed}: give another --output, or remove that folder to do it again"
                    )
                del self.rows[run.name]

    def _changed(self, run: Run, before: Mapping[str, Any]) -> str | None:
        now = identity_of(run, self.overrides)
        if before.get("config") != now["config"]:
            return f"is a run of {before.get('config')}, not of {now['config']}"
        if before.get("config_fingerprint") != now["config_fingerprint"]:
            return f"is a run of {now['config']} before that was edited"
        return None

    def begin(self, run: Run) -> None:
        """Say what the run is of before it has a folder that another one could go on with."""
        self.keep(run.name, {"status": STARTED, **identity_of(run, self.overrides)})

    def go_on(self) -> None:
        """Do all that is missing. A run that fails stops no other.

        Raises:
            InputError: the folder holds the evaluation of something else, or another one is at work there.
            StepFailed: what all runs wait for went wrong.
        """
        with self.at_work():
            self.check_rows()
            if step := self.conversion():
                self.prepare("conversion", [step])
            for number, protocol in enumerate(self.protocols, 1):
                title = f"{protocol.name}, {number} of {len(self.protocols)}"
                missing = self.missing_of(protocol)
                if not missing:
                    print(f"\n== {title}: done before", flush=True)
                for run in missing:
                    self.begin(run)
                    step = self.step(run)
                    self.announce(title, [step])
                    self.run([step])

    def announce(self, title: str, steps: Sequence[Step], total: int | None = None) -> None:
        super().announce(title, steps, total)
        for step in steps:
            print(f"   log: {self.logs / step.name}.txt", flush=True)


def _check_checkpoint(checkpoint: str) -> None:
    from ..weights.resolution import SSLWeightsHandler, row_of

    if checkpoint.startswith(SSLWeightsHandler.PREFIX):
        row_of(checkpoint)
    if "://" not in checkpoint and not Path(checkpoint).is_file():
        raise InputError(f"no file at {checkpoint}: give the checkpoint of a pretraining")


def check_overrides(evaluation: Evaluation, words: list[str]) -> None:
    """Refuse overrides, as a user gave them, that the runs would not follow.

    Raises:
        InputError: with what to use instead.
    """
    folds = next((p.name for p in evaluation.protocols if p.folds), None)
    refuse_set(
        words, SET_BY if folds is None else {**SET_BY, _DATASET: f"--folds, which {folds} has"}
    )


def check_start(evaluation: Evaluation, device: str, processes: int) -> None:
    """Refuse what some run would be refused for, before hours of others; makes the files that runs need.

    Nothing is written into the folder of the evaluation.

    Args:
        device: "cuda" or "cpu".
        processes: of each run.

    Raises:
        InputError: the first thing found wrong.
    """
    evaluation.check_rows()
    # Reads the checkpoint, unless it is a name.
    evaluation.conversion()
    if device == "cuda":
        _check_gpus(processes)
    for step in evaluation.preparations():
        print(f"\n== preparation\n$ {step.command({})}", flush=True)
        with tempfile.TemporaryDirectory() as logs:
            outcome = do_step(step, Path(logs))
            if outcome.status:
                said = outcome.last_line().removeprefix("error: ")
                raise InputError(f"{step.command({})}: {said}")
    for protocol in evaluation.protocols:
        for run in evaluation.missing_of(protocol):
            _check_run(evaluation, run, processes)


def _check_gpus(processes: int) -> None:
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise InputError("this machine has no usable GPU: add --device cpu to run on the CPU")
    if processes > found:
        raise InputError(f"--num-gpus {processes}: this machine has {found}; lower it")


def _check_run(evaluation: Evaluation, run: Run, processes: int) -> None:
    from ..data.annotations.splits import check_splits
    from ..engine.config import load_config
    from ..engine.preflight import check_channel_order, check_dataset, dataset_names
    from ..engine.schedule import check_batch

    try:
        cfg = load_config(str(run.protocol.config_path()), [*evaluation.overrides, *run.overrides])
        check_batch(cfg, processes)
        check_channel_order(cfg)
        for split in ("train", "test"):
            check_dataset(cfg, split)
        check_splits(dataset_names(cfg, "train"), dataset_names(cfg, "test"))
    except InputError as error:
        raise InputError(f"protocol {run.protocol.name}: {error}") from error
