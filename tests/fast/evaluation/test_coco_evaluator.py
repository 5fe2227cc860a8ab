"""The fast COCO evaluator and masks left unpasted, against Detectron2's own parts on the same detectors."""

import json
import os

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances, ROIMasks
from running import TINY

from ssl_backbones.engine.config import load_config
from ssl_backbones.evaluation.coco import evaluate
from ssl_backbones.fast.evaluation import coco_evaluator as evaluator_module
from ssl_backbones.fast.evaluation import rle as mask_rle
from ssl_backbones.fast.evaluation.coco_evaluator import FastCOCOEvaluator, coco_results
from ssl_backbones.fast.evaluation.detections import Detections
from ssl_backbones.fast.evaluation.roi_masks import WithRoiMasks, has_usual_postprocessing

DETECTIONS = "coco_instances_results.json"


@pytest.fixture
def tiny(digits):
    """A recipe with a small Mask R-CNN R18-FPN, whose every detection counts."""
    return load_config(TINY, ["dataloader.evaluator.dataset_name=digits_test"])


@pytest.fixture
def model(tiny):
    torch.manual_seed(3)
    return instantiate(tiny.model).eval()


def evaluated(kind, model, tiny, folder, **options):
    """Metrics as a string, since NaN equals nothing, and the file of detections."""
    evaluator = kind("digits_test", output_dir=str(folder), use_fast_impl=False, **options)
    results = inference_on_dataset(model, instantiate(tiny.dataloader.test), evaluator)
    return str(results), (folder / DETECTIONS).read_bytes()


def test_masks_and_metrics_are_detectron2s(model, tiny, tmp_path):
    expected = evaluated(COCOEvaluator, model, tiny, tmp_path / "stock")
    assert b'"segmentation"' in expected[1] and "'segm'" in expected[0]
    assert evaluated(FastCOCOEvaluator, WithRoiMasks(model), tiny, tmp_path / "roi") == expected
    # It takes pasted masks as well.
    assert evaluated(FastCOCOEvaluator, model, tiny, tmp_path / "pasted") == expected


@pytest.mark.parametrize("options", [{"max_dets_per_image": 200}, {"tasks": ("segm",)}])
def test_options_mean_the_same(oracle, tiny, tmp_path, options):
    ours = evaluated(FastCOCOEvaluator, oracle(), tiny, tmp_path / "ours", **options)
    assert ours == evaluated(COCOEvaluator, oracle(), tiny, tmp_path / "stock", **options)
    assert "{'AP': nan" not in ours[0] and ("bbox" in ours[0]) == ("tasks" not in options)


def test_a_detector_that_finds_nothing(oracle, tiny, tmp_path):
    model = oracle()
    model.threshold = 1
    ours = evaluated(FastCOCOEvaluator, model, tiny, tmp_path / "ours")
    assert ours == evaluated(COCOEvaluator, model, tiny, tmp_path / "stock")
    assert ours[1] == b"[]" and "nan" in ours[0]


def test_without_numba_and_hotcoco_everything_is_the_same(model, tiny, tmp_path, monkeypatch):
    expected = evaluated(COCOEvaluator, model, tiny, tmp_path / "stock")
    monkeypatch.setattr(mask_rle, "numba_or_none", lambda purpose: None)
    monkeypatch.setattr(evaluator_module, "hotcoco_or_none", lambda: None)
    assert evaluated(FastCOCOEvaluator, WithRoiMasks(model), tiny, tmp_path / "ours") == expected


def test_keypoints_are_detectron2s():
    found = Instances((20, 30))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 3, 12, 14]]))
    found.scores, found.pred_classes = torch.tensor([0.5]), torch.tensor([0])
    found.pred_keypoints = torch.tensor([[[3.5, 4.5, 1.0]]])
    masks = ROIMasks(torch.ones(1, 28, 28))
    found.pred_masks = masks.to_bitmasks(found.pred_boxes, 20, 30).tensor
    (expected,) = coco_results(found, 7)
    found.pred_keypoints = torch.tensor([[[3.5, 4.5, 1.0]]])
    found.pred_masks = masks
    (ours,) = coco_results(found, 7)
    # The order of names too: it is that of the file.
    assert json.dumps(ours) == json.dumps(expected)
    assert list(ours)[-2:] == ["segmentation", "keypoints"]


