"""Which backbone is better on data of one's own: the runs of a comparison, equal in all but the backbone."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import write_atomically
from ..tables import Table
from .arms import RANDOM, SPOILT, Arm, parse_arms, spoil
from .cells import Cell, CellStudy, chosen, usable_cores
from .initializations import FINETUNED
from .processes import Step
from .protocol_runs import as_typed, identity_of_source, refuse_set
from .runner import DONE, check_settings, write_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..data.folders import Split
    from .comparison import Comparison
    from .differences import Variances

MOST_SEEDS = 100

PROTOCOLS = ("recipe", "frozen", "low_shot_PERCENT")

_BOTTOM_UP = "model.backbone.bottom_up"
_FREEZE_AT = f"{_BOTTOM_UP}.freeze_at"
_PAIRS, _TABLES, _PAGE = "pairs.csv", "comparison.md", "comparison.html"

SET_BY = {
    "train.seed": "--seeds (--repeats of evaluate_backbone.py)",
    "train.init_checkpoint": "the arms",
    "train.output_dir": "--output",
    "train.paired_init": "the study: it is always true",
    "train.data": "--data",
    "dataloader.train.dataset.names": "--data",
    "dataloader.test.dataset.names": "--data",
    _FREEZE_AT: "--protocol, and by scratch, with which nothing is frozen",
}


@dataclass(frozen=True)
class Data:
    """What all runs learn and are tested on.

    Attributes:
        path: as `tools/train_net.py --data` takes it.
        classes: in a data.yaml's order; None without one.
        train_images, test_images: how many there are in either split.
        annotations: hashes of both files, by which the data is known wherever it lies.
    """

    path: str
    train: Split
    test: Split
    classes: list[str] | None
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
    splits = [found.splits[split_for(found, role, path)] for role in ("train", "test")]
    train, test = (
        verdict_of(split.annotations, split.images, str(split.shown), evaluated=split is splits[1])
        for split in splits
    )
    hashes = f"{train.sha256[:12]} {test.sha256[:12]}"
    images = train.counts["images"], test.counts["images"]
    return Data(path, *splits, found.classes, *images, hashes)


class BackboneStudy(CellStudy):
    """Each arm with each seed, seed by seed: whoever stops early has all arms, of fewer seeds.

    Between the arms of a seed the weights of the backbone differ and nothing else: RPN, heads and FPN start
    alike, images come in one order with the same augmentations, and the same is frozen. With random weights
    among the arms, whose stem has to learn, nothing is frozen in any.

    Args:
        config: of the recipe; "" for the one that --data takes.
        seeds: of each arm, from 0.
        overrides: of every run's config.
        slurm: options of `tools/train_net.py --slurm` for each cell; "" to run them here.

    Attributes:
        cfg: of every run, with the overrides.
        found: what came out, once there is something to compare.
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
        overrides: Sequence[str] = (),
        only: Sequence[str] | None = None,
        jobs: int = 1,
        slurm: str = "",
        keep_checkpoints: bool = False,
    ):
        if protocol == "frozen" and any(not arm.source for arm in arms):
            raise InputError(
                f"--protocol frozen: {RANDOM} would keep its random weights, which are worth nothing; leave "
                "it out, or fine-tune"
            )
        self.arms = {arm.name: arm for arm in arms}
        self.data, self.protocol, self.config, self.seeds = data, protocol, config, seeds
        self.slurm = slurm
        self.found: Comparison | None = None
        self.percent = labelled_percent(protocol)
        images = data.train_images
        if self.percent:
            from ..data.dividing import number_labelled

            images = number_labelled(images, self.percent)
        label = FINETUNED if protocol == "recipe" else protocol
        self.overrides, self.cfg = _settled(config, arms, protocol, overrides)
        whole = [Cell(arm.name, label, images, seed) for seed in range(seeds) for arm in arms]
        super().__init__(
            output,
            chosen(whole, only),
            root=root,
            jobs=jobs,
            order=[cell.name for cell in whole],
            keep_checkpoints=keep_checkpoints,
        )
        self.places = [{}] if slurm else _gpus()

    def settings(self) -> dict[str, Any]:
        from ..engine.recipe import fingerprint

        return {
            "annotations": self.data.annotations,
            "protocol": self.protocol,
            "overrides": self.overrides,
            # A config may be edited between two starts.
            "recipe": fingerprint(self.cfg)[:12],
        }

    def read(self) -> None:
        """And refuse an arm that had its name from another file; new ones may be added.

        Of a study in which no cell has begun everything may be changed.
        """
        if not self._has_begun():
            for file in (self.settings_file, *(self.folder / "weights").glob("*.json")):
                file.unlink(missing_ok=True)
        super().read()
        (self.folder / "weights").mkdir(exist_ok=True)
        for name, arm in self.arms.items():
            path = self.folder / "weights" / f"{name}.json"
            check_settings(path, {f"arm {name}": identity_of_source(arm.source)})

    def _has_begun(self) -> bool:
        return any((self.folder / "cells").glob("*/run.json"))

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
        if self.percent:
            for seed in dict.fromkeys(cell.seed for cell in missing):
                self._write_share(seed)

    def data_of(self, seed: int) -> str:
        """The path of what a seed's cells are trained and tested on."""
        if not self.percent:
            return self.data.path
        return str(self.output / "data" / f"{self.protocol}_{seed}" / "data.yaml")

    def check_shares(self) -> None:
        """Refuse a share of the labels, of any seed, that says nothing.

        Raises:
            InputError: no image of it has an object.
        """
        for seed in range(self.seeds if self.percent else 0):
            share = self._share(seed)
            if not share["annotations"]:
                raise InputError(
                    f"--protocol {self.protocol}: none of the {len(share['images'])} images of seed {seed} "
                    "has an object; take a larger share"
                )

    @cached_property
    def _whole(self) -> Mapping[str, Any]:
        from ..data.annotations.reading import read_coco

        split = self.data.train
        content, _ = read_coco(split.annotations.read_bytes(), str(split.shown), str(split.images))
        return content

    def _share(self, seed: int) -> dict[str, Any]:
        from ..data.dividing import with_labels_of

        return with_labels_of(self._whole, self.percent, seed)

    def _write_share(self, seed: int) -> None:
        """Write a seed's data: a share of the training images, the same for all arms, and the test set."""
        import yaml

        path = self.root / self.data_of(seed)
        for role, split in (("train", self.data.train), ("val", self.data.test)):
            folder = path.parent / role
            folder.mkdir(parents=True, exist_ok=True)
            images, content = folder / "images", split.annotations.read_bytes()
            if role == "train":
                content = json.dumps(self._share(seed)).encode()
            write_atomically(folder / "instances.json", lambda file, data=content: file.write(data))
            if not os.path.exists(images) or not os.path.samefile(images, split.images):
                images.unlink(missing_ok=True)
                images.symlink_to(split.images)
        # The files by name: labels of other formats may lie among the images.
        content = {role: f"{role}/instances.json" for role in ("train", "val")}
        if self.data.classes:
            content["names"] = self.data.classes
        write_text(path, yaml.safe_dump(content))

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
            if origin.get("source_sha256") != identity_of_source(source):
                raise InputError(
                    f"{converted} is not of {source}: remove it, or give another --output"
                )
        if not path.exists():
            words = (as_typed("tools/convert_checkpoint.py"), source, str(converted))
            self.prepare("conversion", [Step(f"convert_{name}", words, converted)])

    def _check_architectures(self, arms: Sequence[Arm]) -> None:
        """Refuse, before any cell, what one recipe cannot train."""
        from ..conversion.reading import provenance_of, read_checkpoint
        from ..engine.provenance import check_provenance

        provenances = {
            arm.name: provenance_of(read_checkpoint(self.root / self.weights_of(arm.name)))
            for arm in arms
        }
        found = {name: origin["architecture"]["name"] for name, origin in provenances.items()}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name} is a {architecture}" for name, architecture in found.items())
            raise InputError(f"one recipe trains one architecture, and {told}: compare equal ones")
        for origin in provenances.values():
            check_provenance(origin, self.cfg)

    def compare(self) -> int:
        """Say what came out, and write it as tables and as a page."""
        from ..progress import progress_bar
        from ..report.reading.ground_truth import GroundTruths
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
        # Where the data is now: a study may have been moved.
        truths = GroundTruths(self.data.test.annotations, self.data.test.images)
        found = comparison.compare(folders, controls, truths=truths, progress=progress_bar)
        self.found = found
        told = comparison.sentences(found) if len(self.arms) > 1 else []
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
            "trained on": f"{next(iter(self.cells.values())).budget:,} images",
            "tested on": f"{self.data.test_images:,} images",
        }
        name = Path(self.data.path).stem
        write_text(self.folder / _PAGE, format_comparison_page(name, facts, told, made, found.runs))

    def _table_of_cells(self) -> Table:
        """What each cost, and the hashes of its weights and of its recipe with them."""
        rows = [
            (
                *(row["arm"], row["seed"], row["status"], row["iterations"]),
                *(f"{self._seconds(name) / 60:.1f}", row["weights"][:12], row["fingerprint"][:12]),
            )
            for name, row in self.rows.items()
        ]
        columns = ("arm", "seed", "status", "iterations", "minutes", "weights", "fingerprint")
        return Table("Cells", columns, rows)

    def _seconds(self, name: str) -> float:
        """Of a whole cell; 0 where nothing says it.

        Not the row's, where there is more: a cell that went on had begun before, and a job has waited.
        """
        from ..engine import record

        row = self.rows[name]
        with suppress(InputError, ValueError, KeyError, IndexError, TypeError):
            start = record.read(self.folder / "cells" / name)["starts"][-1]
            since = datetime.fromisoformat(row["finished"]) - datetime.fromisoformat(start["time"])
            total, done = int(row["iterations"]), start["iteration"]
            # Of a shorter part the evaluation is too much to say anything of the whole.
            if done <= total / 2:
                return since.total_seconds() * total / (total - done)
        with suppress(ValueError):
            return max(0.0, float(row["seconds"]))
        return 0.0

    def _hours_of_cell(self) -> float:
        """The mean of those that are done; 0 without one."""
        self.rows = self.record.read()
        done = [self._seconds(name) for name, row in self.rows.items() if row["status"] == DONE]
        return sum(done) / max(1, len(done)) / 3600

    def _hours(self, cells: int, of_cell: float | None = None) -> float:
        """Of so many cells, by the time of one, which is looked up unless it is given."""
        of_cell = self._hours_of_cell() if of_cell is None else of_cell
        return of_cell * math.ceil(cells / self.jobs)

    def seeds_in(self, hours: float) -> int:
        """How many seeds fit, by the mean time of the cells that are done.

        Raises:
            InputError: none is done, or fewer seeds fit than give a verdict.
        """
        from .differences import FEWEST_SEEDS

        of_cell, arms = self._hours_of_cell(), len(self.arms)
        fewest = self._hours(FEWEST_SEEDS * arms, of_cell)
        if not fewest:
            first = next(iter(self.cells))
            raise InputError(
                f"--budget: no cell is done to tell the time by; run one, with --only {first} in place of "
                "--budget"
            )
        if fewest > hours:
            raise InputError(
                f"--budget: {FEWEST_SEEDS} seeds of every arm, the fewest for a verdict, take "
                f"{fewest:.1f} hours: give that, or fewer arms"
            )
        fitting = range(FEWEST_SEEDS, MOST_SEEDS + 1)
        return max(seeds for seeds in fitting if self._hours(seeds * arms, of_cell) <= hours)

    def plan(self) -> list[str]:
        """What would run, how long it takes as far as a cell has been measured, and what it can show."""
        if self._has_begun():
            self.read()
        missing = self.missing()
        lines = [f"{name}{'' if name in missing else ': done'}" for name in self.cells]
        at_once = min(self.jobs, len(self.cells))
        words = f"{len(missing)} of {len(self.cells)} cells to run, {at_once} at once"
        of_cell = self._hours_of_cell()
        if missing and of_cell:
            words += f": about {_time(self._hours(len(missing), of_cell))} by those that are done"
        return [*lines, "", words, *self._resolutions(of_cell)]

    def _resolutions(self, of_cell: float) -> list[str]:
        """What difference is shown in four of five such studies, of this and of other numbers of seeds."""
        from .differences import FEWEST_IMAGES, FEWEST_SEEDS, resolution

        arms, images_here = len(self.arms), self.data.test_images
        if self.seeds < FEWEST_SEEDS or images_here < FEWEST_IMAGES:
            return [
                f"fewer than {FEWEST_SEEDS} seeds or {FEWEST_IMAGES} test images give no verdict"
            ]
        if arms < 2:
            return []
        variances, images, origin = self._known_variances()
        variances = variances.with_images(images_here / images)
        lines = [
            f"differences of box AP that are shown in 4 of 5 such studies ({arms} arms, {images_here:,} test "
            f"images; by the spread of {origin}):"
        ]
        for seeds in sorted({3, 5, 10, self.seeds}):
            points = resolution(arms, seeds, images_here, variances)
            hours = self._hours(seeds * arms, of_cell)
            takes = f", {_time(hours)}" if hours else ""
            this = " (this study)" if seeds == self.seeds else ""
            lines.append(f"  {seeds} seeds: {points:.1f} points{takes}{this}")
        return lines

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
            *("--data", self.data_of(cell.seed), "--resume"),
            *(("--slurm", self.slurm) if self.slurm else ()),
            f"train.init_checkpoint={self.weights_of(cell.arm) or ''}",
            f"train.output_dir={folder}",
            f"train.seed={cell.seed}",
            "train.paired_init=true",
            *self.overrides,
        )
        return Step(cell.name, words, folder / "inference" / "metrics.json")


