"""What the training loader really feeds the model, turned back into pictures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Instances, PolygonMasks
from omegaconf import DictConfig, OmegaConf

import ssl_backbones.data  # noqa: F401  registers the embedded datasets

from ..data.loading import build_train_loader
from ..engine import preflight
from ..errors import InputError
from .drawing import contact_sheet, draw_instances, save_picture, thumbnail
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
        picture = draw_training_image(image, channels, names)
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


def draw_training_image(
    image: Mapping[str, Any], channels: str, class_names: list[str]
) -> np.ndarray:
    """Draw one mapped image with its boxes, masks and class names: uint8 RGB.

    Args:
        image: what a train mapper gives: "image", a tensor (C, H, W), and perhaps "instances".
        channels: how the model reads the tensor: "RGB", "BGR", "L" or "YUV-BT.601".
    """
    picture = to_picture(image["image"], channels)
    instances = image.get("instances")
    if instances is None or not instances.has("gt_boxes"):
        return picture
    numbers = instances.gt_classes.tolist()
    return draw_instances(
        picture,
        boxes=instances.gt_boxes.tensor.tolist(),
        classes=numbers,
        labels=[class_names[n] if n < len(class_names) else f"class {n}" for n in numbers],
        masks=_masks(instances),
    )


def to_picture(tensor: torch.Tensor, channels: str) -> np.ndarray:
    """Turn an image tensor (C, H, W) of the scale 0 to 255 into uint8 RGB (H, W, 3).

    Raises:
        InputError: there is no such format, or the tensor has not its number of channels.
    """
    array = np.nan_to_num(tensor.permute(1, 2, 0).cpu().numpy())
    wanted = {"RGB": 3, "BGR": 3, "YUV-BT.601": 3, "L": 1}.get(channels)
    if wanted != array.shape[2]:
        raise InputError(
            f"model.input_format={channels} does not fit what dataloader.train.mapper gives: an image of "
            f"{array.shape[2]} channels"
        )
    if channels == "BGR":
        array = array[:, :, ::-1]
    elif channels == "L":
        array = array.repeat(3, axis=2)
    elif channels != "RGB":
        array = convert_image_to_rgb(array, channels)
    return np.rint(np.clip(array, 0, 255)).astype(np.uint8)


def input_format(cfg: DictConfig) -> str:
    """How the config's model reads images; as the mapper writes them where the model does not say."""
    for key in ("model.input_format", "dataloader.train.mapper.image_format"):
        if channels := OmegaConf.select(cfg, key):
            return channels
    return "BGR"  # Detectron2's default


def class_names(cfg: DictConfig) -> list[str]:
    """Of the training dataset, or the first of several; [] where they are not known."""
    names = OmegaConf.select(cfg, "dataloader.train.dataset.names")
    name = names if isinstance(names, str) or not names else names[0]
    return list(MetadataCatalog.get(name).get("thing_classes", ())) if name else []


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


def _masks(instances: Instances) -> list[Any] | None:
    if not instances.has("gt_masks"):
        return None
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        return masks.polygons
    return list(masks.tensor.numpy())
