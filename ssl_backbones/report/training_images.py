"""What the training loader really feeds the model, turned back into pictures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ..data.loading import build_train_loader
from ..drawing.instances import contact_sheet, save_picture, thumbnail
from ..drawing.mapped_images import class_names, draw_mapped_image, input_format
from ..engine import preflight
from ..errors import InputError
from .training_counts import Counts

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


def in_words(cfg: DictConfig, counts: Counts) -> list[tuple[str, str]]:
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
