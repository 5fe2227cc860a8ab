"""Evaluate a detector on the config's test set and write what came out."""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Mapping

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig
from torch import nn

from ..compat import has_compiled_coco_evaluation
from ..files import write_atomically


def evaluate(
    dataloader_cfg: DictConfig, model: nn.Module, output_dir: str
) -> dict[str, dict[str, float]]:
    """Run `model` over the test set and return Detectron2's metrics, in percent.

    Writes `coco_instances_results.json` (every detection, as COCO's own tools read it) and `metrics.json`
    into `output_dir`. Every process must call it; all but the first get an empty dict.

    Returns:
        {"bbox": {"AP": ..., "AP50": ..., "AP75": ..., "APs": ..., "APm": ..., "APl": ..., "AP-person": ...},
        "segm": {...}}; NaN where the test set holds no such object.
    """
    # The evaluator reads the dataset's metadata when it is made, and a dataset sets it when it is loaded.
    loader = instantiate(dataloader_cfg.test)
    evaluator = instantiate(_evaluator(dataloader_cfg, output_dir))
    results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
        write_metrics(results, os.path.join(output_dir, "metrics.json"), _test_set(dataloader_cfg))
    return results


def write_metrics(results: Mapping[str, Mapping[str, float]], path: str, dataset: str = "") -> None:
    """Write Detectron2's results as JSON: per task the COCO numbers, and AP by class below "per_class"."""
    content: dict = {"dataset": dataset}
    for task, metrics in results.items():
        numbers = {name: _or_none(value) for name, value in metrics.items()}
        content[task] = {
            name: value for name, value in numbers.items() if not name.startswith("AP-")
        }
        content[task]["per_class"] = {
            name.removeprefix("AP-"): value
            for name, value in numbers.items()
            if name.startswith("AP-")
        }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_atomically(path, lambda file: file.write(text.encode()))


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)


def _test_set(dataloader_cfg: DictConfig) -> str:
    names = dataloader_cfg.test.dataset.names
    return names if isinstance(names, str) else ",".join(names)


def _evaluator(dataloader_cfg: DictConfig, output_dir: str) -> DictConfig:
    """The config's evaluator, with what it takes of: an output folder, an implementation that exists."""
    evaluator = dataloader_cfg.evaluator.copy()
    evaluator._set_parent(dataloader_cfg)  # keeps its interpolations alive
    target = evaluator["_target_"]
    parameters = inspect.signature(locate(target) if isinstance(target, str) else target).parameters
    if "output_dir" in parameters and evaluator.get("output_dir") is None:
        evaluator.output_dir = output_dir
    if "use_fast_impl" in parameters and not has_compiled_coco_evaluation():
        evaluator.use_fast_impl = False
    return evaluator
