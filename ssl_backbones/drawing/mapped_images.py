"""An image as the mapper gives it to the model, turned back into a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.structures import Instances, PolygonMasks
from omegaconf import DictConfig, OmegaConf

from ..data.preparing import dataset_names
from ..errors import InputError
from .instances import draw_instances


def draw_mapped_image(
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
    name = next(iter(dataset_names(cfg, "train")), None)
    return list(MetadataCatalog.get(name).get("thing_classes", ())) if name else []


def _masks(instances: Instances) -> list[Any] | None:
    if not instances.has("gt_masks"):
        return None
    masks = instances.gt_masks
    if isinstance(masks, PolygonMasks):
        return masks.polygons
    return list(masks.tensor.numpy())
