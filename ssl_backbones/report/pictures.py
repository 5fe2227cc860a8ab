"""Pictures of a run folder: predictions beside ground truth, and the loss curves."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..drawing.instances import corners, draw_instances
from ..errors import InputError
from ..files import write_atomically
from .runs import read_scalars

if TYPE_CHECKING:
    import numpy as np
    from detectron2.data import Metadata
    from matplotlib.figure import Figure

COLUMNS = 4  # scenes side by side, each with its ground truth to the left of its predictions
PANEL_INCHES = 2.2


def draw_predictions(
    run_folder: str | os.PathLike,
    path: str | os.PathLike,
    *,
    dataset: str,
    num_images: int = 8,
    min_score: float = 0.5,
) -> int:
    """Draw the first test images with their ground truth and with what the run's last evaluation found.

    The images are the dataset's first, not the best; detections below `min_score` are left out.

    Args:
        run_folder: holds inference/coco_instances_results.json, as Detectron2's COCOEvaluator writes it.
        path: the PNG to write.
        dataset: the name in Detectron2's catalogs that was evaluated.

    Returns:
        How many images were drawn.

    Raises:
        InputError: no evaluation in the run folder, no such dataset, or `path` cannot be written.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from matplotlib.figure import Figure

    results = _read_results(
        Path(run_folder) / "inference" / "coco_instances_results.json", min_score
    )
    if dataset not in DatasetCatalog:
        raise InputError(f"dataset {dataset!r} is not registered")
    records = DatasetCatalog.get(dataset)[:num_images]
    metadata = MetadataCatalog.get(dataset)
    rows = -(-len(records) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS * PANEL_INCHES, rows * (PANEL_INCHES + 0.25)))
    axes = figure.subplots(rows, 2 * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for record, (left, right) in zip(records, axes.reshape(-1, 2), strict=False):
        truth, predictions = _panels(record, results[record["image_id"]], metadata)
        left.imshow(truth)
        left.set_title("ground truth", fontsize=8)
        right.imshow(predictions)
        right.set_title("predictions", fontsize=8)
    _save(figure, path)
    return len(records)


def draw_losses(run_folder: str | os.PathLike, path: str | os.PathLike) -> None:
    """Draw every loss of a run against its iterations.

    Args:
        run_folder: holds metrics.json, a line an entry, as Detectron2's JSONWriter writes it.
        path: the PNG to write.

    Raises:
        InputError: no losses in the run folder, or `path` cannot be written.
    """
    from matplotlib.figure import Figure

    curves = _read_losses(Path(run_folder) / "metrics.json")
    figure = Figure(figsize=(8, 4.5))
    axis = figure.subplots()
    for name, points in sorted(curves.items()):
        is_total = name == "total_loss"
        axis.plot(*zip(*points, strict=True), label=name, linewidth=2 if is_total else 1)
    axis.set_xlabel("iteration")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    _save(figure, path)


def _read_results(path: Path, min_score: float) -> defaultdict[int, list[dict]]:
    """COCO results by image."""
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"no results of an evaluation in {path}: give the run folder of a finished run"
        ) from error
    by_image = defaultdict(list)
    for result in results:
        if result["score"] >= min_score:
            by_image[result["image_id"]].append(result)
    return by_image


def _read_losses(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Points (iteration, value) of every loss."""
    curves, problems = read_scalars(path)
    losses = {name: points for name, points in curves.items() if "loss" in name}
    if not losses:
        reason = " ".join(problems) or "the run ended before its first entry"
        raise InputError(f"no losses can be read from {path}: {reason}; give a run folder")
    return losses


def _panels(record: dict, results: list[dict], metadata: Metadata) -> tuple[np.ndarray, np.ndarray]:
    """One image twice, uint8 RGB: with its annotations and with its detections."""
    from detectron2.data.detection_utils import read_image

    image = read_image(record["file_name"], "RGB")
    annotations = record.get("annotations", [])
    truth = draw_instances(
        image,
        boxes=[corners(annotation["bbox"]) for annotation in annotations],
        masks=[annotation.get("segmentation") for annotation in annotations],
        classes=[annotation["category_id"] for annotation in annotations],
        labels=[metadata.thing_classes[annotation["category_id"]] for annotation in annotations],
    )
    results = sorted(results, key=lambda result: result["score"])  # the best is drawn last, on top
    class_of = metadata.thing_dataset_id_to_contiguous_id
    classes = [class_of[result["category_id"]] for result in results]
    predictions = draw_instances(
        image,
        boxes=[corners(result["bbox"]) for result in results],
        masks=[result.get("segmentation") for result in results],
        classes=classes,
        labels=[
            f"{metadata.thing_classes[label]} {result['score']:.0%}"
            for label, result in zip(classes, results, strict=True)
        ],
    )
    return truth, predictions


def _save(figure: Figure, path: str | os.PathLike) -> None:
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
