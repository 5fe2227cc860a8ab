"""The runs of one checkpoint under several protocols: their commands, and what came of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..fidelity.protocols import PROCESSES, Protocol, protocols, root
from .processes import Step


@dataclass(frozen=True)
class Run:
    """One training under a protocol.

    Attributes:
        dataset: that it trains on, of a protocol with folds; "" for the config's.
    """

    name: str
    protocol: Protocol
    seed: int
    dataset: str = ""

    @property
    def overrides(self) -> list[str]:
        return [f"dataloader.train.dataset.names={self.dataset}"] if self.dataset else []


def runs_of(protocol: Protocol, *, seed: int, folds: int, repeats: int = 1) -> Iterator[Run]:
    """Those of a protocol, each with a seed of its own.

    Args:
        folds: at most, of a protocol that has some.
        repeats: runs of one that has none. The first is called the same whatever their number, so that more
            can be added later.
    """
    if not protocol.folds:
        yield Run(protocol.name, protocol, seed)
        for number in range(1, repeats):
            yield Run(f"{protocol.name}_repeat{number}", protocol, seed + number)
    for number, dataset in enumerate(protocol.folds[:folds]):
        yield Run(f"{protocol.name}_fold{number}", protocol, seed + number, dataset)


def find(names: Iterable[str]) -> list[Protocol]:
    """Protocols by their names; the path of a LazyConfig stands for a protocol of its own.

    Raises:
        InputError: there is no such protocol, one is named twice, or a config is called as something else
            that an evaluation makes.
    """
    known, found = protocols(), {}
    for name in map(str.strip, names):
        if name in known:
            protocol = known[name]
        elif name.endswith(".py") and Path(name).is_file():
            protocol = _own(Path(name))
        else:
            raise InputError(
                f"no protocol is called {name!r}: give the path of a config, or {', '.join(known)}"
            )
        if protocol.name in found:
            raise InputError(f"protocol {protocol.name} is named twice")
        found[protocol.name] = protocol
    return list(found.values())


def _own(config: Path) -> Protocol:
    # Names of runs and logs, and what else stands in the folder of an evaluation.
    taken = (
        rf"({'|'.join(protocols())})(_fold\d+|_repeat\d+|_preparation)?|logs|conversion|backbone\.pkl|"
        r"(runs|evaluation)\.json|table\.(md|csv)|\.lock"
    )
    if re.fullmatch(taken, config.stem):
        raise InputError(
            f"{config}: the run would be called {config.stem}, which an evaluation calls something else; "
            "rename the config"
        )
    return Protocol(config.stem, str(config), str(config.resolve()))


def conversion_step(checkpoint: str, converted: Path) -> Step:
    words = (as_typed("tools/convert_checkpoint.py"), checkpoint, str(converted))
    return Step("conversion", words, converted)


def preparation_step(protocol: Protocol) -> Step:
    tool, *options = protocol.preparation
    return Step(f"{protocol.name}_preparation", (as_typed(tool), *options), Path())


def run_step(
    run: Run, weights: str, folder: Path, flags: Sequence[str], overrides: Sequence[str]
) -> Step:
    """The training, which goes on where it stopped, and its evaluation.

    Args:
        weights: as `train.init_checkpoint` takes them.
        folder: the run folder.
        flags: of tools/train_net.py.
        overrides: of every run; the protocol's own come after them.
    """
    words = (
        as_typed("tools/train_net.py"),
        *("--config-file", _short(run.protocol.config_path())),
        *("--resume", *flags, *overrides, *run.overrides),
        f"train.init_checkpoint={weights}",
        f"train.output_dir={folder}",
        f"train.seed={run.seed}",
    )
    return Step(run.name, words, folder / "inference" / "metrics.json")


def result_of(run: Run, folder: Path) -> dict[str, Any]:
    """What a finished run's folder says, as JSON has it.

    Returns:
        "metrics" (percent, None where undefined), "fingerprint", "weights", "seed", and "differs": the fields
        (name, protocol's, run's) in which its recipe is not the protocol's on `PROCESSES` GPUs.

    Raises:
        InputError: the folder lacks something.
    """
    from ..engine import record
    from ..evaluation.metrics import read_metrics

    path = folder / "inference" / "metrics.json"
    try:
        results, _ = read_metrics(str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} has no metrics: {error}") from error
    known = {f"{task}/{name}": value for task, of in results.items() for name, value in of.items()}
    names = run.protocol.metrics or [name for name in known if name.endswith("/AP")]
    found = {name: known.get(name) for name in names}
    held = record.read(folder)
    return {
        "metrics": {name: None if v is None or v != v else v for name, v in found.items()},
        "fingerprint": held["fingerprint"],
        "weights": held["recipe"].get("weights", ""),
        "seed": held.get("seed"),
        "differs": [list(each) for each in _differences(run, held["recipe"])],
    }


def identity_of(run: Run, overrides: Sequence[str]) -> dict[str, str]:
    """What a run is of: its config's path, and the fingerprint of the recipe that its file now makes.

    Args:
        overrides: of every run's config.

    Raises:
        InputError: the config does not load, or the overrides do not fit.
    """
    from ..hashing import fingerprint_of

    fields = _fields(run, [*overrides, *run.overrides])
    return {"config": run.protocol.config, "config_fingerprint": fingerprint_of(fields)}


def _differences(run: Run, recipe: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    from ..engine.recipe import compare

    return compare(_fields(run, run.overrides), without_own(recipe))


def _fields(run: Run, overrides: Sequence[str]) -> dict[str, Any]:
    from ..engine.config import load_config
    from ..engine.recipe import recipe

    cfg = load_config(str(run.protocol.config_path()), overrides)
    return without_own(recipe(cfg, slots=PROCESSES))


def without_own(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Less weights and seed, in which runs of one protocol differ."""
    return {key: value for key, value in recipe.items() if key not in ("weights", "train.seed")}


def refuse_set(words: Sequence[str], set_by: Mapping[str, str]) -> None:
    """Refuse overrides that the runs would not follow.

    Args:
        set_by: what sets a key, or all below it.

    Raises:
        InputError: with what to use instead.
    """
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals:
            raise InputError(f"{word!r} is no override: write key=value")
        for ours, option in set_by.items():
            if f"{ours}.".startswith(f"{key.strip()}."):
                raise InputError(f"override {word!r}: {ours} is set by {option}")


def identity_of_source(source: str) -> str:
    """The hash of a file, and a name such as ssl://moco_v2_800ep as it is."""
    from ..hashing import sha256_of

    return sha256_of(source) if os.path.isfile(source) else source


def as_typed(path: str) -> str:
    """A file of the checkout as one types it there: elsewhere its whole path."""
    return _short(root() / path)


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
