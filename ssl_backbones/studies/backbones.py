"""Which backbone is better on data of one's own: the runs of a comparison, equal in all but the backbone."""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import write_atomically
from ..tables import Table
from .cells import Cell, CellStudy, chosen, usable_cores
from .initializations import FINETUNED, FROZEN
from .processes import Step
from .protocol_runs import as_typed
from .runner import DONE, check_settings, write_text
from .spoiling import SPOILT, spoil

if TYPE_CHECKING:
    from .comparison import Comparison
    from .differences import Variances

RANDOM, SUPERVISED = "scratch", "supervised"
_NAMED = {SUPERVISED: "ssl://supervised_imagenet", RANDOM: ""}

MOST_SEEDS = 100

PROTOCOLS = {"recipe": FINETUNED, "frozen": FROZEN}

_FREEZE_AT = "model.backbone.bottom_up.freeze_at"
_PAIRS, _TABLES, _PAGE = "pairs.csv", "comparison.md", "comparison.html"

_SET_BY = {
    "train.seed": "--seeds",
    "train.init_checkpoint": "the arms",
    "train.output_dir": "--output",
    "train.paired_init": "the study: it is always true",
    "train.data": "--data",
    "dataloader.train.dataset.names": "--data",
    "dataloader.test.dataset.names": "--data",
    _FREEZE_AT: "--protocol, and by scratch, with which nothing is frozen",
}


@dataclass(frozen=True)
class Arm:
    """Where a backbone's weights come from.

    Attributes:
        source: a pretraining's file, a converted one, or ssl://NAME; "" for random weights.
        spoilt: one of `SPOILT`; "" for weights as they are.
    """

    name: str
    source: str
    spoilt: str = ""

    @property
    def intact(self) -> str:
        """The name of the arm that this one is a control of; its own where it is none."""
        return self.name.removesuffix(f"-{self.spoilt}")


def parse_arms(words: Sequence[str]) -> list[Arm]:
    """From "moco.pth", "ssl://NAME", "scratch" and "supervised", any with ":shuffled" or ":bgr" behind it.

    Raises:
        InputError: fewer than two, one that is not there, two of one name, or random weights that are spoilt.
    """
    arms = [_parse(word) for word in words]
    if len(arms) < 2:
        raise InputError("one arm has nothing to be compared with: name another, or scratch")
    for arm in arms:
        if arm.spoilt and arm.intact not in {other.name for other in arms}:
            raise InputError(
                f"{arm.name} is a control of {arm.intact}, which is no arm: name {arm.source} as well"
            )
    if twice := [name for name, count in Counter(arm.name for arm in arms).items() if count > 1]:
        raise InputError(
            f"two arms would be called {twice[0]}: give each a name of its own, as NAME=FILE"
        )
    return arms


def _parse(word: str) -> Arm:
    given, equals, rest = word.partition("=")
    named = given if equals and re.fullmatch(r"[\w-]+", given) else ""
    source, colon, spoilt = (rest if named else word).rpartition(":")
    if not colon or spoilt not in SPOILT:
        source, spoilt = rest if named else word, ""
    if not source:
        raise InputError(f"the arm {word!r} has no file: write NAME=FILE")
    if source in _NAMED:
        name, source = source, _NAMED[source]
    else:
        _check_source(source)
        name = re.sub(r"(\.pth)?\.\w+$", "", source.rpartition("/")[2])
    if spoilt and not source:
        raise InputError(f"{word}: random weights have nothing that could be spoilt")
    name = re.sub(r"[^\w.-]", "_", named or name)
    return Arm(f"{name}-{spoilt}" if spoilt else name, source, spoilt)


def _check_source(source: str) -> None:
    from ..weights.resolution import NAMED_WEIGHTS, SSLWeightsHandler

    if source.startswith(SSLWeightsHandler.PREFIX):
        if source.removeprefix(SSLWeightsHandler.PREFIX) not in NAMED_WEIGHTS:
            there = ", ".join(SSLWeightsHandler.PREFIX + name for name in NAMED_WEIGHTS)
            raise InputError(f"no weights are named {source}; there are {there}")
    elif "=" in source:
        raise InputError(
            f"there is no file {source}; an override is written key.of.the.config=value"
        )
    elif Path(source).is_dir():
        raise InputError(f"{source} is a folder: an arm is the file of a checkpoint")
    elif not Path(source).is_file():
        raise InputError(
            f"there is no file {source}: an arm is a checkpoint, ssl://NAME, {RANDOM} or {SUPERVISED}, and "
            f"with :{' or :'.join(SPOILT)} behind it a control"
        )


