"""The evaluation of a detector with known detections, against pycocotools and stock Detectron2."""

import contextlib
import csv
import io
import json

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, inference_on_dataset
from omegaconf import OmegaConf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.hooks.ema import WeightAverage
from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.coco import evaluate, evaluate_all, evaluate_weights

DETECTIONS = "coco_instances_results.json"
FILES = (DETECTIONS, "metrics.json", "per_class.csv")


@pytest.fixture
def evaluated(cfg, oracle, tmp_path):
    return evaluate(cfg.dataloader, oracle(), str(tmp_path / "whole")), tmp_path / "whole"


def by_pycocotools(annotation_file, detections, task, images=None):
    """AP, AP50, AP75 and APs in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotation_file))
        coco = COCOeval(truth, truth.loadRes(str(detections)), task)
        if images is not None:
            coco.params.imgIds = images
        coco.evaluate()
        coco.accumulate()
        coco.summarize()
    return dict(zip(("AP", "AP50", "AP75", "APs"), coco.stats[:4] * 100, strict=True))


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_the_numbers_are_pycocotools(evaluated, annotation_file, task):
    results, folder = evaluated
    written = json.loads((folder / "metrics.json").read_text())
    for name, expected in by_pycocotools(annotation_file, folder / DETECTIONS, task).items():
        assert results[task][name] == pytest.approx(expected, abs=1e-9)
        assert written[task][name] == pytest.approx(expected, abs=1e-9)
    assert 0 < written[task]["AP50"] <= 100


def test_results_and_detections_are_those_of_stock_detectron2(evaluated, cfg, oracle, tmp_path):
    stock = COCOEvaluator("digits_test", output_dir=str(tmp_path / "stock"), use_fast_impl=False)
    expected = inference_on_dataset(oracle(), instantiate(cfg.dataloader.test), stock)
    results, folder = evaluated
    assert json.dumps(results) == json.dumps(expected)
    assert (folder / DETECTIONS).read_bytes() == (tmp_path / "stock" / DETECTIONS).read_bytes()


def test_the_files_tell_ap_by_class_and_what_was_evaluated(evaluated):
    _, folder = evaluated
    written = json.loads((folder / "metrics.json").read_text())
    assert written["dataset"] == "digits_test"
    assert (written["images"], written["images_in_dataset"]) == (6, 6)
    assert written["test_time_augmentation"] == "none"
    for task in ("bbox", "segm"):
        assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "per_class"} <= set(written[task])
        assert len(written[task]["per_class"]) == 10
    header, *rows = csv.reader((folder / "per_class.csv").read_text().splitlines())
    assert header == ["class", "bbox/AP", "segm/AP"]
    for name, *values in rows:
        for task, value in zip(("bbox", "segm"), values, strict=True):
            expected = written[task]["per_class"][name]
            assert value == ("" if expected is None else f"{expected:.3f}")


def test_a_subset_is_evenly_spread_and_the_rest_is_not_missed(
    cfg, oracle, annotation_file, tmp_path
):
    model = oracle()
    results = evaluate(cfg.dataloader, model, str(tmp_path), subset=3)
    images = [image["id"] for image in json.loads(annotation_file.read_text())["images"]]
    assert model.seen == images[::2]
    for task in ("bbox", "segm"):
        expected = by_pycocotools(annotation_file, tmp_path / DETECTIONS, task, model.seen)
        for name, value in expected.items():
            assert results[task][name] == pytest.approx(value, abs=1e-9)
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert (written["images"], written["images_in_dataset"]) == (3, 6)


def test_a_killed_evaluation_is_made_again(evaluated, cfg, oracle, tmp_path, forked):
    folder = tmp_path / "killed"

    def killed(rank):
        evaluate(cfg.dataloader, oracle(killed_after=4), str(folder))

    assert forked(1, killed) == [None]
    assert not (folder / "metrics.json").exists()
    model = oracle()
    results = evaluate(cfg.dataloader, model, str(folder))
    assert len(model.seen) == 6
    expected, whole = evaluated
    assert json.dumps(results) == json.dumps(expected)
    for name in FILES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


class Counting(DatasetEvaluator):
    """An evaluator that Detectron2 does not know, with a metric that is no dict."""

    def __init__(self, factor):
        self.factor = factor

    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        return {"counting": {"images": float(self.images * self.factor)}, "plain": 1.0}


def test_any_other_evaluator_works_as_in_detectron2(cfg, oracle, tmp_path):
    cfg.dataloader.evaluator = OmegaConf.create(
        [LazyCall(Counting)(factor=2), LazyCall(COCOEvaluator)(dataset_name="digits_test")],
        flags={"allow_objects": True},
    )
    for _ in range(2):
        model = oracle()
        results = evaluate(cfg.dataloader, model, str(tmp_path))
        assert len(model.seen) == 6
    assert (results["counting"]["images"], results["plain"]) == (12, 1)
    assert results["bbox"]["AP"] > 0
    assert json.loads((tmp_path / "metrics.json").read_text())["counting"]["images"] == 12


def test_a_subset_is_refused_where_the_evaluator_cannot_take_one(cfg, oracle, tmp_path):
    cfg.dataloader.evaluator = LazyCall(Counting)(factor=2)
    with pytest.raises(InputError, match=r"subset.*COCOEvaluator: set train\.eval_subset=0"):
        evaluate(cfg.dataloader, oracle(), str(tmp_path), subset=3)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_is_missing_is_named(cfg, oracle, digits, tmp_path, workers):
    cfg.dataloader.test.num_workers = workers
    image = sorted((digits / "test").glob("*"))[2]
    image.rename(tmp_path / "away")
    try:
        with pytest.raises(
            InputError, match=f"image {image} cannot be used: there is no such file"
        ):
            evaluate(cfg.dataloader, oracle(), str(tmp_path))
    finally:
        (tmp_path / "away").rename(image)


def test_a_checkpoints_averaged_weights_are_evaluated_beside_its_own(cfg, oracle, tmp_path):
    trained = oracle(shift=3.0)
    average = WeightAverage(trained, 0.5)
    trained.shift.fill_(0.0)
    StrictCheckpointer(trained, str(tmp_path), ema=average).save("model_final")

    model = oracle(shift=9.0)
    loaded = StrictCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    average = WeightAverage(model, 0.5)
    average.load_state_dict(loaded["ema"])
    metrics = evaluate_all(cfg, model, average)
    assert metrics["bbox/AP"] == 100 > metrics["ema/bbox/AP"] > 0
    for folder, name in (("inference", "bbox/AP"), ("inference_ema", "ema/bbox/AP")):
        written = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert written["bbox"]["AP"] == metrics[name]
    assert torch.equal(model.shift, torch.tensor(0.0))


@pytest.mark.parametrize(
    "subset, averaged, folders",
    [
        (0, False, {"inference"}),
        (2, False, {"inference_subset"}),
        (2, True, {"inference_subset", "inference_subset_ema"}),
    ],
)
def test_each_has_a_folder_of_its_own(cfg, oracle, tmp_path, subset, averaged, folders):
    model = oracle()
    evaluate_weights(cfg, model, WeightAverage(model, 0.5) if averaged else None, subset=subset)
    assert {path.name for path in tmp_path.iterdir()} == folders
