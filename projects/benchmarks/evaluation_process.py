"""One side of the row "evaluation-memory", in a process of its own.

    python -m projects.benchmarks.evaluation_process stock|ours FOLDER

FOLDER holds annotations.json, and predictions.jsonl with what `COCOEvaluator.process` leaves of an image in
each line. Prints the metrics and the hash of the file of detections.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(side: str, folder: Path) -> None:
    from detectron2.data import MetadataCatalog

    from . import scenes

    # As `register_coco_instances` sets them.
    ids = {number + 1: number for number in range(scenes.CLASSES)}
    names = [f"class {number}" for number in ids]
    MetadataCatalog.get("benchmark").set(
        json_file=str(folder / "annotations.json"),
        thing_classes=names,
        thing_dataset_id_to_contiguous_id=ids,
    )
    with tempfile.TemporaryDirectory() as output:
        evaluator = _evaluator(side, output)
        evaluator._predictions = list(_predictions(side, folder / "predictions.jsonl"))
        metrics = evaluator.evaluate()
        content = (Path(output) / "coco_instances_results.json").read_bytes()
    print(json.dumps([repr(metrics), hashlib.sha256(content).hexdigest()]))


def _evaluator(side: str, output: str) -> Any:
    from detectron2.evaluation import COCOEvaluator

    from ssl_backbones.compat import has_compiled_coco_evaluation

    kind = COCOEvaluator
    if side == "ours":
        from ssl_backbones.fast.evaluation.coco_evaluator import FastCOCOEvaluator

        kind = FastCOCOEvaluator
    # v0.6 does not fall back by itself.
    return kind("benchmark", output_dir=output, use_fast_impl=has_compiled_coco_evaluation())


def _predictions(side: str, path: Path) -> Iterator[dict[str, Any]]:
    """As each evaluator's `process` keeps them."""
    with open(path) as file:
        for line in file:
            prediction = json.loads(line)
            if side == "ours":
                from ssl_backbones.fast.evaluation.coco_evaluator import packed

                prediction = packed(prediction)
            yield prediction


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
