"""What reports are tested with: a small one with numbers of its own, and the folder of a small run."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ssl_backbones.evaluation.metrics import write_metrics
from ssl_backbones.report.analysis.findings import (
    ERROR_TYPES,
    ClassRow,
    ErrorSummary,
    ImageOutcome,
    Interval,
    TaskAnalysis,
)
from ssl_backbones.report.content import (
    Deviation,
    ImageSource,
    PublishedField,
    Report,
    RunContent,
    Verdict,
)

SCRIPT = "<script>document.title = 'ran'</script>"
"""What must be shown and never run: a name of a class, a file, a run, a folder and so on."""

CLASSES = ("seven", SCRIPT, "a & b")
IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECORD = {
    "command_line": ["tools/train_net.py", "--config-file", "configs/moco_1x.py", SCRIPT],
    "seed": 7,
    "fingerprint": "6281ba4f85da",
    "weights": {
        "source": SCRIPT,
        "source_sha256": "bf235d41",
        "method": "moco",
        "input": {"format": "RGB", "pixel_mean": [123.675, 116.28, 103.53]},
        "architecture": {"name": "resnet50"},
        "proof": {
            "stages": {
                "float64": {"res2": {"absolute": 4.4e-14, "relative": 2.8e-15}},
                "float32": {"res2": {"absolute": 0.0, "relative": 0.0}},
            },
            "controls": {"BGR statistics": 0.94, "stride in the 1x1": 0.785},
            "other_branch": 0.81,
            "tolerances": {"float64": 1e-10, "float32": 1e-5},
            "margin": 73036.0,
        },
    },
    "environment": {
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "gpus": [],
        "host": SCRIPT,
        "packages": {"torch": "2.14.1", "numpy": "2.4.6"},
    },
    "git": {"ssl_backbones": {"commit": "ab3181a", "dirty": True}},
    "starts": [
        {"time": "2026-11-25", "iteration": 0, "host": "vm", "command_line": ["train", SCRIPT]},
        {"time": "2026-11-26", "iteration": 400, "host": "vm", "command_line": ["train"]},
    ],
}


def small_report(
    folder: Path, *, num_runs: int = 2, num_images: int = 8, size: int = 64, classes=CLASSES
) -> Report:
    """Runs "run 0", "run 1", ..., the last of which is named as a script where there are several."""
    source = _images(folder, num_images, size, classes)
    names = [f"run {number}" for number in range(num_runs)]
    if num_runs > 1:
        names[-1] = f"run {SCRIPT}"
    report = Report(
        [_run(number, name, source, size) for number, name in enumerate(names)],
        min_score=0.5,
        resamples=1000,
        seed=0,
        differences=[("optimizer.lr", [0.02 * (n + 1) for n in range(num_runs)]), (SCRIPT, names)],
        environment_differences=[("versions.torch", ["2.14.1"] * num_runs)],
        test_images={"small_test": source},
        command_line=["tools/report.py", SCRIPT],
    )
    return report


def _images(folder: Path, num: int, size: int, classes) -> ImageSource:
    rng = np.random.default_rng(0)
    files, annotations = {}, {}
    for image_id in range(1, num + 1):
        # Noise, which JPEG makes large files of.
        pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        name = f"{image_id:06d}.jpg" if image_id > 1 else f"{SCRIPT.replace('/', '%')}.jpg"
        Image.fromarray(pixels).save(folder / name)
        files[image_id] = str(folder / name)
        annotations[image_id] = [
            {
                "image_id": image_id,
                "category_id": 10 * (1 + (image_id + n) % len(classes)),
                "bbox": [4 + 20 * n, 8, 16, 24],
                "segmentation": [[4 + 20 * n, 8, 20 + 20 * n, 8, 12 + 20 * n, 32]],
                "iscrowd": 0,
            }
            for n in range(2)
        ]
    return ImageSource(files, annotations, {10 * (1 + n): name for n, name in enumerate(classes)})


def _run(number: int, name: str, source: ImageSource, size: int) -> RunContent:
    value = 53.9 - 0.8 * number
    verdicts = {
        f"{task}/{metric}": Verdict(
            value - shift,
            Interval(value - shift, value - shift - 2.5, value - shift + 2.4),
            Interval(-0.8 * number, -1.9 * number, 0.4) if number else None,
            0.2 if number else None,
            "no difference shown" if number else "the reference",
            38.0 - shift,
            "MMDetection",
            "not the same data",
        )
        for task, shift in (("bbox", 0), ("segm", 6))
        for metric in ("AP", "AP50", "AP75")
    }
    losses = ("total_loss", "loss_cls", "loss_mask")
    iterations = range(0, 700, 20)
    curves = {
        name: [(i, (3 + number) / (k + 1) / (1 + i / 200)) for i in iterations]
        for k, name in enumerate(losses)
    }
    curves["lr"] = [(i, 0.02 * (1 - i / 700)) for i in iterations]
    curves["bbox/AP"] = [(i, 53 * i / 700) for i in range(99, 700, 100)]
    return RunContent(
        name=name,
        folder=f"output/{name}",
        problems=[f"log of {SCRIPT} is cut off"] if number else [],
        dataset="small_test",
        metrics={name: verdict.value for name, verdict in verdicts.items()},
        facts={"images": len(source.files)},
        curves=curves,
        record=RECORD,
        config=f"model: {SCRIPT}\n",
        detections=list(_detections(source)),
        analyses={task: _analysis(number, source) for task in ("bbox", "segm")},
        verdicts=verdicts,
        published_recipe="moco_1x",
        published_fields=[PublishedField("batch", "16", "4"), PublishedField(SCRIPT, "a", "b")],
        deviations=[Deviation("train.max_iter", 90000, 700), Deviation(SCRIPT, None, SCRIPT)],
    )


def _detections(source: ImageSource):
    """What is there, a little beside it; every third is too unsure to be shown."""
    for image_id, annotations in source.annotations.items():
        for number, annotation in enumerate(annotations):
            x, y, width, height = annotation["bbox"]
            yield {
                "image_id": image_id,
                "category_id": annotation["category_id"],
                "bbox": [x + 1, y - 2, width, height],
                "score": 0.3 if (image_id + number) % 3 == 0 else 0.9,
            }


def _analysis(number: int, source: ImageSource) -> TaskAnalysis:
    rng = np.random.default_rng(number)
    names = list(source.class_names.values())
    recalls = np.linspace(0, 1, 101).tolist()
    kinds = list(ERROR_TYPES)
    images = [
        ImageOutcome(
            image_id,
            None if image_id % 7 == 6 else (image_id + number) % 5 / 4,
            0.7,
            tuple(dict.fromkeys(source.class_names[a["category_id"]] for a in annotations)),
            () if image_id % 4 == 0 else (kinds[(image_id + number) % len(kinds)],),
        )
        for image_id, annotations in source.annotations.items()
    ]
    return TaskAnalysis(
        recalls=recalls,
        precision={iou: [max(0, 1 - r**2 - (iou - 0.5)) for r in recalls] for iou in IOUS},
        by_size={"AP": 53.9, "AP50": 79.2, "AP75": 65.5, "APs": 56.3, "APm": None, "APl": None},
        classes=[
            ClassRow(name, 10 + 7 * n, 12, None if n == 1 else 30.0 + 10 * (n + number), 70.0 + n)
            for n, name in enumerate(names)
        ],
        errors={
            kind: ErrorSummary(3 + n, 0.7 * (n + number))
            for n, kind in enumerate([*kinds, "FalsePos", "FalseNeg"])
        },
        confusion=rng.integers(0, 9, (len(names) + 1, len(names) + 1)).tolist(),
        class_names=names,
        images=images,
        counts={"images": len(images), "objects": 2 * len(images), "detections": 31},
    )


def write_run(folder: Path, digits: Path, found: float = 1.0) -> Path:
    """A run on the digits test scenes: boxes with `found` of the objects' width, and their own masks."""
    content = json.loads((digits / "annotations" / "test.json").read_text())
    results = []
    for annotation in content["annotations"]:
        rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], 64, 64))
        x, y, width, height = annotation["bbox"]
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": [x, y, width * found, height],
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "score": 0.9,
            }
        )
    (folder / "inference").mkdir(parents=True)
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    # Boxes of 0.82 times the width have an IoU of 0.82: right at 7 of the 10 thresholds, 0.50 to 0.80.
    metrics = {"bbox": {"AP": 100.0 if found == 1 else 70.0}, "segm": {"AP": 100.0}}
    facts = {"images": len(content["images"])}
    write_metrics(metrics, str(folder / "inference" / "metrics.json"), "digits_test", facts)
    lines = [{"iteration": i, "total_loss": 3 - i / 10, "lr": 0.1} for i in range(0, 20, 5)]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
