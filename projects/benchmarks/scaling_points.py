"""The points of scaling.py, each measured in a process of its own.

    python -m projects.benchmarks.scaling_points SERIES SIDE SIZE FOLDER

prints, as JSON, the seconds of the work and the MiB that the process had before it; if the work is a process
("whole"), the MiB of that one's peak.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .coco_file import CATEGORIES, IMAGES, write_coco_file

HERE = Path(__file__).resolve().parent


def make_annotations(folder: Path, size: float) -> None:
    write_coco_file(folder / "instances.json", round(size * IMAGES))


def make_evaluation(folder: Path, images: float, detections: float) -> None:
    """Ground truth, and detections of which three in ten overlap an object of the same class."""
    path = folder / "instances.json"
    write_coco_file(path, int(images))
    content = json.loads(path.read_text())
    draw = random.Random(1)
    objects: dict[int, list[dict]] = {image["id"]: [] for image in content["images"]}
    for each in content["annotations"]:
        objects[each["image_id"]].append(each)
    results = []
    for image_id, known in objects.items():
        for _ in range(int(detections)):
            near = known and draw.random() < 0.3
            target = draw.choice(known) if near else None
            box = target["bbox"] if near else [draw.uniform(0, 300) for _ in range(4)]
            results.append(
                {
                    "image_id": image_id,
                    "category_id": target["category_id"] if near else draw.choice(CATEGORIES),
                    "bbox": [value * draw.uniform(0.9, 1.1) for value in box],
                    "score": round(draw.random(), 3),
                }
            )
    (folder / "results.json").write_text(json.dumps(results))


def make_checkpoint(folder: Path, size: float) -> None:
    """110 MB is a ResNet-50's encoder; the rest of the size is optimizer state beside it."""
    import torch

    from .make_checkpoint import write

    path = folder / "moco.pth.tar"
    write(path, "zip", small=True)
    content = torch.load(path, weights_only=True)
    rest = int(size * 10**6) - path.stat().st_size
    # As an optimizer keeps it: some hundred tensors.
    content["optimizer"] = {n: torch.rand(rest // 400) for n in range(100)} if rest > 0 else {}
    torch.save(content, path)
    path.read_bytes()  # into the page cache


INPUTS: dict[str, Callable[[Path, float], None]] = {
    "annotations": make_annotations,
    "annotations-first": make_annotations,
    "annotations-second": make_annotations,
    "evaluation-images": partial(make_evaluation, detections=100),
    "evaluation-detections": lambda folder, size: make_evaluation(folder, 1250, size),
    "conversion": make_checkpoint,
}


def load(folder: Path, side: str) -> Callable[[], Any]:
    from detectron2.data.datasets import load_coco_json as stock

    from ssl_backbones.fast.annotations.coco_json import load_coco_json

    return partial(
        stock if side == "stock" else load_coco_json,
        str(folder / "instances.json"),
        "images",
        f"benchmark_coco_{folder}",
    )


def open_packed(folder: Path, again: bool) -> Callable[[], Any]:
    from detectron2.data.datasets import register_coco_instances

    from ssl_backbones.fast.annotations import packed_dataset as packed_dataset

    cache = folder / ("cache" if again else f"cache-{os.getpid()}")
    os.environ["SSL_BACKBONES_CACHE"] = str(cache)
    path, name = folder / "instances.json", f"benchmark_coco_{folder}"
    register_coco_instances(name, {}, str(path), "images")
    if again:
        while time.time() < path.stat().st_ctime + 2.5:  # until its times are trusted
            time.sleep(0.1)
        packed_dataset.packed_detection_dataset(name)
    return partial(packed_dataset.packed_detection_dataset, name)


def evaluate(folder: Path, side: str) -> Callable[[], Any]:
    """From the loaded results to AP; what the kernels' compilation takes is not part of it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from ssl_backbones.fast.evaluation.coco_eval import FastCOCOeval

    truth = COCO(str(folder / "instances.json"))
    found = truth.loadRes(str(folder / "results.json"))
    kind = COCOeval if side == "stock" else FastCOCOeval

    def run(images: list[int] | None = None) -> None:
        evaluation = kind(truth, found, "bbox")
        if images is not None:
            evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()

    run(truth.getImgIds()[:10])
    return run


def convert(folder: Path, side: str) -> dict[str, float]:
    from .processes import run

    script = (
        [str(HERE / "straightforward.py")]
        if side == "stock"
        else [str(HERE.parents[1] / "tools" / "convert_checkpoint.py"), "--no-verify", "--force"]
    )
    source, result = folder / "moco.pth.tar", folder / f"{side}.pkl"
    words = [script[0], str(source), str(result), *script[1:]]
    usage = run([sys.executable, *words])
    return {"seconds": usage.seconds, "mib": usage.peak_mib, "whole": True}


def point(series: str, side: str, folder: Path) -> dict[str, float]:
    """The seconds of the work, and the MiB before it."""
    if series == "conversion":
        return convert(folder, side)
    if series == "annotations":
        work = load(folder, side)
    elif series.startswith("annotations"):
        work = open_packed(folder, again=series == "annotations-second")
    else:
        work = evaluate(folder, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    del kept
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return {"seconds": seconds, "mib": before / scale, "whole": False}


if __name__ == "__main__":
    _, name, side, _, folder = sys.argv
    print()
    print(json.dumps(point(name, side, Path(folder))))
