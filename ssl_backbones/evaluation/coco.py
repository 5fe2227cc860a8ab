"""Evaluate a detector on the config's test set and write what came out."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.distributed as dist
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.modeling import ProposalNetwork
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from ..fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ..fast.evaluation.roi_masks import WithRoiMasks, has_usual_postprocessing
from ..hashing import sha256_of
from .augmentation import with_augmentation
from .evaluators import build_evaluator
from .fingerprint import describe, fingerprint, settings_of, sha256_of_weights
from .metrics import read_metrics, write_classes, write_metrics
from .predictions import Predictions
from .recording import RecordingEvaluator, can_record
from .test_set import TestSet, can_address_images, evenly_spread

logger = logging.getLogger(__name__)

# The evaluator's own file: every detection, as COCO's tools read it.
_DETECTIONS = "coco_instances_results.json"


class Options(NamedTuple):
    """How a test set is evaluated, beside what the config's dataloader says."""

    subset: int = 0
    tta: Mapping[str, Any] | None = None


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
    Any number of processes gives the same numbers and the same files, bit for bit if each computes with as
    many threads: torch on a CPU sums in another order with another number (measured on a small Mask R-CNN
    with 1 and 2 threads: scores differ by 3e-8, boxes by 8e-6 pixels).

    An evaluation that was killed goes on where it stood, also with another number of processes, as long as
    weights, images, annotations and options are the same; one that was finished is not done again. That
    holds for Detectron2's own test loader with a `COCOEvaluator` or a `FastCOCOEvaluator`; others start
    anew each time.

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
    model, options = unwrapped(model), Options(subset, tta)
    detector = model if tta is None else with_augmentation(model, tta)
    if _is_resumable(dataloader_cfg, model):
        test_set = TestSet(dataloader_cfg.test)
        # A dataset of another kind may be anything, and is left to Detectron2.
        if isinstance(test_set.images, Sequence):
            return _evaluate_resumably(dataloader_cfg, test_set, detector, output_dir, options)
    if subset:
        raise _no_subset(subset)
    loader = instantiate(dataloader_cfg.test)
    evaluator = build_evaluator(dataloader_cfg, output_dir)
    results = inference_on_dataset(_prepared(detector, evaluator), loader, evaluator)
    _report(results, output_dir, _name(dataloader_cfg), {"test_time_augmentation": _in_words(tta)})
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
    model = unwrapped(model)
    if subset and not _is_resumable(dataloader_cfg, model):
        raise _no_subset(subset)
    if tta is not None:
        with_augmentation(model, tta)


def unwrapped(model: nn.Module) -> nn.Module:
    """`model` without what spreads it over processes: each evaluates its own number of images."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def _is_resumable(dataloader_cfg: DictConfig, model: nn.Module) -> bool:
    """Whether loader and evaluator take images one by one, and detections can be written down."""
    # Proposals are tensors.
    has_detections = not isinstance(model, ProposalNetwork)
    by_image = can_record(dataloader_cfg.evaluator) and can_address_images(dataloader_cfg.test)
    return has_detections and by_image


def _no_subset(count: int) -> InputError:
    return InputError(
        f"a subset of {count} images needs Detectron2's test loader, of a list of images and without a "
        "sampler, and a COCOEvaluator: set train.eval_subset=0"
    )


def _evaluate_resumably(
    dataloader_cfg: DictConfig,
    test_set: TestSet,
    detector: nn.Module,
    output_dir: str,
    options: Options,
) -> dict[str, dict[str, float]]:
    # The evaluator reads the dataset's metadata when it is made, and a dataset sets it when it is loaded.
    evaluator = build_evaluator(dataloader_cfg, output_dir)
    chosen = evenly_spread(len(test_set.images), options.subset)
    key = _key(dataloader_cfg, test_set, detector, options)
    finished = comm.all_gather(_finished(output_dir, key))[0]
    if finished is not None:
        logger.info(f"These weights were evaluated before: {output_dir} has the results")
        return finished if comm.is_main_process() else {}

    predictions = Predictions(os.path.join(output_dir, "unfinished"), key)
    missing = [index for index in chosen if index not in predictions.done]
    if len(missing) < len(chosen):
        logger.info(f"Going on: {len(missing)} of {len(chosen)} images are left to evaluate")
    own = missing[comm.get_rank() :: comm.get_world_size()]
    ids = [test_set.images[index]["image_id"] for index in chosen] if options.subset else None
    recorder = RecordingEvaluator(evaluator, predictions, own, chosen, ids)
    prepared = _prepared(detector, evaluator)
    try:
        results = inference_on_dataset(prepared, test_set.loader(own), recorder)
    finally:
        predictions.close()
    facts = {
        "images": len(chosen),
        "images_in_dataset": len(test_set.images),
        "test_time_augmentation": _in_words(options.tta),
        "fingerprint": key,
    }
    _report(results, output_dir, _name(dataloader_cfg), facts)
    predictions.remove()
    return results


def _prepared(detector: nn.Module, evaluator: Any) -> nn.Module:
    """`detector`, its masks left unpasted where it can and the evaluator takes them so."""
    if isinstance(evaluator, FastCOCOEvaluator) and has_usual_postprocessing(detector):
        return WithRoiMasks(detector)
    return detector


def _key(
    dataloader_cfg: DictConfig, test_set: TestSet, detector: nn.Module, options: Options
) -> str:
    """The fingerprint of everything that decides the results, the same in every process."""
    evaluator = describe(dataloader_cfg.evaluator)
    evaluator.pop("output_dir", None)
    facts = {
        "weights": _agreed_weights(detector),
        "settings": settings_of(detector),
        "subset": options.subset,
        "tta": describe(options.tta),
        "test set": test_set.describe(),
        "annotations": _sha256_of_annotations(dataloader_cfg),
        "evaluator": evaluator,
    }
    return comm.all_gather(fingerprint(facts))[0]


def _agreed_weights(model: nn.Module) -> str:
    """SHA-256 of the weights; where a process holds others than the first one, it takes those of the first.

    Running statistics of plain batch norm differ between processes; a checkpoint holds the first one's.
    """
    everyone = comm.all_gather(sha256_of_weights(model))
    if len(set(everyone)) > 1:
        logger.warning(
            "The processes hold different weights or statistics: the first one's are evaluated"
        )
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.data, 0)
    return everyone[0]


def _sha256_of_annotations(dataloader_cfg: DictConfig) -> str:
    file = MetadataCatalog.get(dataloader_cfg.evaluator.dataset_name).get("json_file", "")
    return sha256_of(file) if os.path.isfile(file) else file


def _finished(output_dir: str, key: str) -> dict[str, dict[str, float]] | None:
    """The results of the evaluation `key` if it is in `output_dir`."""
    try:
        results, facts = read_metrics(os.path.join(output_dir, "metrics.json"))
    except (OSError, ValueError):
        return None
    is_whole = os.path.exists(os.path.join(output_dir, _DETECTIONS)) or not results
    return results if facts.get("fingerprint") == key and is_whole else None


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


def _in_words(tta: Mapping[str, Any] | None) -> str:
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
