"""Detectron2's COCO evaluator, its detections kept on disk until the evaluation is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from omegaconf import DictConfig

from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator, packed, unpacked
from ..lazy import target_of
from .predictions import Predictions


def can_record(evaluator_cfg: Any) -> bool:
    """Whether a config has one evaluator, which collects detections exactly as a known one does."""
    if not isinstance(evaluator_cfg, DictConfig) or "dataset_name" not in evaluator_cfg:
        return False
    kind = target_of(evaluator_cfg)
    return isinstance(kind, type) and any(
        all(
            getattr(kind, name, None) is getattr(known, name)
            for name in ("reset", "process", "evaluate")
        )
        for known in (COCOEvaluator, FastCOCOEvaluator)
    )


class RecordingEvaluator(DatasetEvaluator):
    """Lets `evaluator` turn each output into COCO's form, writes that down, and evaluates all in the end.

    Args:
        evaluator: its `process` and `evaluate` are those of `COCOEvaluator` or of `FastCOCOEvaluator`.
        predictions: where detections are kept; those that are there already take part.
        loaded: indices of the images of this process's loader, in its order.
        chosen: indices of all images that are evaluated, in the order of the results.
        image_ids: the dataset's ids of the chosen images; None for all that the annotations know.
    """

    def __init__(
        self,
        evaluator: COCOEvaluator,
        predictions: Predictions,
        loaded: Sequence[int],
        chosen: Sequence[int],
        image_ids: Sequence[Any] | None = None,
    ):
        self._evaluator, self._predictions = evaluator, predictions
        self._loaded, self._chosen, self._image_ids = loaded, chosen, image_ids

    def reset(self) -> None:
        self._coming = iter(self._loaded)

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for image, output in zip(inputs, outputs, strict=True):
            self._evaluator.reset()
            self._evaluator.process([image], [output])
            # v0.6 and main keep here what they gather from all processes in `evaluate`.
            found = [unpacked(one) for one in self._evaluator._predictions]
            self._predictions.append(next(self._coming), found)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """The metrics on the main process, {} on the others."""
        is_fast = isinstance(self._evaluator, FastCOCOEvaluator)
        kept = packed if is_fast else unpacked
        self._evaluator._predictions = self._predictions.gather(self._chosen, kept)
        return self._evaluator.evaluate(img_ids=self._image_ids)