def _settled(
    config: str, arms: Sequence[Arm], protocol: str, overrides: Sequence[str]
) -> tuple[list[str], DictConfig]:
    """Every run's overrides, the protocol's before the user's, and its config with them.

    Raises:
        InputError: the config does not load, an override is wrong, or the backbone is no FPN's.
    """
    from omegaconf import OmegaConf

    from ..engine.config import DEFAULT_CONFIG, load_config
    from ..engine.schedule import check_batch
    from ..lazy import stock_name
    from ..modeling.freezing import freeze_at_of_all

    cfg = load_config(config or DEFAULT_CONFIG, list(overrides))
    if OmegaConf.select(cfg, _BOTTOM_UP) is None:
        raise InputError(
            f"{config} has no {_BOTTOM_UP}: it compares detectors with a pyramid on a backbone"
        )
    words = []
    if protocol == "frozen":
        bottom_up = cfg.model.backbone.bottom_up
        keys = [
            key for key in ("norm", "stem.norm", "stages.norm") if OmegaConf.select(bottom_up, key)
        ]
        freeze_at = freeze_at_of_all(stock_name(bottom_up.get("_target_")), bottom_up.get("depth"))
        words = [f"{_FREEZE_AT}={freeze_at}", *(f"{_BOTTOM_UP}.{key}=FrozenBN" for key in keys)]
        # Else blocks of what is to stay as it is would be left out by chance.
        words += [f"{_BOTTOM_UP}.drop_path=0.0"] if bottom_up.get("drop_path") else []
    elif any(not arm.source for arm in arms):
        words = [f"{_FREEZE_AT}=0"]
    words += overrides
    cfg = load_config(config or DEFAULT_CONFIG, words)
    if any(word.startswith("dataloader.train.total_batch_size=") for word in overrides):
        # Another one is chosen by each run, with a learning rate to go with it.
        check_batch(cfg, 1)
    return words, cfg


