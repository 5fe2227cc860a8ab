"""Datasets: importing this package enters the embedded ones in Detectron2's catalogs."""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances

DIGITS_COMMAND = "python projects/digits/make_dataset.py"
"""The command that makes the digits dataset: whoever misses the files is told to run it."""


def datasets_root() -> Path:
    """Where Detectron2 looks for datasets: $DETECTRON2_DATASETS, or else ./datasets."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def mend_of_missing(path: str | os.PathLike) -> str:
    """What to do about a registered dataset's file or folder that is not there, to end a sentence with."""
    root = datasets_root().expanduser()
    if root not in Path(path).parents:
        return "put it there"
    first = Path(path).relative_to(root).parts[0]
    return f"put it there, or set DETECTRON2_DATASETS to the folder that holds {first}/"


def digits_root() -> Path:
    """Where the digits dataset lies."""
    return datasets_root() / "digits"


def register_digits(root: str | os.PathLike, prefix: str = "digits") -> None:
    """Register `{prefix}_train` and `{prefix}_test`, made by `digits.digits_dataset.write_digits` in `root`.

    Nothing is read: the files may be made later, and the metadata's `made_by` says with what command.
    """
    for split in ("train", "test"):
        register_coco_instances(
            f"{prefix}_{split}",
            {"thing_classes": [str(digit) for digit in range(10)], "made_by": DIGITS_COMMAND},
            str(Path(root) / "annotations" / f"{split}.json"),
            str(Path(root) / split),
        )


if "digits_train" not in DatasetCatalog:
    register_digits(digits_root())
