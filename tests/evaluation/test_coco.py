"""The evaluation of a detector with known detections, against pycocotools."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssl_backbones.engine.config import load_config
from ssl_backbones.evaluation.coco import evaluate, write_metrics


class Oracle(torch.nn.Module):
    """Detects every annotated object, its box shifted by two pixels and its mask that of the box."""

    def __init__(self, annotations):
        super().__init__()
        self.by_image = annotations

    def forward(self, inputs):
        outputs = []
        for item in inputs:
            found = self.by_image[item["image_id"]]
            boxes = torch.tensor(
                [BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in found]
            )
            result = Instances((item["height"], item["width"]))
            result.pred_boxes = Boxes(boxes + 2.0)
            result.scores = torch.linspace(0.9, 0.5, len(found))
            result.pred_classes = torch.tensor([a["class"] for a in found])
            masks = torch.zeros(len(found), item["height"], item["width"], dtype=torch.bool)
            for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
                mask[y0:y1, x0:x1] = True
            result.pred_masks = masks
            outputs.append({"instances": result})
        return outputs


@pytest.fixture(scope="module")
def evaluated(digits, tmp_path_factory):
    from detectron2.data import MetadataCatalog

    cfg = load_config(
        "moco_1x", ["dataloader.test.dataset.names=digits_test", "dataloader.test.num_workers=0"]
    )
    file = MetadataCatalog.get("digits_test").json_file
    content = json.loads(Path(file).read_text())
    classes = {
        c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]))
    }
    by_image = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(
            {**annotation, "class": classes[annotation["category_id"]]}
        )
    folder = tmp_path_factory.mktemp("run")
    return evaluate(cfg.dataloader, Oracle(by_image), str(folder)), folder, file


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_numbers_are_pycocotools(evaluated, task):
    results, folder, file = evaluated
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
        coco = COCOeval(truth, truth.loadRes(str(folder / "coco_instances_results.json")), task)
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    names = ("AP", "AP50", "AP75", "APs")
    written = json.loads((folder / "metrics.json").read_text())
    for name, expected in zip(names, coco.stats[[0, 1, 2, 3]] * 100, strict=True):
        assert results[task][name] == pytest.approx(expected, abs=1e-9)
        assert written[task][name] == pytest.approx(expected, abs=1e-9)
    assert 0 < written[task]["AP50"] <= 100


def test_the_file_has_ap_by_class_and_size(evaluated):
    written = json.loads((evaluated[1] / "metrics.json").read_text())
    assert written["dataset"] == "digits_test"
    for task in ("bbox", "segm"):
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"} <= set(written[task])
        assert len(written[task]["per_class"]) == 10


def test_nan_becomes_null(tmp_path):
    write_metrics(
        {"bbox": {"AP": 1.5, "APl": float("nan"), "AP-one": float("nan")}}, str(tmp_path / "m.json")
    )
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "dataset": "",
        "bbox": {"AP": 1.5, "APl": None, "per_class": {"one": None}},
    }
