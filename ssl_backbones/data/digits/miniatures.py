"""VOC and COCO in miniature, in their own formats, where Detectron2 looks for the large ones.

So real readers, evaluators and protocols run unchanged on pictures that are made in seconds: those of
`digit_scenes`, of other scenes than the digits dataset. Which scene stands where depends on
the seed and its place alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import InputError
from ...files import write_folder
from .coco_miniature import write_coco
from .digits_dataset import check_arguments, describe
from .voc_miniature import write_voc

FORMATS = {"voc": ("VOC2007", "VOC2012"), "coco": ("coco",)}
"""What can be written, and the folders that it takes below $DETECTRON2_DATASETS."""

MARK = "miniature.json"
"""The file that tells a miniature from the real dataset: the arguments that it was made with."""


def write_miniatures(
    root: str | os.PathLike,
    formats: Sequence[str] = tuple(FORMATS),
    *,
    num_train: int,
    num_test: int,
    size: int,
    seed: int,
    on_scene: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write VOC2007 and VOC2012, or coco, or all of them into `root`; the same arguments give the same bytes.

    Each folder appears whole or not at all, and takes the place of a miniature that was there before.

    Args:
        num_train: pictures to train on, of each year of VOC and of COCO.
        num_test: pictures to test on, of VOC2007 and of COCO.
        on_scene: called after each of `count_scenes`, for a progress bar.

    Returns:
        The folders.

    Raises:
        InputError: a bad size or number, a folder that cannot be written, or one that holds something else,
            such as the real dataset.
    """
    info = {"num_train": num_train, "num_test": num_test, "size": size, "seed": seed}
    check_arguments(info)
    folders = [Path(root) / name for format_ in formats for name in FORMATS[format_]]
    for folder in folders:
        _refuse_what_is_not_ours(folder)
    for folder in folders:

        def fill(made: Path, name: str = folder.name) -> None:
            if name == "coco":
                write_coco(made, info, on_scene)
            else:
                write_voc(made, name.removeprefix("VOC"), info, on_scene)
            (made / MARK).write_text(json.dumps(describe(**info)))

        write_folder(folder, fill)
    return folders


def count_scenes(formats: Sequence[str], num_train: int, num_test: int) -> int:
    """How many pictures `write_miniatures` makes."""
    per_format = {"voc": 2 * num_train + num_test, "coco": num_train + num_test}
    return sum(per_format[format_] for format_ in formats)


def read_mark(folder: str | os.PathLike) -> dict | None:
    """The arguments that the miniature in `folder` was made with; None if there is none."""
    try:
        return json.loads((Path(folder) / MARK).read_text())
    except (OSError, ValueError):
        return None


def _refuse_what_is_not_ours(folder: Path) -> None:
    if folder.exists() and not (
        folder.is_dir() and (not any(folder.iterdir()) or read_mark(folder))
    ):
        raise InputError(
            f"{folder} holds something else than a miniature, perhaps the real dataset: give another folder, "
            "or set DETECTRON2_DATASETS"
        )