def test_masks_of_half_precision_are_pasted_by_detectron2():
    found = Instances((20, 30))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 3, 12, 14]]))
    found.scores, found.pred_classes = torch.tensor([0.5]), torch.tensor([0])
    masks = ROIMasks(torch.ones(1, 28, 28, dtype=torch.float16))
    found.pred_masks = masks.to_bitmasks(found.pred_boxes, 20, 30).tensor
    expected = coco_results(found, 7)
    found.pred_masks = masks
    assert coco_results(found, 7) == expected


def test_detections_are_kept_in_arrays_and_in_one_file_only(oracle, tiny, tmp_path):
    evaluator = FastCOCOEvaluator("digits_test", output_dir=str(tmp_path))
    inference_on_dataset(oracle(), instantiate(tiny.dataloader.test), evaluator)
    assert {type(kept["instances"]) for kept in evaluator._predictions} == {Detections}
    assert os.listdir(tmp_path) == [DETECTIONS]


def test_a_class_that_the_dataset_has_not_is_named(oracle, tiny, tmp_path):
    model = oracle()
    model.by_image = {
        image: [{**one, "class": 10} for one in found] for image, found in model.by_image.items()
    }
    with pytest.raises(AssertionError, match=r"class=10, but the dataset only has 10 classes"):
        evaluated(FastCOCOEvaluator, model, tiny, tmp_path)


# ---- masks left unpasted


def test_the_wrapper_says_what_the_model_says(model, tiny):
    images = DatasetCatalog.get("digits_test")
    inputs = [instantiate(tiny.dataloader.test.mapper)(image) for image in images[:2]]
    # As large as a photograph of which the input is a small copy.
    inputs[1].update(height=100, width=130)
    with torch.no_grad():
        pairs = zip(model(inputs), WithRoiMasks(model)(inputs), strict=True)
    for expected, found in pairs:
        expected, found = expected["instances"], found["instances"]
        masks = found.pred_masks.to_bitmasks(found.pred_boxes, *found.image_size).tensor
        assert len(found) > 0 and set(found.get_fields()) == set(expected.get_fields())
        assert found.image_size == expected.image_size
        assert torch.equal(masks, expected.pred_masks)
        assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.equal(found.scores, expected.scores)


def test_training_goes_through_and_comes_back(model, tiny, tmp_path):
    wrapped = WithRoiMasks(model.train())
    evaluated(FastCOCOEvaluator, wrapped, tiny, tmp_path)
    assert wrapped.training and model.training and model.backbone.training
    evaluated(FastCOCOEvaluator, WithRoiMasks(model.eval()), tiny, tmp_path)
    assert not (model.training or model.backbone.training)


def test_a_detector_with_a_way_of_its_own_keeps_it(model, tiny, tmp_path):
    class Flipped(GeneralizedRCNN):
        def inference(self, *args, **kwargs):
            done = super().inference(*args, **kwargs)
            for one in done:
                one["instances"].pred_masks = one["instances"].pred_masks.flip(2)
            return done

    before = evaluated(FastCOCOEvaluator, model, tiny, tmp_path / "before")
    model.__class__ = Flipped
    assert not has_usual_postprocessing(model)
    with pytest.raises(ValueError, match="Flipped does not postprocess as GeneralizedRCNN does"):
        WithRoiMasks(model)
    tiny.dataloader.evaluator._target_ = FastCOCOEvaluator
    evaluate(tiny.dataloader, model, str(tmp_path / "ours"))
    stock = evaluated(COCOEvaluator, model, tiny, tmp_path / "stock")
    assert (tmp_path / "ours" / DETECTIONS).read_bytes() == stock[1] != before[1]


def test_the_projects_evaluation_uses_them_by_itself(model, tiny, tmp_path, monkeypatch):
    used = []
    original = mask_rle.encode_roi_masks
    monkeypatch.setattr(
        evaluator_module, "encode_roi_masks", lambda *given: used.append(1) or original(*given)
    )
    for kind in (COCOEvaluator, FastCOCOEvaluator):
        tiny.dataloader.evaluator._target_ = kind
        evaluate(tiny.dataloader, model, str(tmp_path / kind.__name__))
        assert len(used) == (6 if kind is FastCOCOEvaluator else 0)
    for name in (DETECTIONS, "per_class.csv"):
        stock, ours = (
            (tmp_path / kind.__name__ / name).read_bytes()
            for kind in (COCOEvaluator, FastCOCOEvaluator)
        )
        assert stock == ours
