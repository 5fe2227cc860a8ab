"""An exported detector in the place of one that a config builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances

from ..errors import InputError
from ..prediction.output import Classes
from . import elsewhere

SUFFIXES = (".ts", ".onnx")


class ExportedDetector:
    """Finds the instances of images that `mapper` has prepared, as `prediction.detector.Detector` does.

    Raises:
        InputError: the file cannot be read or is no exported detector.
    """

    def __init__(self, path: str):
        try:
            facts, self._run = elsewhere.load(path)
        except Exception as error:  # what a graph's own loader raises
            why = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path} cannot be run ({why}); give a file of tools/export.py"
            ) from error
        self._facts = facts
        self.classes = Classes(list(facts["classes"]), list(facts["category_ids"]))

    def mapper(self, record: Mapping[str, Any]) -> dict[str, Any]:
        image = elsewhere.read(record["file_name"])
        pixels, sizes = elsewhere.prepare(image, self._facts)
        return {**record, "pixels": pixels, "sizes": sizes}

    def __call__(self, images: Sequence[Mapping[str, Any]]) -> list[Instances]:
        return [self._found(one) for one in images]

    def _found(self, one: Mapping[str, Any]) -> Instances:
        boxes, scores, classes, masks = map(
            torch.from_numpy, self._run(one["pixels"], one["sizes"])
        )
        found = Instances((one["height"], one["width"]))
        found.pred_boxes, found.scores, found.pred_classes = Boxes(boxes), scores, classes
        if len(masks) == len(boxes) and masks.numel():
            found.pred_masks = masks
        return found