@dataclass(frozen=True)
class Data:
    """What all runs learn and are tested on.

    Attributes:
        path: as `tools/train_net.py --data` takes it.
        train_images, test_images: how many there are.
        annotations: hashes of both files, by which the data is known wherever it lies.
    """

    path: str
    train_images: int
    test_images: int
    annotations: str


def read_data(path: str) -> Data:
    """Check data of one's own as a run would.

    Raises:
        InputError: what a run would be refused for.
    """
    from ..data.annotations.checking import verdict_of
    from ..data.folders import find_splits
    from ..data.own_data import split_for

    found = find_splits(path, divides=True)
    verdicts = []
    for role in ("train", "test"):
        split = found.splits[split_for(found, role, path)]
        tested = role == "test"
        verdicts.append(
            verdict_of(split.annotations, split.images, str(split.shown), evaluated=tested)
        )
    images = (verdict.counts["images"] for verdict in verdicts)
    return Data(path, *images, " ".join(verdict.sha256[:12] for verdict in verdicts))


class BackboneStudy(CellStudy):
    """Each arm with each seed, seed by seed: whoever stops early has all arms, of fewer seeds.

    Between the arms of a seed the weights of the backbone differ and nothing else: RPN, heads and FPN start
    alike, images come in one order with the same augmentations, and the same is frozen. With random weights
    among the arms, whose stem has to learn, nothing is frozen in any.

    Args:
        config: of the recipe; "" for the one that --data takes.
        recipe: a hash of what the config says, which may be edited between two starts.
        seeds: of each arm, from 0.
        overrides: of every run's config.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        data: Data,
        output: Path,
        *,
        root: Path,
        seeds: int,
        protocol: str = "recipe",
        config: str = "",
        recipe: str = "",
        overrides: Sequence[str] = (),
        only: Sequence[str] | None = None,
        jobs: int = 1,
        keep_checkpoints: bool = False,
    ):
        if protocol == "frozen" and any(not arm.source for arm in arms):
            raise InputError(
                f"--protocol frozen: {RANDOM} would keep its random weights; leave it out"
            )
        self.arms = {arm.name: arm for arm in arms}
        self.data, self.protocol, self.config, self.seeds = data, protocol, config, seeds
        self.recipe = recipe
        self.overrides = [*_of_protocol(arms, protocol), *overrides]
        whole = [
            Cell(arm.name, PROTOCOLS[protocol], data.train_images, seed)
            for seed in range(seeds)
            for arm in arms
        ]
        super().__init__(
            output,
            chosen(whole, only),
            root=root,
            variables={},
            jobs=jobs,
            order=[cell.name for cell in whole],
            keep_checkpoints=keep_checkpoints,
        )
        self.places = _gpus()

    def settings(self) -> dict[str, Any]:
        return {
            "annotations": self.data.annotations,
            "overrides": self.overrides,
            "recipe": self.recipe,
        }

    def read(self) -> None:
        """And refuse an arm that had its name from another file; new ones may be added.

        Of a study in which no cell has begun everything may be changed.
        """
        if not any((self.folder / "cells").glob("*/run.json")):
            for file in (self.settings_file, *(self.folder / "weights").glob("*.json")):
                file.unlink(missing_ok=True)
        super().read()
        (self.folder / "weights").mkdir(exist_ok=True)
        for name, arm in self.arms.items():
            path = self.folder / "weights" / f"{name}.json"
            check_settings(path, {f"arm {name}": _identity(arm.source)})

    def weights_of(self, arm: str) -> Path | None:
        return self.output / "weights" / f"{arm}.pkl" if self.arms[arm].source else None

    def prepare_for(self, missing: Sequence[Cell]) -> None:
        needed = [self.arms[name] for name in dict.fromkeys(cell.arm for cell in missing)]
        needed = [arm for arm in needed if arm.source]
        for name, source in {arm.intact: arm.source for arm in needed}.items():
            self._convert(name, source)
        for arm in needed:
            if arm.spoilt:
                path = self.root / self.weights_of(arm.name)
                spoil(path.with_name(f"{arm.intact}.pkl"), path, arm.spoilt)
                print(f"\n== control\n   {arm.name}: {SPOILT[arm.spoilt]}", flush=True)
        self._check_architectures(needed)

    def _convert(self, name: str, source: str) -> None:
        """Into the folder of the weights, unless it is there; what is converted already is taken as it is."""
        from ..conversion.reading import provenance_of, read_checkpoint

        converted = self.output / "weights" / f"{name}.pkl"
        path = self.root / converted
        if Path(source).suffix == ".pkl" and provenance_of(read_checkpoint(source)):
            with open(source, "rb") as file:
                write_atomically(path, lambda copy: shutil.copyfileobj(file, copy))
            return
        if path.exists() and os.path.isfile(source):
            origin = provenance_of(read_checkpoint(path))
            if origin.get("source_sha256") != _identity(source):
                raise InputError(
                    f"{converted} is not of {source}: remove it, or give another --output"
                )
        words = (as_typed("tools/convert_checkpoint.py"), source, str(converted))
        self.make_missing("conversion", [Step(f"convert_{name}", words, converted)])

    def _check_architectures(self, arms: Sequence[Arm]) -> None:
        """Refuse, before any cell, what one recipe cannot train."""
        from ..conversion.reading import provenance_of, read_checkpoint

        found: dict[str, str] = {}
        for arm in arms:
            origin = provenance_of(read_checkpoint(self.root / self.weights_of(arm.name)))
            found[arm.name] = origin["architecture"]["name"]
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name} is a {architecture}" for name, architecture in found.items())
            raise InputError(f"one recipe trains one architecture, and {told}: compare equal ones")

    def compare(self) -> int:
        """Say what came out, and write it as tables and as a page."""
        from ..progress import progress_bar
        from . import comparison

        print("\n== comparison", flush=True)
        folders = {
            (row["arm"], int(row["seed"])): self.folder / "cells" / name
            for name, row in self.rows.items()
            if row["status"] == DONE and row["arm"] in self.arms
        }
        missing = [name for name in self.arms if name not in {arm for arm, _ in folders}]
        if missing:
            print(f"no cell is done of {', '.join(missing)}: compared are the other arms")
        if not comparison.common_seeds(folders):
            print("no seed is done with every arm yet: nothing is compared")
            return 0
        controls = {arm.name: arm.intact for arm in self.arms.values() if arm.spoilt}
        found = comparison.compare(folders, controls, progress=progress_bar)
        told = comparison.sentences(found)
        made = [*comparison.tables(found), self._table_of_cells()]
        self._write(found, told, made)
        for table in made:
            print(f"\n{table.title}\n{table.format_text()}")
        print("", *told, sep="\n")
        if found.has_verdicts:
            pairs = Table.of_records("", comparison.records(found))
            write_text(self.folder / _PAIRS, pairs.format_csv())
            print(f"pairs: {self.output / _PAIRS}")
        for what, file in (("tables", _TABLES), ("page", f"{_PAGE} (open it in a browser)")):
            print(f"{what}: {self.output / file}")
        return 0

    def _write(self, found: Comparison, told: Sequence[str], made: Sequence[Table]) -> None:
        from ..report.page.comparison_page import format_comparison_page

        lines = "\n".join(f"- {sentence}" for sentence in told)
        parts = [f"## {table.title}\n\n{table.format_markdown(aligned=True)}" for table in made]
        write_text(self.folder / _TABLES, "\n\n".join([lines, *parts]) + "\n")
        facts = {
            "arms": ", ".join(self.arms),
            "seeds": ", ".join(map(str, found.seeds)),
            "protocol": self.protocol,
            "recipe": self.config or "configs/moco_1x.py",
            "trained on": f"{self.data.train_images:,} images",
            "tested on": f"{self.data.test_images:,} images",
        }
        name = Path(self.data.path).stem
        write_text(self.folder / _PAGE, format_comparison_page(name, facts, told, made, found.runs))

    def _table_of_cells(self) -> Table:
        """What each cost, and the hashes of its weights and of its recipe with them."""
        rows = [
            (
                *(row["arm"], row["seed"], row["status"], row["iterations"]),
                *(f"{_seconds(row) / 60:.1f}", row["weights"][:12], row["fingerprint"][:12]),
            )
            for row in self.rows.values()
        ]
        columns = ("arm", "seed", "status", "iterations", "minutes", "weights", "fingerprint")
        return Table("Cells", columns, rows)

    def seeds_in(self, hours: float) -> int:
        """How many seeds fit, by the mean time of the cells that are done.

        Raises:
            InputError: none is done, or fewer seeds fit than give a verdict.
        """
        from .differences import FEWEST_SEEDS

        of_cell = _mean_seconds(self.record.read())
        if not of_cell:
            first = next(iter(self.cells))
            raise InputError(f"--budget: no cell is done to tell the time by: run --only {first}")
        of_seed = of_cell * len(self.arms) / self.jobs
        if FEWEST_SEEDS * of_seed > hours * 3600:
            raise InputError(
                f"--budget: {FEWEST_SEEDS} seeds of every arm, the fewest for a verdict, take "
                f"{FEWEST_SEEDS * of_seed / 3600:.1f} hours: give that, or fewer arms"
            )
        return min(MOST_SEEDS, int(hours * 3600 // of_seed))

    def plan(self) -> list[str]:
        """What would run, how long it takes as far as a cell has been measured, and what it can show."""
        if self.settings_file.exists():
            super().read()
        missing = self.missing()
        lines = [f"{name}{'' if name in missing else ': done'}" for name in self.cells]
        of_cell = _mean_seconds(self.rows)
        words = f"{len(missing)} of {len(self.cells)} cells to run, {self.jobs} at once"
        if of_cell and missing:
            minutes = of_cell * len(missing) / self.jobs / 60
            words += f": about {minutes:.0f} minutes by those that are done"
        return [*lines, "", words, self._resolution()]

    def _resolution(self) -> str:
        """What difference of box AP is shown in four of five such studies."""
        from .differences import FEWEST_IMAGES, FEWEST_SEEDS, resolution

        images_here = self.data.test_images
        if self.seeds < FEWEST_SEEDS or images_here < FEWEST_IMAGES:
            return f"fewer than {FEWEST_SEEDS} seeds or {FEWEST_IMAGES} test images give no verdict"
        variances, images, origin = self._known_variances()
        variances = variances.with_images(images_here / images)
        points = resolution(len(self.arms), self.seeds, images_here, variances)
        return (
            f"a difference of {points:.1f} points of box AP is shown in 4 of 5 such studies "
            f"({len(self.arms)} arms, {self.seeds} seeds, {images_here:,} test images; by the spread of "
            f"{origin})"
        )

    def _known_variances(self) -> tuple[Variances, int, str]:
        """Of a difference, on how many images, and of which study: this one so far, or the committed one."""
        from .differences import MEASURED, MEASURED_IMAGES, Variances

        try:
            with open(self.folder / _PAIRS, encoding="utf-8", newline="") as file:
                pairs = [row for row in csv.DictReader(file) if row["metric"] == "bbox/AP"]
            parts = [
                sum(float(row[f"variance_{part}"]) for row in pairs) / len(pairs)
                for part in ("images", "seeds", "both")
            ]
            images = int(pairs[0]["images"])
            if images > 0 and all(math.isfinite(part) and part >= 0 for part in parts):
                return Variances(*parts), images, "this study so far"
        except (OSError, KeyError, ValueError, ZeroDivisionError):
            pass
        return MEASURED, MEASURED_IMAGES, "projects/photographs, which is other data"

    def cell_step(self, cell: Cell) -> Step:
        folder = self.output / "cells" / cell.name
        words = (
            as_typed("tools/train_net.py"),
            *(("--config-file", self.config) if self.config else ()),
            *("--data", self.data.path, "--resume"),
            f"train.init_checkpoint={self.weights_of(cell.arm) or ''}",
            f"train.output_dir={folder}",
            f"train.seed={cell.seed}",
            "train.paired_init=true",
            *self.overrides,
        )
        return Step(cell.name, words, folder / "inference" / "metrics.json")


def _of_protocol(arms: Sequence[Arm], protocol: str) -> list[str]:
    if protocol == "frozen":
        norms = [f"model.backbone.bottom_up.{part}.norm=FrozenBN" for part in ("stem", "stages")]
        return [f"{_FREEZE_AT}=5", *norms]
    return [f"{_FREEZE_AT}=0"] if any(not arm.source for arm in arms) else []


def _seconds(row: Mapping[str, str]) -> float:
    """0 where the row does not say."""
    try:
        return max(0.0, float(row["seconds"]))
    except ValueError:
        return 0.0


def _mean_seconds(rows: Mapping[str, Mapping[str, str]]) -> float:
    """Of the cells that are done; 0 without one."""
    seconds = [_seconds(row) for row in rows.values() if row["status"] == DONE]
    return sum(seconds) / len(seconds) if seconds else 0.0


def _recipe(config: str, overrides: Sequence[str]) -> str:
    """A hash of what the runs' config says; refuses what no run could start with.

    Raises:
        InputError: the config does not load, an override is wrong, or the backbone is no FPN's.
    """
    from omegaconf import OmegaConf

    from ..engine.config import DEFAULT_CONFIG, load_config
    from ..engine.recipe import fingerprint

    cfg = load_config(config or DEFAULT_CONFIG)
    if OmegaConf.select(cfg, _FREEZE_AT) is None:
        raise InputError(
            f"{config} has no {_FREEZE_AT}: a comparison is of detectors whose backbone is an FPN on a ResNet"
        )
    return fingerprint(load_config(config or DEFAULT_CONFIG, overrides))[:12]


def _identity(source: str) -> str:
    from ..hashing import sha256_of

    return sha256_of(source) if os.path.isfile(source) else source


def check_overrides(words: Sequence[str]) -> None:
    """Refuse overrides that the runs would not follow.

    Raises:
        InputError: with what to use instead.
    """
    for word in words:
        key = word.partition("=")[0].strip()
        for ours, option in _SET_BY.items():
            if f"{ours}.".startswith(f"{key}."):
                raise InputError(f"override {word!r}: {ours} is set by {option}")


_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")


def from_words(
    words: Sequence[str],
    data: str,
    output: Path | None,
    *,
    seeds: int,
    hours: float | None,
    protocol: str,
    config: str,
    only: Sequence[str] | None,
    jobs: int | None,
    keep_checkpoints: bool,
) -> BackboneStudy:
    """The study that a command line asks for, which runs in the current folder.

    Args:
        words: arms, and overrides among them.
        seeds: of each arm, unless `hours` say how many.
        hours: that all cells may take, by those that are done.
        jobs: None for one a GPU, else one a core as far as memory goes.

    Raises:
        InputError: an arm, the data, or what goes with them is wrong.
    """
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).is_file()]
    check_overrides(overrides)
    arms = parse_arms([word for word in words if word not in overrides])
    recipe = _recipe(config, [*_of_protocol(arms, protocol), *overrides])
    name = re.sub(r"[^\w.-]", "_", Path(os.path.abspath(data)).stem)
    found = read_data(data)

    def of(seeds: int) -> BackboneStudy:
        return BackboneStudy(
            arms,
            found,
            output or Path("output") / "comparisons" / name,
            root=Path.cwd(),
            seeds=seeds,
            protocol=protocol,
            config=config,
            recipe=recipe,
            overrides=overrides,
            only=only,
            jobs=jobs or _jobs(),
            keep_checkpoints=keep_checkpoints,
        )

    return of(seeds) if hours is None else of(of(1).seeds_in(hours))


_CELL_BYTES = 6 << 30
"""Of one at the recipe's 800 x 1333 with a batch of 2: 5.8 GB were measured in its dry run."""


def _gpus() -> list[dict[str, str]]:
    """For each GPU the variable that shows a process that one alone; one that shows all without any."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",")[:count] if named else map(str, range(count))
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names] or [{}]


def _jobs() -> int:
    import torch

    if count := torch.cuda.device_count():
        return count
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(usable_cores(), memory // _CELL_BYTES))
