"""VOC's test set through `evaluate`: the numbers of Detectron2's own evaluator, for any processes."""

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances

from ssl_backbones.engine.config import load_config
from ssl_backbones.evaluation.coco import evaluate


class Finder(torch.nn.Module):
    """Detects each object of a VOC set, moved by about `noise` pixels, and as much that is not there."""

    def __init__(self, name, noise):
        super().__init__()
        self.register_buffer("noise", torch.tensor(float(noise)))
        self.records = {record["image_id"]: record for record in DatasetCatalog.get(name)}

    def forward(self, inputs):
        return [{"instances": self.found(image["image_id"])} for image in inputs]

    def found(self, id_):
        record = self.records[id_]
        random = np.random.default_rng(int(id_))
        boxes = np.array([one["bbox"] for one in record["annotations"]], float)
        kinds = [one["category_id"] for one in record["annotations"]]
        scores = random.uniform(0.5, 1, len(kinds))
        noise = float(self.noise)
        if noise:
            others = boxes + random.normal(0, 10, boxes.shape)
            boxes = np.concatenate([boxes + random.normal(0, noise, boxes.shape), others])
            kinds, scores = (
                kinds * 2,
                np.concatenate([scores, random.uniform(0.3, 0.8, len(kinds))]),
            )
        result = Instances((record["height"], record["width"]))
        result.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        result.scores = torch.tensor(scores)
        result.pred_classes = torch.tensor(kinds)
        return result


@pytest.fixture()
def dataloader(miniatures):
    """That of a recipe, its test set VOC's."""
    words = ["dataloader.test.dataset.names=voc_2007_test", "dataloader.test.num_workers=0"]
    made = load_config("moco_1x", words).dataloader
    made.test.dataset._target_ = get_detection_dataset_dicts
    made.evaluator = L(PascalVOCDetectionEvaluator)(dataset_name="${..test.dataset.names}")
    return made


def by_detectron2(finder):
    evaluator = PascalVOCDetectionEvaluator("voc_2007_test")
    evaluator.reset()
    for id_ in finder.records:
        evaluator.process([{"image_id": id_}], finder([{"image_id": id_}]))
    return evaluator.evaluate()["bbox"]


def test_the_numbers_are_those_of_detectron2s_evaluator(dataloader, tmp_path):
    finder = Finder("voc_2007_test", noise=1.5)
    expected = by_detectron2(finder)
    results = evaluate(dataloader, finder, str(tmp_path))["bbox"]
    assert dict(results) == dict(expected)
    # Neither nothing nor all is found, and the three are three numbers.
    assert 0 < results["AP"] < results["AP75"] < results["AP50"] < 50
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["dataset"] == "voc_2007_test"
    assert {name: written["bbox"][name] for name in expected} == dict(expected)


def test_several_processes_give_the_same(dataloader, tmp_path, forked):
    finder = Finder("voc_2007_test", noise=1.5)
    expected = by_detectron2(finder)

    def body(rank):
        return dict(evaluate(dataloader, finder, str(tmp_path / "several")).get("bbox", {}))

    first, *others = forked(3, body)
    assert first == pytest.approx(dict(expected), rel=1e-12) and others == [{}, {}]


def test_whoever_finds_all_has_the_share_of_the_classes_that_there_are(
    dataloader, miniatures, tmp_path
):
    """By VOC's rule difficult objects count neither for nor against; of 20 classes some have no other."""
    ids = (miniatures / "VOC2007/ImageSets/Main/test.txt").read_text().split()
    trees = [ET.parse(miniatures / f"VOC2007/Annotations/{id_}.xml") for id_ in ids]
    objects = [object_ for tree in trees for object_ in tree.findall("object")]
    counted = {one.findtext("name") for one in objects if one.findtext("difficult") == "0"}
    assert any(one.findtext("difficult") == "1" for one in objects)
    results = evaluate(dataloader, Finder("voc_2007_test", noise=0), str(tmp_path))["bbox"]
    expected = 100 * len(counted) / 20
    assert dict(results) == pytest.approx({"AP": expected, "AP50": expected, "AP75": expected})
