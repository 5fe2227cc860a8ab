"""What the training loader really feeds the model, turned back into pictures."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ...data.annotations.examining import LARGE, SMALL
from ...data.loading import build_train_loader
from ...data.preparing import prepare
from ...drawing.instances import contact_sheet, save_picture, thumbnail
from ...drawing.mapped_images import class_names, draw_mapped_image, input_format
from ...engine import preflight
from ...errors import InputError

logger = logging.getLogger("detectron2")

FINEST_CELL = 4  # pixels: of an FPN's finest feature map


@dataclass
class Counts:
    """Of images after augmentation, as the model gets them.

    Attributes:
        sizes: (height, width) of each image.
        means: of each image's channels, in the tensor's order.
        without_objects: images without any.
        boxes: (width, height) of each object.
        by_class: objects by class number.
        skipped: images that could not be read, whose place others took.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    without_objects: int = 0
    boxes: list[tuple[float, float]] = field(default_factory=list)
    by_class: Counter[int] = field(default_factory=Counter)
    skipped: int = 0

    def add(self, image: Mapping[str, Any]) -> None:
        """Count a mapped image: "image", a tensor (C, H, W), and perhaps "instances"."""
        self.sizes.append(tuple(image["image"].shape[1:]))
        self.means.append(image["image"].double().mean(dim=(1, 2)).numpy())
        instances = image.get("instances")
        if instances is None or len(instances) == 0:
            self.without_objects += 1
            return
        corners = instances.gt_boxes.tensor
        self.boxes += [tuple(size) for size in (corners[:, 2:] - corners[:, :2]).tolist()]
        self.by_class.update(instances.gt_classes.tolist())

    def rows(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """The counts in words, a row each."""
        shorter, longer = ([side(size) for size in self.sizes] for side in (min, max))
        areas = np.array([width * height for width, height in self.boxes])
        narrow = sum(min(box) < FINEST_CELL for box in self.boxes)
        commonest = [
            f"{class_names[number] if number < len(class_names) else number} ({count})"
            for number, count in self.by_class.most_common(10)
        ]
        return [
            ("images", f"{len(self.sizes)}, of which {self.without_objects} without an object"),
            ("not readable", f"{self.skipped}, whose place others took"),
            ("shorter side", f"{min(shorter)} to {max(shorter)} pixels"),
            ("longer side", f"{min(longer)} to {max(longer)} pixels"),
            ("objects", f"{len(self.boxes)} of {len(self.by_class)} classes"),
            ("most frequent", ", ".join(commonest) or "none"),
            ("small boxes", f"{(areas < SMALL).sum()} below 32 x 32 pixels"),
            ("large boxes", f"{(areas > LARGE).sum()} above 96 x 96 pixels"),
            (
                "narrow boxes",
                f"{narrow} with a side below {FINEST_CELL} pixels, an FPN's finest cell",
            ),
        ]

    def channel_means(self) -> list[float]:
        """Over all images, in the tensors' order of channels."""
        return np.mean(self.means, axis=0).tolist()


OVERVIEW = "overview.png"
_LONGEST_NAME = 60  # characters of a picture's name: file systems end at 255 bytes


def draw_training_images(
    cfg: DictConfig,
    folder: str | os.PathLike,
    *,
    num_images: int,
    on_image: Callable[[], None] = lambda: None,
) -> Counts:
    """Draw the first images of a run of one process: its augmentations, in its order, with annotations.

    Each tensor is shown as `model.input_format` reads it, so that a channel order in which mapper and model
    disagree shows in the colours.

    Args:
        cfg: of a run; a negative `train.seed` counts as 0.
        folder: gets 0000_NAME.png for each image and overview.png with all of them; made if need be.

    Raises:
        InputError: the dataset is not there, its images cannot be used, or nothing can be written.
    """
    preflight.check_dataset(cfg, "train")
    for sentence in prepare(cfg, ("train",)):
        logger.warning(sentence)
    folder = Path(folder)
    loader = _loader(cfg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
    channels, names = input_format(cfg), class_names(cfg)
    counts, tiles, captions = Counts(), [], []
    for number, image in enumerate(itertools.islice(_images(loader), num_images)):
        picture = draw_mapped_image(image, channels, names)
        file_name = Path(str(image.get("file_name", "image")))
        save_picture(folder / f"{number:04d}_{file_name.stem[:_LONGEST_NAME]}.png", picture)
        tiles.append(thumbnail(picture))
        position = image.get("position")
        captions.append(f"{number if position is None else position}: {file_name.name}")
        counts.add(image)
        on_image()
    counts.skipped = loader.skipped
    save_picture(folder / OVERVIEW, contact_sheet(tiles, captions))
    return counts


def setting_rows(cfg: DictConfig, counts: Counts) -> list[tuple[str, str]]:
    """What was fed, a row each: counts, and who says what about the order and scale of the channels."""
    formats = {
        name: OmegaConf.select(cfg, key)
        for name, key in (
            ("mapper", "dataloader.train.mapper.image_format"),
            ("model", "model.input_format"),
        )
    }
    stated = ", ".join(f"the {name} says {order}" for name, order in formats.items() if order)
    if len({order for order in formats.values() if order}) > 1:
        stated += ": THEY DISAGREE, and the pictures show it"
    means = _numbers(counts.channel_means())
    if mean := OmegaConf.select(cfg, "model.pixel_mean"):
        means += f"; model.pixel_mean is {_numbers(mean)}"
    seed = cfg.train.seed
    drawn = f"0, since train.seed={seed} lets each run draw its own (run.json has it)"
    return [
        *counts.rows(class_names(cfg)),
        ("channel order", stated or "not said"),
        ("channel means", means),
        ("seed", drawn if seed < 0 else str(seed)),
    ]


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _loader(cfg: DictConfig):
    """The run's own loader, in this process: workers would fetch ahead what nobody looks at."""
    train = cfg.dataloader.train
    if "num_workers" in train:
        train.num_workers = 0
    seed = max(0, cfg.train.seed)
    return build_train_loader(train, seed=seed, accumulate=cfg.train.accumulate)


def _images(loader) -> Iterator[Mapping[str, Any]]:
    for batch in loader:
        for image in batch if isinstance(batch, list) else [batch]:
            tensor = image.get("image") if isinstance(image, Mapping) else None
            if not isinstance(tensor, torch.Tensor) or tensor.dim() != 3:
                raise InputError(
                    'dataloader.train gives no dicts with an "image" of channels, height and width: what it '
                    "feeds cannot be drawn"
                )
            yield image
