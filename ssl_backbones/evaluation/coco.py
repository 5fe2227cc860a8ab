"""Evaluate a detector on the config's test set and write what came out."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from detectron2.config import CfgNode, get_cfg, instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..compat import has_compiled_coco_evaluation
from ..errors import InputError
from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ..fast.evaluation.roi_masks import WithRoiMasks, has_usual_postprocessing
from ..lazy import target_of
from .metrics import flatten, write_classes, write_metrics
from .test_set import OfImages, TestSet, can_choose_images, evenly_spread

logger = logging.getLogger(__name__)


class Average(Protocol):
    """Averaged weights that a model can have for the time of a `with` block."""

    def applied(self) -> AbstractContextManager[None]: ...


def evaluate_weights(
    cfg: DictConfig,
    model: nn.Module,
    average: Average | None = None,
    *,
    subset: int = 0,
    augmented: bool = False,
) -> dict[str, float]:
    """Evaluate `model`, and once more with its averaged weights if there are any.

    The results lie in the run folder in `inference`, and in `inference_ema`, `inference_tta`,
    `inference_subset` and so on for what else was asked for. Every process must call it.

    Args:
        subset: number of images, evenly spread over the test set; 0 for all.
        augmented: use `train.tta`.

    Returns:
        Metrics in percent by name, on every process: "bbox/AP", of averaged weights "ema/bbox/AP", with
        augmentation "tta/bbox/AP" and "ema/tta/bbox/AP".
    """
    tta = cfg.train.tta if augmented else None
    found: dict[str, float] = {}
    for weights in ("", "ema") if average else ("",):
        words = ("inference", "subset" if subset else "", weights, "tta" if augmented else "")
        folder = os.path.join(cfg.train.output_dir, "_".join(filter(None, words)))
        with average.applied() if weights else nullcontext():
            results = evaluate(cfg.dataloader, model, folder, subset=subset, tta=tta)
        prefix = "".join(f"{part}/" for part in (weights, "tta" if augmented else "") if part)
        found |= {f"{prefix}{name}": value for name, value in flatten(results).items()}
    return comm.all_gather(found)[0]


def evaluate_all(
    cfg: DictConfig, model: nn.Module, average: Average | None = None
) -> dict[str, float]:
    """What is told of a finished model: all images, and with augmentation too if `train.tta` asks for it."""
    found = evaluate_weights(cfg, model, average)
    if cfg.train.tta.enabled:
        found |= evaluate_weights(cfg, model, average, augmented=True)
    return found


def evaluate(
    dataloader_cfg: DictConfig,
    model: nn.Module,
    output_dir: str,
    *,
    subset: int = 0,
    tta: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, float]]:
    """Run `model` over the test set and return Detectron2's metrics, in percent.

    Writes into `output_dir`: `coco_instances_results.json` (every detection, as COCO's own tools read it),
    `metrics.json`, and `per_class.csv`. Every process must call it; all but the first get an empty dict.
    Any number of processes gives the same numbers and, of Detectron2's own test loader with a
    `COCOEvaluator` or a `FastCOCOEvaluator`, the same files, bit for bit if each computes with as many
    threads: torch on a CPU sums in another order with another number (measured on a small Mask R-CNN with 1
    and 2 threads: scores differ by 3e-8, boxes by 8e-6 pixels).

    Args:
        subset: number of images, evenly spread over the test set; 0 for all.
        tta: test-time augmentation (`min_sizes`, `max_size`, `flip`), or None.

    Returns:
        {"bbox": {"AP": ..., "AP50": ..., "AP75": ..., "APs": ..., "APm": ..., "APl": ..., "AP-person": ...},
        "segm": {...}}; NaN where the test set holds no such object.

    Raises:
        InputError: an option does not go with this model or evaluator, an image cannot be read, or a file
            cannot be written.
    """
    model = unwrapped(model)
    detector = model if tta is None else with_augmentation(model, tta)
    _agree_on_weights(detector)
    facts: dict[str, str | int] = {}
    loader, ids = None, None
    if can_choose_images(dataloader_cfg):
        test_set = TestSet(dataloader_cfg.test)
        # A dataset of another kind may be anything, and is left to Detectron2.
        if isinstance(test_set.images, Sequence):
            chosen = evenly_spread(len(test_set.images), subset)
            facts |= {"images": len(chosen), "images_in_dataset": len(test_set.images)}
            ids = [test_set.images[index]["image_id"] for index in chosen] if subset else None
            loader = test_set.loader(_share(chosen))
    if loader is None:
        if subset:
            raise _no_subset(subset)
        loader = instantiate(dataloader_cfg.test)
    # It reads the dataset's metadata when it is made, and a dataset sets it when it is loaded.
    evaluator = build_evaluator(dataloader_cfg, output_dir)
    detector = _prepared(detector, evaluator)
    evaluator = evaluator if ids is None else OfImages(evaluator, ids)
    results = inference_on_dataset(detector, loader, evaluator)
    facts["test_time_augmentation"] = _format_tta(tta)
    _report(results, output_dir, _name(dataloader_cfg), facts)
    return results


def check_options(
    dataloader_cfg: DictConfig,
    model: nn.Module,
    *,
    subset: int = 0,
    tta: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what `evaluate` would refuse, before anything is loaded.

    Raises:
        InputError: the option does not go with this model or evaluator.
    """
    if subset and not can_choose_images(dataloader_cfg):
        raise _no_subset(subset)
    if tta is not None:
        with_augmentation(unwrapped(model), tta)


def unwrapped(model: nn.Module) -> nn.Module:
    """`model` without what spreads it over processes: each evaluates its own number of images."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _no_subset(count: int) -> InputError:
    return InputError(
        f"a subset of {count} images needs Detectron2's test loader, of a list of images and without a "
        "sampler, and a COCOEvaluator: set train.eval_subset=0"
    )


def _share(indices: Sequence[int]) -> Sequence[int]:
    """What this process takes of them: one piece, so that what all find is gathered in their order."""
    rank, processes = comm.get_rank(), comm.get_world_size()
    each, left = divmod(len(indices), processes)
    start = rank * each + min(rank, left)
    return indices[start : start + each + (rank < left)]


def build_evaluator(dataloader_cfg: DictConfig, output_dir: str) -> Any:
    """What `dataloader.evaluator` describes: an evaluator, or a list of them if the config has one."""
    cfg = dataloader_cfg.evaluator
    os.makedirs(output_dir, exist_ok=True)
    if isinstance(cfg, ListConfig):
        return [instantiate(_completed(one, cfg, output_dir)) for one in cfg]
    return instantiate(_completed(cfg, dataloader_cfg, output_dir))


def _completed(
    evaluator: DictConfig, parent: DictConfig | ListConfig, output_dir: str
) -> DictConfig:
    """A config's evaluator, with what it takes of: an output folder, an implementation that exists."""
    evaluator = evaluator.copy()
    evaluator._set_parent(parent)  # keeps its interpolations alive
    parameters = inspect.signature(target_of(evaluator)).parameters
    if "output_dir" in parameters and evaluator.get("output_dir") is None:
        evaluator.output_dir = output_dir
    if "use_fast_impl" in parameters and not has_compiled_coco_evaluation():
        evaluator.use_fast_impl = False
    return evaluator


def _prepared(detector: nn.Module, evaluator: Any) -> nn.Module:
    """`detector`, its masks left unpasted where it can and the evaluator takes them so."""
    if isinstance(evaluator, FastCOCOEvaluator) and has_usual_postprocessing(detector):
        return WithRoiMasks(detector)
    return detector


def _agree_on_weights(model: nn.Module) -> None:
    """Where a process holds other weights than the first one, it takes those of the first.

    Running statistics of plain batch norm differ between processes; a checkpoint holds the first one's.
    """
    if comm.get_world_size() == 1:
        return
    if len(set(comm.all_gather(sha256_of_weights(model)))) > 1:
        logger.warning(
            "The processes hold different weights or statistics: the first one's are evaluated"
        )
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)


