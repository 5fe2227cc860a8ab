"""What stands at a position of the order: an image, mapped by chance that depends on the position alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import Dataset

from ..seeding import seed_everything
from .images import UnusableImageError, load
from .order import Sample

FEW_UNUSABLE = 10
"""Images that may be unusable whatever their share: in a row, or of all that were read so far."""
_MOST_ATTEMPTS = 1000  # to replace one image that the mapper does not want


class SeededDataset(Dataset):
    """A dataset of samples: what stands at (position, index) depends on the seed and those two alone.

    Gives the mapped image and the reasons why others, whose place it takes, could not be used.
    """

    def __init__(
        self,
        records: Sequence[Any],
        mapper: Callable[[Any], Any] | None,
        sampler: Any,
        is_landscape: np.ndarray | None,
        seed: int,
    ):
        # Serialised, as in Detectron2: workers then share the memory.
        self._records = (
            DatasetFromList(records, copy=False) if isinstance(records, list) else records
        )
        self._mapper = None if mapper is None else PicklableWrapper(mapper)
        # A random subset of the dataset stays one.
        self._subset = getattr(sampler, "_indexes_subset", None)
        self._is_landscape = is_landscape
        self.seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, sample: Sample) -> tuple[Any, list[str]]:
        position, index = sample
        faults: list[str] = []
        for attempt in range(_MOST_ATTEMPTS):
            chosen = self._replacement(position, index, attempt) if attempt else index
            try:
                image = self._mapped(position, chosen)
            except UnusableImageError as error:
                faults.append(str(error))
                if len(faults) > FEW_UNUSABLE:
                    raise UnusableImageError(
                        f"{len(faults)} images in a row cannot be used. The last one: {error}"
                    ) from error
                continue
            # A mapper returns None for what it does not want, as in Detectron2.
            if image is not None:
                if isinstance(image, dict):
                    image["position"], image["index"] = position, index
                return image, faults
        raise UnusableImageError(
            f"dataloader.train.mapper returned None for {_MOST_ATTEMPTS} images in a row; it must take some"
        )

    def _mapped(self, position: int, index: int) -> Any:
        record = self._records[index]
        if self._mapper is None:
            return record
        with _seeded(self.seed, position):
            return load(self._mapper, record)

    def _replacement(self, position: int, index: int, attempt: int) -> int:
        """Another index, of an image of the same shape if images are grouped by it."""
        candidates = np.arange(len(self)) if self._subset is None else np.asarray(self._subset)
        if self._is_landscape is not None:
            candidates = candidates[self._is_landscape[candidates] == self._is_landscape[index]]
        return int(np.random.default_rng((self.seed, position, attempt)).choice(candidates))


class Collate:
    """Makes a micro-batch of what the dataset gives, and one list of all its faults."""

    def __init__(self, collate_fn: Callable[[list], Any] | None):
        self._collate_fn = None if collate_fn is None else PicklableWrapper(collate_fn)

    def __call__(self, loaded: list[tuple[Any, list[str]]]) -> tuple[Any, list[str]]:
        images = [image for image, _ in loaded]
        faults = [fault for _, faults in loaded for fault in faults]
        return images if self._collate_fn is None else self._collate_fn(images), faults


@contextmanager
def _seeded(seed: int, position: int) -> Iterator[None]:
    """Let all that draws within the block depend on these two; outside it, nothing was drawn.

    Without workers, images are mapped in the process whose model draws from the same generators.
    """
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_everything(seed, position)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