def labelled_percent(protocol: str) -> int:
    """Of low_shot_10 the 10; 0 of other protocols.

    Raises:
        InputError: there is no such protocol.
    """
    if protocol in PROTOCOLS[:2]:
        return 0
    if found := re.fullmatch(r"low_shot_([1-9]\d?)", protocol):
        return int(found[1])
    raise InputError(
        f"no protocol is called {protocol}: there are recipe, frozen and low_shot_1 to low_shot_99, of that "
        "many percent of the training images"
    )


_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")


def from_words(
    words: Sequence[str],
    data: str,
    output: Path | None,
    *,
    seeds: int,
    hours: float | None = None,
    jobs: int | None = None,
    fewest: int = 2,
    protocol: str = "recipe",
    config: str = "",
    slurm: str = "",
    **options: Any,
) -> BackboneStudy:
    """The study that a command line asks for, which runs in the current folder.

    Args:
        words: arms, and overrides among them.
        seeds: of each arm, unless `hours` say how many.
        hours: that all cells may take, by those that are done.
        jobs: None for one a GPU, else one a core as far as memory goes; of Slurm's, all at once.
        fewest: arms that there must be.
        options: further ones of `BackboneStudy`.

    Raises:
        InputError: an arm, the data, or what goes with them is wrong.
    """
    overrides = [word for word in words if _OVERRIDE.match(word) and not Path(word).is_file()]
    refuse_set(overrides, SET_BY)
    arms = parse_arms([word for word in words if word not in overrides], fewest)
    labelled_percent(protocol)
    if slurm:
        from ..engine.launching.slurm import waiting

        slurm = waiting(slurm)
        if hours is not None and jobs is None:
            raise InputError("--budget with --slurm: say by --jobs how many cells run at once")
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
            overrides=overrides,
            # Slurm's queue has room for all of them.
            jobs=jobs or (len(arms) * MOST_SEEDS if slurm else _jobs()),
            slurm=slurm,
            **options,
        )

    if hours is not None:
        seeds = of(MOST_SEEDS).seeds_in(hours)
    study = of(seeds)
    study.check_shares()
    return study


def _time(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 2 else f"{max(1, round(60 * hours))} minutes"


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
