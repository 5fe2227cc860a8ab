"""Rows: COCO average precision of the detections in 5,000 images, and the memory that it takes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import processes, scenes
from ..row import Comparison, Disagreement, Row

IMAGES, SMALL = 5000, 20
STATISTICS = (
    "AP",
    "AP50",
    "AP75",
    "APs",
    "APm",
    "APl",
    "AR1",
    "AR10",
    "AR100",
    "ARs",
    "ARm",
    "ARl",
)


def prepare(task: str) -> Callable[[Path, bool], Comparison]:
    """What a row of boxes ("bbox") or masks ("segm") is made with."""

    def prepare_row(folder: Path, small: bool) -> Comparison:
        from ssl_backbones.compat import has_compiled_coco_evaluation

        truth = scenes.annotations(SMALL if small else IMAGES)
        results = scenes.detections(truth)
        if task == "bbox":
            for found in results:
                del found["segmentation"]
        is_compiled = has_compiled_coco_evaluation()

        def side(evaluate: Callable[[Any], Any]) -> Callable[[], tuple[list[float], float]]:
            # pycocotools turns polygons into RLE in place: each time as if it were the first.
            return lambda: _timed(evaluate, coco(truth))

        @functools.cache
        def pycocotools() -> list[float]:
            return _timed(lambda truth: _stock(truth, results, task, False), coco(truth))[0]

        def check(stock: list[float], ours: list[float]) -> None:
            if is_compiled:
                # Detectron2's is not equal to pycocotools to the last bit.
                _check_statistics(stock, ours, 1e-12)
                stock = pycocotools()
            _check_statistics(stock, ours, 0)

        def notes() -> list[str]:
            return _faster_coco_eval(truth, results, task)

        return Comparison(
            side(lambda truth: _stock(truth, results, task, is_compiled)),
            side(lambda truth: _ours(truth, results, task)),
            check,
            opponent="Detectron2's compiled COCOeval_opt" if is_compiled else "pycocotools",
            limit=lambda: (
                "reading numbers out of Python's dicts",
                _timed(lambda _: _packed(results, task))[1],
            ),
            measured=True,
            notes=notes,
        )

    return prepare_row


def coco(truth: dict[str, Any]) -> Any:
    """Annotations as pycocotools holds them, apart from `truth`."""
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = {**truth, "annotations": [dict(found) for found in truth["annotations"]]}
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


def _stock(truth: Any, results: list[dict], task: str, is_compiled: bool) -> list[float]:
    """As Detectron2's evaluator does it."""
    from detectron2.evaluation import coco_evaluation

    evaluate = coco_evaluation._evaluate_predictions_on_coco
    # v0.6 and main say it in another way.
    if "use_fast_impl" in inspect.signature(evaluate).parameters:
        how: dict[str, Any] = {"use_fast_impl": is_compiled}
    else:
        name = "COCOeval_opt" if is_compiled else "COCOeval"
        how = {"cocoeval_fn": getattr(coco_evaluation, name)}
    return evaluate(truth, results, task, **how).stats.tolist()


def _ours(truth: Any, results: list[dict], task: str) -> list[float]:
    from ssl_backbones.fast.evaluation.coco_eval import FastCOCOeval

    evaluation = FastCOCOeval(truth, _packed(results, task), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats.tolist()


def _packed(results: list[dict], task: str) -> Any:
    from ssl_backbones.fast.evaluation.detections import Detections

    return Detections.pack(results, [task])


def _faster_coco_eval(truth: dict, results: list[dict], task: str) -> list[str]:
    """What a user might take instead, if it is installed; it is no part of this project."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        return []

    def evaluate(annotations: Any) -> list[float]:
        found = annotations.loadRes([dict(one) for one in results])
        evaluation = COCOeval_faster(annotations, found, task)
        evaluation.run()
        return list(evaluation.stats[:12])

    annotations = COCO({**truth, "annotations": [dict(one) for one in truth["annotations"]]})
    theirs = _timed(evaluate, annotations)[1]
    ours = _timed(lambda truth: _ours(truth, results, task), coco(truth))[1]
    return [f"faster-coco-eval takes {theirs / ours:.1f} times as long as ours."]


def _timed(work: Callable[[Any], Any], argument: Any = None) -> tuple[Any, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        result = work(argument)
        return result, time.perf_counter() - start


def _check_statistics(stock: list[float], ours: list[float], tolerance: float) -> None:
    for name, expected, found in zip(STATISTICS, stock, ours, strict=True):
        if not abs(expected - found) <= tolerance:
            raise Disagreement(f"{name}: {expected!r} and {found!r}")


# ---- memory


def prepare_memory(folder: Path, small: bool) -> Comparison:
    """Detections as `process` leaves them, in a file; each side evaluates them in a process of its own."""
    truth = scenes.annotations(SMALL if small else IMAGES)
    (folder / "annotations.json").write_text(json.dumps(truth))
    by_image: dict[int, list] = {image["id"]: [] for image in truth["images"]}
    for found in scenes.detections(truth):
        # The class, which the evaluator turns into the dataset's category.
        by_image[found["image_id"]].append({**found, "category_id": found["category_id"] - 1})
    with open(folder / "predictions.jsonl", "w") as file:
        for image_id, instances in by_image.items():
            file.write(json.dumps({"image_id": image_id, "instances": instances}) + "\n")

    def side(name: str) -> Callable[[], tuple[str, float]]:
        module = f"{scenes.__package__}.evaluation_process"
        command = (sys.executable, "-m", module, name, str(folder))
        root = str(Path(scenes.__file__).parents[2])

        def measure() -> tuple[str, float]:
            usage = processes.run(command, {"PYTHONPATH": root})
            return usage.output.splitlines()[-1], usage.peak_mib

        return measure

    def imports() -> tuple[str, float]:
        command = (sys.executable, "-c", "import detectron2.evaluation")
        return "importing Detectron2", processes.run(command).peak_mib

    return Comparison(side("stock"), side("ours"), check_output, limit=imports, measured=True)


def check_output(stock: str, ours: str) -> None:
    """Raise `Disagreement` unless metrics and the file of detections are equal."""
    if stock != ours:
        raise Disagreement(f"{stock} and {ours}")


ROWS = [
    Row(
        "evaluation-boxes",
        "COCO box AP from the list of results, 5,000 images with 100 detections each",
        "12 statistics equal to pycocotools to the last bit",
        1 / 18,
        1 / 10,
        prepare("bbox"),
    ),
    Row(
        "evaluation-masks",
        "COCO mask AP from the list of results, 5,000 images with 100 detections each",
        "12 statistics equal to pycocotools to the last bit",
        1 / 6,
        1 / 4,
        prepare("segm"),
    ),
    Row(
        "evaluation-memory",
        "peak memory of a process that evaluates boxes and masks of 5,000 images",
        "all metrics and the file of detections equal",
        0.5,
        None,
        prepare_memory,
        unit="MiB",
        long=True,
    ),
]
