"""The images of a config's test loader, each addressed by its index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import build_detection_test_loader
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from ..data.images import readable
from ..lazy import target_of


def can_address_images(loader_cfg: Any) -> bool:
    """Whether the loader is Detectron2's own and leaves the order of the images to us."""
    if not isinstance(loader_cfg, DictConfig) or loader_cfg.get("sampler") is not None:
        return False
    return target_of(loader_cfg) is build_detection_test_loader and "dataset" in loader_cfg


class TestSet:
    """Loads any of the images of a lazy call of Detectron2's `build_detection_test_loader`, in any order."""

    __test__ = False  # no test, though pytest would take it for one by its name

    def __init__(self, loader_cfg: DictConfig):
        self._cfg = loader_cfg
        self.images = instantiate(loader_cfg.dataset)

    def loader(self, indices: Sequence[int]) -> DataLoader:
        """A loader of the images `indices`, in this order; one that cannot be read is an `InputError`."""
        given = {
            name: instantiate(value)
            for name, value in self._cfg.items()
            if name not in ("_target_", "dataset", "sampler")
        }
        if given.get("mapper") is not None:
            given["mapper"] = readable(given["mapper"])
        return build_detection_test_loader(self.images, sampler=list(indices), **given)


def evenly_spread(size: int, count: int) -> list[int]:
    """`count` of the indices 0 ... `size` - 1, evenly spread and always the same ones; 0 for all of them."""
    if not 0 < count < size:
        return list(range(size))
    return [step * size // count for step in range(count)]