def sha256_of_weights(model: nn.Module) -> str:
    """SHA-256 over name, type, shape and bytes of every parameter and buffer of `model`."""
    digest = hashlib.sha256()
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().reshape(-1).cpu().contiguous()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def _report(
    results: Mapping[str, Any], output_dir: str, dataset: str, facts: Mapping[str, str | int]
) -> None:
    if not comm.is_main_process():
        return
    print_csv_format(results)
    tasks = {task: metrics for task, metrics in results.items() if isinstance(metrics, Mapping)}
    write_classes(tasks, os.path.join(output_dir, "per_class.csv"))
    # Last: what it says is there, is there.
    write_metrics(tasks, os.path.join(output_dir, "metrics.json"), dataset, facts)


def _format_tta(tta: Mapping[str, Any] | None) -> str:
    if tta is None:
        return "none"
    sizes = ", ".join(map(str, tta["min_sizes"]))
    flip = ", flipped too" if tta["flip"] else ""
    return f"shorter side {sizes}, longer at most {tta['max_size']}{flip}"


def _name(dataloader_cfg: DictConfig) -> str:
    """The names of a usual test loader's datasets; "" for one that has none."""
    dataset = dataloader_cfg.test.get("dataset")
    names = dataset.get("names", "") if isinstance(dataset, DictConfig) else ""
    return names if isinstance(names, str) else ",".join(names)


def with_augmentation(model: nn.Module, tta: Mapping[str, Any]) -> GeneralizedRCNNWithTTA:
    """`model` on every scale, plain and flipped: boxes merged by NMS, masks averaged.

    As in Detectron2's own tools, the scales start from the image that the test mapper hands over.

    Args:
        model: a Mask R-CNN, Faster R-CNN or Cascade R-CNN.
        tta: `min_sizes` (shorter side in pixels), `max_size` (longer side at most), `flip`.

    Raises:
        InputError: Detectron2 has no augmentation for such a model.
    """
    reason = _unsupported(model)
    if reason:
        raise InputError(
            f"test-time augmentation is for boxes and masks of GeneralizedRCNN, and {reason}: set "
            "train.tta.enabled=False"
        )
    augmented = GeneralizedRCNNWithTTA(_node(model, tta), model)
    return augmented.train(model.training)


def _unsupported(model: nn.Module) -> str:
    if not isinstance(model, GeneralizedRCNN):
        return f"this model is a {type(model).__name__}"
    if model.proposal_generator is None:
        return "this model takes proposals from a file"
    return "this one finds keypoints" if getattr(model.roi_heads, "keypoint_on", False) else ""


def _node(model: GeneralizedRCNN, tta: Mapping[str, Any]) -> CfgNode:
    """The part of Detectron2's yaml config that its classes for augmentation read."""
    heads = model.roi_heads
    # A cascade has a predictor a stage; the last one decides.
    predictor = heads.box_predictor
    predictor = predictor[-1] if isinstance(predictor, nn.ModuleList) else predictor
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = bool(getattr(heads, "mask_on", False))
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = int(heads.num_classes)
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = float(predictor.test_nms_thresh)
    cfg.TEST.DETECTIONS_PER_IMAGE = int(predictor.test_topk_per_image)
    cfg.TEST.AUG.MIN_SIZES = tuple(tta["min_sizes"])
    cfg.TEST.AUG.MAX_SIZE = int(tta["max_size"])
    cfg.TEST.AUG.FLIP = bool(tta["flip"])
    return cfg
