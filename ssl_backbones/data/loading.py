"""The training images, micro-batch by micro-batch: in an order that can be resumed, whatever loads them."""

from __future__ import annotations

import copy
import inspect
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from omegaconf import DictConfig
from torch.utils.data import DataLoader, IterableDataset

from ..errors import InputError
from ..fast.annotations.packed_dataset import PackedDataset
from ..lazy import target_of
from .images import UnusableImageError
from .order import GlobalOrder, Progress, Sample
from .samples import FEW_UNUSABLE, Collate, SeededDataset

logger = logging.getLogger(__name__)

MOST_UNUSABLE = 0.01
"""Share of the images read so far that may be unusable, once more than `FEW_UNUSABLE` are."""

_SEEDS = ("seed", "seed_shuffle", "seed_subset")
"""Arguments of Detectron2's samplers that it would draw at random where a config leaves them out."""
_OWN = ("dataset", "mapper", "sampler", "total_batch_size", "aspect_ratio_grouping", "collate_fn")
# Detectron2 main also takes these. An infinite order drops no last batch, and its seed is the run's.
_SETTLED = ("drop_last", "seed", "generator", "single_gpu_batch_size")
_NEEDS_WORKERS = ("prefetch_factor", "persistent_workers")


def build_train_loader(
    cfg: DictConfig,
    *,
    seed: int,
    accumulate: int = 1,
    rank: int | None = None,
    world_size: int | None = None,
) -> TrainLoader | ForeignLoader:
    """Make the loader that a config's `dataloader.train` describes, its order and augmentations seeded.

    Args:
        cfg: a lazy call of Detectron2's `build_detection_train_loader` with its arguments spelt out. Its
            `total_batch_size` counts the images of an optimizer step, over all processes and micro-batches.
            Whatever else it calls, or an order that cannot be replayed, is used as it is, with a warning.
        seed: from 0. The same seed gives the order of Detectron2's `TrainingSampler(seed=seed)`.
        accumulate: micro-batches in an optimizer step of one process.
        rank, world_size: the place among the processes; by default the process group's.

    Raises:
        InputError: the batch does not divide, or the dataset is empty or does not say its images' sizes.
    """
    target = cfg.get("_target_")
    if target_of(cfg) is not build_detection_train_loader:
        return _foreign(cfg, accumulate, f"{getattr(target, '__name__', target)} makes its own")
    if "dataset" not in cfg:
        return _foreign(cfg, accumulate, "it is made from a yaml config")
    cfg = _with_seeded_sampler(cfg, seed)
    try:
        arguments = {key: instantiate(value) for key, value in cfg.items() if key != "_target_"}
    except AssertionError as error:
        # Detectron2's way to say that a dataset has nothing to train on, or a category out of range.
        raise InputError(f"dataloader.train cannot be made: {error}") from error
    dataset, sampler = arguments["dataset"], arguments.get("sampler")
    if isinstance(dataset, IterableDataset):
        return _foreign(cfg, accumulate, "its dataset can only be iterated over")
    if len(dataset) == 0:
        raise InputError("dataloader.train.dataset holds no image")
    if sampler is None:
        sampler = TrainingSampler(len(dataset), seed=seed)
    elif not hasattr(sampler, "_infinite_indices"):
        return _foreign(cfg, accumulate, f"{type(sampler).__name__} does not tell its global order")
    rank = comm.get_rank() if rank is None else rank
    slots = accumulate * (comm.get_world_size() if world_size is None else world_size)
    return _resumable({**arguments, "sampler": sampler}, seed, accumulate, slots, rank)


def _resumable(
    arguments: Mapping[str, Any], seed: int, accumulate: int, slots: int, rank: int
) -> TrainLoader:
    dataset, sampler = arguments["dataset"], arguments["sampler"]
    is_landscape = _landscape(dataset) if arguments.get("aspect_ratio_grouping", True) else None
    order = GlobalOrder(
        sampler._infinite_indices,
        batch_size=_micro_batch(arguments, slots),
        slots=slots,
        is_landscape=is_landscape,
    )
    return TrainLoader(
        SeededDataset(dataset, arguments.get("mapper"), sampler, is_landscape, seed),
        order,
        rank=rank,
        accumulate=accumulate,
        collate_fn=arguments.get("collate_fn"),
        options={k: v for k, v in arguments.items() if k not in (*_OWN, *_SETTLED)},
    )


