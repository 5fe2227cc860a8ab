"""The images of a config's test loader, each addressed by its index, so that some can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import build_detection_test_loader
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from omegaconf import DictConfig
from torch.utils.data import DataLoader

from ..data.images import readable
from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ..lazy import target_of


def can_choose_images(dataloader_cfg: Any) -> bool:
    """Whether loader and evaluator of a config can be asked for some of the images.

    The loader must be Detectron2's own and leave the order of the images to us, the evaluator must be one,
    and evaluate as a known one of COCO does.
    """
    loader, evaluator = dataloader_cfg.test, dataloader_cfg.evaluator
    if not isinstance(loader, DictConfig) or not isinstance(evaluator, DictConfig):
        return False
    if "dataset" not in loader or loader.get("sampler") is not None:
        return False
    evaluate = getattr(target_of(evaluator), "evaluate", None)
    return target_of(loader) is build_detection_test_loader and evaluate in (
        COCOEvaluator.evaluate,
        FastCOCOEvaluator.evaluate,
    )


class TestSet:
    """Loads any of the images of a lazy call of Detectron2's `build_detection_test_loader`, in any order."""

    __test__ = False  # no test, though pytest would take it for one by its name

    def __init__(self, loader_cfg: DictConfig):
        self._cfg = loader_cfg
        self.images = instantiate(loader_cfg.dataset)

    def loader(self, indices: Sequence[int]) -> DataLoader:
        """A loader of the images `indices`, in this order; one that cannot be read is an `InputError`."""
        given = {
            name: instantiate(value)
            for name, value in self._cfg.items()
            if name not in ("_target_", "dataset", "sampler")
        }
        if given.get("mapper") is not None:
            given["mapper"] = readable(given["mapper"])
        return build_detection_test_loader(self.images, sampler=list(indices), **given)


class OfImages(DatasetEvaluator):
    """A COCO evaluator that does not miss what it was not given: only the images `ids` count."""

    def __init__(self, evaluator: COCOEvaluator, ids: Sequence[Any]):
        self._evaluator, self._ids = evaluator, ids

    def reset(self) -> None:
        self._evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        self._evaluator.process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        return self._evaluator.evaluate(img_ids=self._ids)


def evenly_spread(size: int, count: int) -> list[int]:
    """`count` of the indices 0 ... `size` - 1, evenly spread and always the same ones; 0 for all of them."""
    if not 0 < count < size:
        return list(range(size))
    return [step * size // count for step in range(count)]
