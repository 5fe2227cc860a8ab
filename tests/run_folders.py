"""Run folders as a training leaves them, in miniature: the digits, with detections made up from the truth."""

import contextlib
import copy
import io
import json

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssl_backbones import get_config
from ssl_backbones.engine import record
from ssl_backbones.engine.config import apply_overrides
from ssl_backbones.evaluation.metrics import write_metrics

SIZE = 64  # of the scenes, in pixels
SHA256 = "ab12" * 16
PROVENANCE = {
    "source": "moco_v2_800ep_pretrain.pth.tar",
    "source_sha256": SHA256,
    "method": "moco",
    "branch": "online",
}
COMMAND = ("tools/train_net.py", "--config-file", "configs/moco_1x.py", "--num-gpus", "8")


def truth_of(digits, split="test"):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(digits / "annotations" / f"{split}.json"))


def detections(truth, *, found=1.0, masks=True, seed=0):
    """COCO results: each object is found with that probability, where it is, and nothing else is."""
    random = np.random.default_rng(seed)
    results = []
    for annotation in truth.dataset["annotations"]:
        if random.random() >= found:
            continue
        result = {name: annotation[name] for name in ("image_id", "category_id", "bbox")}
        result["score"] = float(random.uniform(0.6, 1))
        if masks:
            polygons = coco_mask.frPyObjects(annotation["segmentation"], SIZE, SIZE)
            rle = coco_mask.merge(polygons)
            result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        results.append(result)
    return results


def average_precisions(truth, results, task, image_ids=None):
    """By pycocotools, in percent."""
    truth = copy.deepcopy(truth)  # masks are encoded in place
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), task)
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    values = evaluation.stats[:6]
    return {n: 100 * v if v > -1 else float("nan") for n, v in zip(names, values, strict=True)}


def write_evaluation(folder, truth, results, *, dataset="digits_test", image_ids=None, **facts):
    """What `ssl_backbones.evaluation.coco.evaluate` leaves; the numbers are pycocotools'."""
    has_masks = all("segmentation" in result for result in results)
    metrics = {
        task: average_precisions(truth, results, task, image_ids)
        for task in ("bbox", *(["segm"] if has_masks else []))
    }
    size = len(truth.imgs)
    count = size if image_ids is None else len(image_ids)
    facts = {"images": count, "images_in_dataset": size, "fingerprint": "f" * 64} | facts
    write_metrics(metrics, str(folder / "metrics.json"), dataset, facts)
    (folder / "coco_instances_results.json").write_text(json.dumps(results))
    return metrics


def write_record(folder, *overrides, command=COMMAND, provenance=PROVENANCE, slots=8):
    cfg = get_config("moco_1x")
    apply_overrides(cfg, ["train.seed=3", *overrides])
    record.start(folder, cfg, provenance=provenance, slots=slots)
    change_json(folder / record.NAME, command_line=list(command))


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_scalars(folder, iterations=(19, 39, 59)):
    lines = [
        {"iteration": i, "total_loss": 4 - i / 50, "lr": 0.02, "recipe": "ab12"} for i in iterations
    ]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_run(folder, truth, results, *overrides, dataset="digits_test", **options):
    """A whole run; gives the metrics of its evaluation by task."""
    folder.mkdir(parents=True)
    write_record(folder, "train.max_iter=60", *overrides, **options)
    write_scalars(folder)
    (folder / "config.yaml").write_text("train:\n  max_iter: 60\n")
    return write_evaluation(folder / "inference", truth, results, dataset=dataset)
