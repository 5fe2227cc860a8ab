"""An exported file in the place of what a config builds."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from ..errors import InputError, one_line
from ..prediction.output import Classes
from . import elsewhere
from .elsewhere import Found


class ExportedDetector:
    """Finds the instances of images that `mapper` has prepared, as `prediction.detector.Detector` does.

    Raises:
        InputError: the file cannot be read or is no exported detector, or its graph fails on an image.
    """

    def __init__(self, path: str):
        if not os.path.isfile(path):
            raise InputError(f"there is no file {path}: give what tools/export.py wrote")
        self._path = path
        try:
            if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip():
                raise ValueError("a checksum is wrong")  # torch asks for none
            self._facts, self._run = elsewhere.load(path)
            self.classes = Classes(list(self._facts["classes"]), list(self._facts["category_ids"]))
            self.classes.categories()  # refuses another number of ids
            elsewhere.prepare(Image.new("RGB", (32, 32)), self._facts)
        except Exception as error:  # what a graph's own loader raises, or facts that are others
            raise self._refusal(error) from error

    def mapper(self, record: Mapping[str, Any]) -> dict[str, Any]:
        image = elsewhere.read(record["file_name"])
        return {**record, "given": elsewhere.prepare(image, self._facts)}

    def __call__(self, images: Sequence[Mapping[str, Any]]) -> list[Instances]:
        try:
            found = [self._run(*one["given"]) for one in images]
            kinds = np.concatenate([one.classes for one in found])
            if not {*kinds} <= {*range(len(self.classes.ids))}:
                raise ValueError("it finds classes that it does not name")
        except Exception as error:  # what a graph raises that is not of these facts
            raise self._refusal(error) from error
        return [as_instances(*pair) for pair in zip(found, images, strict=True)]

    def _refusal(self, why: Exception) -> InputError:
        short = one_line(f"{type(why).__name__}: {why}")[:160]
        return InputError(
            f"{self._path} is damaged or no file of tools/export.py ({short}): export the run again"
        )


def as_instances(found: Found, record: Mapping[str, Any]) -> Instances:
    """Of an image of a record's "height" and "width"."""
    instances = Instances((record["height"], record["width"]))
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks.size:
        instances.pred_masks = torch.from_numpy(found.masks)
    return instances


def arrays_of(instances: Instances) -> Found:
    """The other way round."""
    boxes, masks = instances.pred_boxes.tensor, np.zeros((0, 0, 0), dtype=bool)
    if instances.has("pred_masks"):
        masks = instances.pred_masks.numpy()
    return Found(boxes.numpy(), instances.scores.numpy(), instances.pred_classes.numpy(), masks)
