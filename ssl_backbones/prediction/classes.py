"""The names and COCO ids of a detector's classes."""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ..errors import InputError

logger = logging.getLogger(__name__)

_COUNTS = ("model.roi_heads.num_classes", "model.num_classes")
"""Where two-stage and one-stage detectors have their number of classes."""


class Classes(NamedTuple):
    """By class number, from 0: the name, and the `category_id` in COCO files."""

    names: list[str]
    ids: list[int]

    def categories(self) -> list[dict[str, Any]]:
        """As a COCO file lists them."""
        return [{"id": id_, "name": name} for id_, name in zip(self.ids, self.names, strict=True)]


def classes_of(cfg: DictConfig) -> Classes:
    """The classes of the config's test dataset, whose images need not be there.

    A dataset that is not registered, or has another number of classes than the model, gives "class 0",
    "class 1", ... with these numbers for ids, and a warning.

    Raises:
        InputError: neither the dataset nor the config says how many classes there are.
    """
    counts = (OmegaConf.select(cfg, key) for key in _COUNTS)
    count = next((count for count in counts if count is not None), None)
    known = _registered(OmegaConf.select(cfg, "dataloader.test.dataset.names"))
    if known is not None and count in (None, len(known.names)):
        return known
    if count is None:
        raise InputError(
            "nothing says which classes there are: register the config's test dataset, with thing_classes"
        )
    why = (
        "the config's test dataset is not registered here"
        if known is None
        else f"the config's test dataset has {len(known.names)} classes, and the model {count}"
    )
    logger.warning(f"Classes have numbers for names: {why}")
    numbers = list(range(count))
    return Classes([f"class {number}" for number in numbers], numbers)


def _registered(names: Any) -> Classes | None:
    """The classes in the metadata of a dataset, or of the first of several."""
    name = names if isinstance(names, str) or not names else names[0]
    if not name or name not in MetadataCatalog.list():
        return None
    metadata = MetadataCatalog.get(name)
    class_names = metadata.get("thing_classes")
    if class_names is None:
        return None
    class_of = metadata.get("thing_dataset_id_to_contiguous_id")
    # A dataset of the user's own gets its ids when it is loaded; its categories are enough.
    ids = sorted(class_of, key=class_of.get) if class_of else _ids_in(metadata.get("json_file"))
    if ids is None or len(ids) != len(class_names):
        ids = list(range(len(class_names)))
    return Classes(list(class_names), ids)


def _ids_in(json_file: str | None) -> list[int] | None:
    """The category ids of a COCO file in the order in which Detectron2 numbers them; None without one."""
    try:
        with PathManager.open(json_file) as file:
            return sorted(category["id"] for category in json.load(file)["categories"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
