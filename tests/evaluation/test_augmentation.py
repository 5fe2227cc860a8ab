"""Test-time augmentation of a small Mask R-CNN, against Detectron2's classes put together by hand."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNNWithTTA
from running import TINY

from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.coco import evaluate, with_augmentation

TTA = {"min_sizes": [48, 64], "max_size": 100, "flip": True}
DETECTIONS = "coco_instances_results.json"


@pytest.fixture
def tiny(digits):
    """A recipe with a small Mask R-CNN R18-FPN, whose every detection counts."""
    return load_config(TINY)


@pytest.fixture
def model(tiny):
    torch.manual_seed(3)
    return instantiate(tiny.model).eval()


def by_hand(model):
    """As Detectron2's yaml flow makes it, from the values of the config above."""
    node = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
    node.MODEL.ROI_HEADS.NUM_CLASSES = 10
    node.TEST.DETECTIONS_PER_IMAGE = 5
    node.TEST.AUG.MIN_SIZES, node.TEST.AUG.MAX_SIZE, node.TEST.AUG.FLIP = (48, 64), 100, True
    return GeneralizedRCNNWithTTA(node, model, DatasetMapperTTA(node)).eval()


def test_detections_are_those_of_detectron2s_classes(model, tiny, tmp_path):
    results = evaluate(tiny.dataloader, model, str(tmp_path / "ours"), tta=TTA)
    evaluator = COCOEvaluator("digits_test", output_dir=str(tmp_path / "hand"), use_fast_impl=False)
    expected = inference_on_dataset(by_hand(model), instantiate(tiny.dataloader.test), evaluator)
    assert str(results) == str(expected)
    ours, theirs = ((tmp_path / name / DETECTIONS).read_bytes() for name in ("ours", "hand"))
    assert ours == theirs
    assert b'"segmentation"' in ours
    # The control: without augmentation they are others.
    evaluate(tiny.dataloader, model, str(tmp_path / "plain"))
    assert (tmp_path / "plain" / DETECTIONS).read_bytes() != ours


def test_a_detector_without_masks_has_boxes(tiny, tmp_path):
    heads = tiny.model.roi_heads
    heads.mask_in_features = heads.mask_pooler = heads.mask_head = None
    evaluate(tiny.dataloader, instantiate(tiny.model), str(tmp_path), tta=TTA | {"flip": False})
    text = (tmp_path / DETECTIONS).read_text()
    assert '"bbox"' in text and '"segmentation"' not in text


def test_the_model_keeps_its_mode(model):
    assert not with_augmentation(model, TTA).training
    assert with_augmentation(model.train(), TTA).training
    assert model.training


def test_what_detectron2_cannot_augment_is_refused(model):
    with pytest.raises(InputError, match=r"this model is a Linear: set train\.tta\.enabled=False"):
        with_augmentation(torch.nn.Linear(1, 1), TTA)
    model.roi_heads.keypoint_on = True
    with pytest.raises(InputError, match="this one finds keypoints"):
        with_augmentation(model, TTA)
