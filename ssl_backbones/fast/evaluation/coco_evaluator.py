"""Detectron2's COCO evaluator, faster and in less memory."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import COCOevalMaxDets, instances_to_coco_json
from detectron2.structures import Instances, ROIMasks
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .coco_eval import FastCOCOeval, hotcoco_or_none
from .detections import Detections, Irregular, concatenate
from .rle import encode_roi_masks


class FastCOCOEvaluator(COCOEvaluator):
    """Detectron2's `COCOEvaluator`: the same results, the same `coco_instances_results.json`.

    - Masks may be `ROIMasks`, as from `WithRoiMasks`: they are encoded without being pasted.
    - Detections are kept in arrays, and gathered from other processes in that form.
    - Average precision comes from `FastCOCOeval`.

    Keypoints, proposals, and everything where hotcoco is not installed, are evaluated as Detectron2 does.
    The one thing left out is `instances_predictions.pth`, which says nothing that the JSON file does not.

    `ROIMasks` are encoded with the CPU's arithmetic, as Detectron2 pastes the masks of a model on the CPU. Of
    a model on a GPU, where Detectron2 pastes with the GPU's, a pixel whose value lies within about 1e-6 of
    the threshold may fall on the other side.
    """

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """As `COCOEvaluator.process`."""
        for image, output in zip(inputs, outputs, strict=False):
            prediction = {"image_id": image["image_id"]}
            if "instances" in output:
                found = output["instances"].to(self._cpu_device)
                prediction["instances"] = coco_results(found, image["image_id"])
            if "proposals" in output:
                prediction["proposals"] = output["proposals"].to(self._cpu_device)
            if len(prediction) > 1:
                self._predictions.append(packed(prediction))

    def evaluate(self, img_ids: Sequence[Any] | None = None) -> dict[str, dict[str, float]]:
        """As `COCOEvaluator.evaluate`: metrics in percent on the main process, {} on the others.

        Args:
            img_ids: the images to evaluate; None for all that are annotated.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        if not predictions:
            self._logger.warning("[COCOEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
        self._results = OrderedDict()
        if "proposals" in predictions[0]:
            self._eval_box_proposals(predictions)
        if "instances" in predictions[0]:
            self._eval_predictions(predictions, img_ids=img_ids)
        return copy.deepcopy(self._results)

    def _eval_predictions(
        self, predictions: list[dict], img_ids: Sequence[Any] | None = None
    ) -> None:
        try:
            found = self._arrays(predictions)
        except Irregular:
            super()._eval_predictions([unpacked(one) for one in predictions], img_ids=img_ids)
            return
        self._logger.info("Preparing results for COCO format ...")
        found = found._replace(category_ids=self._dataset_ids(found.category_ids))
        if self._output_dir:
            self._write(found, os.path.join(self._output_dir, "coco_instances_results.json"))
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return
        self._logger.info("Evaluating predictions with compiled COCO API...")
        for task in sorted(self._tasks or _tasks(found)):
            assert task in {"bbox", "segm"}, f"Got unknown task: {task}!"
            evaluated = self._evaluated(found, task, img_ids) if found else None
            self._results[task] = self._derive_coco_results(
                evaluated, task, class_names=self._metadata.get("thing_classes")
            )

    def _arrays(self, predictions: list[dict]) -> Detections:
        """All detections.

        Raises:
            Irregular: arrays cannot hold them, or there is nothing that would be faster with them.
        """
        parts = [prediction["instances"] for prediction in predictions]
        if not all(isinstance(part, Detections) for part in parts):
            raise Irregular("some have keypoints")
        if "keypoints" in (self._tasks or ()) or not hotcoco_or_none():
            raise Irregular("pycocotools is to evaluate")
        return concatenate(parts)

    def _dataset_ids(self, classes: np.ndarray) -> np.ndarray:
        """The dataset's ids of contiguous classes."""
        if not hasattr(self._metadata, "thing_dataset_id_to_contiguous_id"):
            return classes
        ids = self._metadata.thing_dataset_id_to_contiguous_id
        by_class = {contiguous: dataset_id for dataset_id, contiguous in ids.items()}
        assert set(by_class) == set(range(len(ids)))
        highest = classes.max(initial=0)
        assert highest < len(ids), (
            f"A prediction has class={highest}, but the dataset only has {len(ids)} classes and "
            f"predicted class id should be in [0, {len(ids) - 1}]."
        )
        return np.array([by_class[contiguous] for contiguous in range(len(ids))])[classes]

    def _write(self, found: Detections, path: str) -> None:
        """Write the file that `json.dumps` of all results would be, without having all of them at once."""
        self._logger.info(f"Saving results to {path}")
        with PathManager.open(path, "w") as file:
            file.write("[")
            for place, results in enumerate(_pieces(found.results(), 1000)):
                file.write((", " if place else "") + json.dumps(results)[1:-1])
            file.write("]")

    def _evaluated(
        self, found: Detections, task: str, img_ids: Sequence[Any] | None
    ) -> FastCOCOeval:
        kind = FastCOCOeval if self._max_dets_per_image[2] == 100 else _MaxDets
        evaluation = kind(self._coco_api, found, task)
        evaluation.params.maxDets = self._max_dets_per_image
        if img_ids is not None:
            evaluation.params.imgIds = img_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation


class _MaxDets(FastCOCOeval):
    """With another number of detections per image than 100."""

    summarize = COCOevalMaxDets.summarize


def coco_results(instances: Instances, image_id: Any) -> list[dict[str, Any]]:
    """As Detectron2's `instances_to_coco_json`, for `ROIMasks` as well.

    Args:
        instances: on the CPU, in the size of the image as annotated.
    """
    if not (instances.has("pred_masks") and isinstance(instances.pred_masks, ROIMasks)):
        return instances_to_coco_json(instances, image_id)
    height, width = instances.image_size
    boxes, masks = instances.pred_boxes.tensor, instances.pred_masks
    others = Instances((height, width), **instances.get_fields())
    others.remove("pred_masks")
    strings = encode_roi_masks(masks.tensor, boxes, height, width)
    if strings is None:
        others.pred_masks = masks.to_bitmasks(instances.pred_boxes, height, width).tensor
        return instances_to_coco_json(others, image_id)
    results = instances_to_coco_json(others, image_id)
    for result, counts in zip(results, strings, strict=True):
        keypoints = result.pop("keypoints", None)
        result["segmentation"] = {"size": [height, width], "counts": counts}
        if keypoints is not None:
            result["keypoints"] = keypoints
    return results


def packed(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction of `COCOEvaluator` as `FastCOCOEvaluator` keeps it: in arrays, if they can hold it."""
    found = prediction.get("instances")
    if isinstance(found, list):
        with contextlib.suppress(Irregular):
            return {**prediction, "instances": Detections.pack(found)}
    return prediction


def unpacked(prediction: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `packed`; what is not packed stays as it is."""
    found = prediction.get("instances")
    if not isinstance(found, Detections):
        return prediction
    return {**prediction, "instances": list(found.results())}


def _tasks(found: Detections) -> set[str]:
    return {"bbox"} if found.masks is None else {"bbox", "segm"}


def _pieces(items: Iterable, size: int) -> Iterable[list]:
    items = iter(items)
    while piece := list(itertools.islice(items, size)):
        yield piece
