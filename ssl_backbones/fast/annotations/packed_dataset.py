"""Training and test datasets whose annotations all processes of a machine share, opened in moments."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    get_detection_dataset_dicts,
    print_instances_class_histogram,
)
from detectron2.data.datasets import register_coco_instances
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.utils.file_io import PathManager
from torch.utils.data import Dataset

from ...errors import InputError
from .coco_json import UnusualError, announce
from .packed import UnpackableError
from .packed_cache import AnnotationCache, Packed, reopen

logger = logging.getLogger(__name__)


def packed_detection_dataset(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> PackedDataset | list[dict[str, Any]]:
    """What `detectron2.data.get_detection_dataset_dicts` returns of datasets registered as COCO instances.

    The annotations are packed into the cache folder, once for each content of a JSON file, and mapped from
    there: opening them takes a fraction of a second, and the workers of all processes share one copy.
    Keypoints, proposals and datasets registered in another way take Detectron2's own function and are a
    list, as with it. So does everything, with a warning, if the cache folder cannot be written to.

    Raises:
        AssertionError: a dataset is empty or has nothing to train on, as with Detectron2.
    """
    names = [names] if isinstance(names, str) else list(names)
    try:
        if min_keypoints or proposal_files is not None:
            raise UnusualError("keypoints or proposals are asked for")
        opened = [_open(name) for name in names]
    except (UnusualError, UnpackableError, InputError, OSError) as reason:
        # What is in the file is as it is; a cache that cannot be used, the user can mend.
        mendable = isinstance(reason, InputError | OSError)
        logger.log(
            logging.WARNING if mendable else logging.INFO,
            f"{', '.join(names)}: read by Detectron2's own function, since {reason}",
        )
        return get_detection_dataset_dicts(
            names, filter_empty, min_keypoints, proposal_files, check_consistency
        )
    parts = []
    for name, (path, image_root, packed) in zip(names, opened, strict=True):
        announce(packed.facts, path, name)
        assert len(packed.records), f"Dataset '{name}' is empty!"
        parts.append(_Part(packed, image_root, np.arange(len(packed.records))))
    if filter_empty:
        parts = _without_empty(parts)
    if check_consistency:
        check_metadata_consistency("thing_classes", names)
        _show_histogram(parts, names)
    dataset = PackedDataset(parts)
    assert len(dataset), f"No valid data found in {','.join(names)}."
    return dataset


class _Part(NamedTuple):
    packed: Packed
    image_root: str
    chosen: np.ndarray  # indices of the records, in the dataset's order


class PackedDataset(Dataset, Sequence):
    """The records of one or several COCO files, made anew for each `dataset[index]`.

    To torch a dataset and to Python a sequence of dicts in Detectron2's format. It may be pickled, as loaders
    that start their workers anew do: what is copied are the places of the packed annotations, which are those
    of the same content even if the COCO file changes.
    """

    def __init__(self, parts: Sequence[_Part]):
        self._parts = list(parts)
        self._ends = np.cumsum([len(part.chosen) for part in parts]).tolist()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        index = int(index)
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} in a dataset of {len(self)}")
        start = 0
        for part, end in zip(self._parts, self._ends, strict=True):
            if index < end:
                chosen = int(part.chosen[index - start])
                return part.packed.records.record(chosen, part.image_root)
            start = end

    def landscape(self) -> np.ndarray:
        """By index, whether the image is wider than high; without making the records."""
        sizes = np.concatenate([part.packed.records.sizes[part.chosen] for part in self._parts])
        return sizes[:, 1] > sizes[:, 0]

    def __getstate__(self) -> list[tuple[Path, str, str, np.ndarray]]:
        return [
            (part.packed.folder, part.packed.sha256, part.image_root, part.chosen)
            for part in self._parts
        ]

    def __setstate__(self, state: list[tuple[Path, str, str, np.ndarray]]) -> None:
        self.__init__(
            [
                _Part(reopen(folder, sha256), image_root, chosen)
                for folder, sha256, image_root, chosen in state
            ]
        )


def is_registered_by(register: Callable[..., Any], name: str) -> bool:
    """Whether this function of Detectron2's registered the dataset `name`."""
    loader = DatasetCatalog.data.get(name)
    return (
        getattr(loader, "__qualname__", None) == f"{register.__qualname__}.<locals>.<lambda>"
        and loader.__module__ == register.__module__
    )


def _open(name: str) -> tuple[str, str, Packed]:
    """A dataset's COCO file on this machine, the folder of its images, and what is in the cache.

    Raises:
        UnusualError: it is not one that `register_coco_instances` registered.
    """
    if not is_registered_by(register_coco_instances, name):
        raise UnusualError(f"{name} is not registered by {register_coco_instances.__name__}")
    arguments = inspect.getclosurevars(DatasetCatalog.data[name]).nonlocals
    path = PathManager.get_local_path(arguments["json_file"])
    return path, os.fspath(arguments["image_root"]), AnnotationCache().packed(path)


def _without_empty(parts: Sequence[_Part]) -> list[_Part]:
    kept = [part._replace(chosen=part.packed.records.with_plain_annotations()) for part in parts]
    before, after = (sum(len(part.chosen) for part in each) for each in (parts, kept))
    logger.info(f"Removed {before - after} images with no usable annotations. {after} images left.")
    return kept


def _show_histogram(parts: Sequence[_Part], names: Sequence[str]) -> None:
    """Detectron2's table of the objects in each category, which it makes of records."""
    classes = MetadataCatalog.get(names[0]).thing_classes
    annotation = [{"category_id": category} for category in range(len(classes))]
    categories = np.concatenate([part.packed.records.plain_categories for part in parts]).tolist()
    record = {"annotations": [annotation[category] for category in categories]}
    print_instances_class_histogram([record], classes)