class TrainLoader:
    """Iterates over the micro-batches of one process, forever, from where `load_state_dict` put it.

    A micro-batch is a list of mapped images (or what the config's `collate_fn` makes of it). Each image
    that is a dict also holds "position", its place in the global order, and "index", that of the dataset.
    What an image looks like depends on (seed, position) alone: not on workers, processes or restarts.

    An image that cannot be read is replaced by another one of its shape, drawn by (seed, position), with a
    warning. `skipped` counts them.
    """

    def __init__(
        self,
        dataset: SeededDataset,
        order: GlobalOrder,
        *,
        rank: int,
        accumulate: int,
        collate_fn: Callable[[list], Any] | None,
        options: Mapping[str, Any],
    ):
        self.batch_size = order.batch_size
        self.skipped = 0
        self._read = 0
        self._named: set[str] = set()
        self._dataset = dataset
        self._order = order
        self._rank = rank
        self._accumulate = accumulate
        self._collate = Collate(collate_fn)
        self._options = options
        self._progress = Progress()

    def __iter__(self) -> Iterator[Any]:
        # Workers fetch ahead: a micro-batch's progress waits here until the micro-batch is handed out.
        planned: deque[Progress | None] = deque()
        for batch, faults in self._loader(self._plan(planned)):
            progress = planned.popleft()
            self._count(faults)
            if progress is not None:
                self._progress = progress
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on after the whole iterations handed out so far; on every rank the same.

        "waiting" lists the [position, index] pairs that were drawn and wait for others of their shape.
        """
        return {
            "seed": self._dataset.seed,
            "images": len(self._dataset),
            "position": self._progress.position,
            "waiting": [list(sample) for sample in self._progress.waiting],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state` at the next `iter()`; the number of processes may be another one.

        Raises:
            InputError: the state is of another seed or another number of images: another order.
        """
        for name, ours in (("seed", self._dataset.seed), ("images", len(self._dataset))):
            if state.get(name) != ours:
                raise InputError(
                    f"the checkpoint's order of images has {name} {state.get(name)}, this run has {ours}: it "
                    "cannot go on from there; use the same data and train.seed, or a new run folder"
                )
        waiting = tuple((int(position), int(index)) for position, index in state["waiting"])
        self._progress = Progress(int(state["position"]), waiting)

    def _plan(self, planned: deque[Progress | None]) -> Iterator[list[Sample]]:
        for samples, progress in self._order.of_process(
            self._progress, self._rank, self._accumulate
        ):
            planned.append(progress)
            yield samples

    def _loader(self, plan: Iterator[list[Sample]]) -> DataLoader:
        options = dict(self._options)
        if not options.get("num_workers"):
            for name in _NEEDS_WORKERS:
                options.pop(name, None)
        return DataLoader(
            self._dataset,
            batch_sampler=plan,
            collate_fn=self._collate,
            worker_init_fn=_leave_process_group,
            # Workers get their seeds from it, unused here, instead of from the model's randomness.
            generator=torch.Generator(),
            **options,
        )

    def _count(self, faults: Sequence[str]) -> None:
        """Count and tell what was skipped.

        Raises:
            UnusableImageError: too much was.
        """
        self._read += self.batch_size + len(faults)
        for fault in faults:
            self.skipped += 1
            if fault not in self._named:
                self._named.add(fault)
                logger.warning(f"{fault}. Another one takes its place ({self.skipped} so far)")
        if faults and self.skipped > max(FEW_UNUSABLE, MOST_UNUSABLE * self._read):
            raise UnusableImageError(
                f"{self.skipped} of the {self._read} images read so far cannot be used. The last one: "
                f"{faults[-1]}"
            )


class ForeignLoader:
    """The loader of a config that decides on its order itself, used as it is; on resume it starts anew.

    The interface is `TrainLoader`'s; positions and indices are None.
    """

    batch_size = None
    skipped = 0

    def __init__(self, loader: Any):
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            for image in batch if isinstance(batch, list) else ():
                if isinstance(image, dict):
                    image.setdefault("position", None)
                    image.setdefault("index", None)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing is known of where the loader stands."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing: the order starts anew, as was said when the loader was made."""


def _foreign(cfg: DictConfig, accumulate: int, reason: str) -> ForeignLoader:
    logger.warning(
        f"The order of the training images cannot be resumed: {reason}. With --resume it starts anew"
    )
    if accumulate > 1:
        if not cfg.get("total_batch_size"):
            raise InputError(
                f"train.accumulate={accumulate} needs a loader with total_batch_size; use "
                "train.accumulate=1"
            )
        # Such a loader divides it among the processes alone.
        cfg = copy.deepcopy(cfg)
        cfg.total_batch_size = _micro_batch(cfg, accumulate)
    return ForeignLoader(instantiate(cfg))


def _micro_batch(arguments: Mapping[str, Any], slots: int) -> int:
    """Images in each of the `slots` micro-batches of an iteration."""
    if arguments.get("single_gpu_batch_size"):
        return arguments["single_gpu_batch_size"]
    total = arguments["total_batch_size"]
    if total < 1 or total % slots:
        raise InputError(
            f"dataloader.train.total_batch_size={total} does not divide into {slots} micro-batches "
            "(processes times train.accumulate); make it a multiple, or change their number"
        )
    return total // slots


def _with_seeded_sampler(cfg: DictConfig, seed: int) -> DictConfig:
    """A copy whose sampler has the run's seed where the config leaves it to chance."""
    # A deep copy keeps its parent and with it the interpolations.
    cfg = copy.deepcopy(cfg)
    sampler = cfg.get("sampler")
    if isinstance(sampler, DictConfig) and "_target_" in sampler:
        takes = inspect.signature(target_of(sampler)).parameters
        for name in _SEEDS:
            if name in takes and sampler.get(name) is None:
                sampler[name] = seed
    return cfg


def _landscape(dataset: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """By index, whether the image is wider than high; reads every record once, if these do not tell."""
    if isinstance(dataset, PackedDataset):
        return dataset.landscape()
    try:
        return np.array([dataset[i]["width"] > dataset[i]["height"] for i in range(len(dataset))])
    except (KeyError, TypeError) as error:
        raise InputError(
            "dataloader.train.aspect_ratio_grouping=true needs the width and height of every image in the "
            "dataset; add them, or set it to false"
        ) from error


def _leave_process_group(worker: int) -> None:
    """Keep a worker out of reach of signals to the run's process group: its trainer still needs it.

    Ctrl-C, and the signals by which a cluster asks for a last checkpoint, are the trainer's. A worker ends
    when its loader is done, and by itself when its trainer is gone.
    """
    os.setsid()
