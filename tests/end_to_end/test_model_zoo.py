"""The fast parts in Detectron2's own Mask R-CNN, as its model zoo has it, trained by its own trainer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.modeling.poolers import ROIPooler

import ssl_backbones.data  # noqa: F401  registers the digits
from ssl_backbones.fast.annotations.packed_dataset import PackedDataset, packed_detection_dataset
from ssl_backbones.fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ssl_backbones.fast.evaluation.roi_masks import WithRoiMasks
from ssl_backbones.fast.mapping.mapper import FastDatasetMapper
from ssl_backbones.fast.pooling.roi_pooler import FastROIPooler


@pytest.fixture(scope="module")
def cfg(digits, tmp_path_factory):
    """Mask R-CNN R50-FPN 1x by its yaml file, on small images and with few regions."""
    cfg = get_cfg()
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    cfg.merge_from_file(model_zoo.get_config_file(name))
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    # Random weights need a norm that is not frozen.
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 10
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    # A detector that has hardly trained is sure of nothing; there must be something to evaluate.
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("digits_train",), ("digits_test",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (64, 80), 64
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 2, 2, 1e-4
    cfg.SEED = 3
    cfg.OUTPUT_DIR = str(tmp_path_factory.mktemp("zoo"))
    return cfg


class Stock(DefaultTrainer):
    mapper, pooler = DatasetMapper, ROIPooler

    @classmethod
    def dataset(cls, cfg):
        return None  # Detectron2's own

    @classmethod
    def build_model(cls, cfg):
        torch.manual_seed(cfg.SEED)
        model = super().build_model(cfg)
        # The same values and no others: a pooler has no weights.
        for pooler in (model.roi_heads.box_pooler, model.roi_heads.mask_pooler):
            pooler.__class__ = cls.pooler
        return model

    @classmethod
    def build_train_loader(cls, cfg):
        np.random.seed(cfg.SEED)
        given = {"dataset": cls.dataset(cfg)} if cls.dataset(cfg) else {}
        return build_detection_train_loader(cfg, mapper=cls.mapper(cfg, is_train=True), **given)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return COCOEvaluator(
            dataset_name, output_dir=f"{cfg.OUTPUT_DIR}/stock", use_fast_impl=False
        )


class Fast(Stock):
    mapper, pooler = FastDatasetMapper, FastROIPooler

    @classmethod
    def dataset(cls, cfg):
        return packed_detection_dataset(cfg.DATASETS.TRAIN)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return FastCOCOEvaluator(dataset_name, output_dir=f"{cfg.OUTPUT_DIR}/fast")


def trained(trainer_class, cfg):
    trainer = trainer_class(cfg)
    losses = []
    run_step = trainer._trainer.run_step

    def recorded():
        run_step()
        losses.append(trainer.storage.latest()["total_loss"][0])

    trainer._trainer.run_step = recorded
    # What is evaluated is compared below, on one model.
    trainer._hooks = [hook for hook in trainer._hooks if type(hook).__name__ != "EvalHook"]
    trainer.train()
    return trainer.model, losses


@pytest.fixture(scope="module")
def stock(cfg):
    return trained(Stock, cfg)


def test_the_stock_trainer_trains_the_same_with_fast_parts(cfg, stock):
    assert isinstance(Fast.dataset(cfg), PackedDataset)
    _, losses = trained(Fast, cfg)
    # ROIAlign's sums are in another order; everything else is equal to the bit.
    assert len(losses) == 2
    np.testing.assert_allclose(losses, stock[1], rtol=1e-5)


def test_and_evaluates_to_the_same_numbers(cfg, stock):
    model, _ = stock
    results = {}
    for trainer, wrapped in ((Stock, model), (Fast, WithRoiMasks(model))):
        loader = trainer.build_test_loader(cfg, "digits_test")
        evaluator = trainer.build_evaluator(cfg, "digits_test")
        results[trainer] = inference_on_dataset(wrapped, loader, evaluator)
    assert results[Fast].keys() == results[Stock].keys() == {"bbox", "segm"}
    # NaN, where the test set has no such object, included.
    for task in ("bbox", "segm"):
        np.testing.assert_equal(dict(results[Fast][task]), dict(results[Stock][task]))
    stock_file, fast_file = (
        json.loads(Path(cfg.OUTPUT_DIR, name, "coco_instances_results.json").read_bytes())
        for name in ("stock", "fast")
    )
    assert fast_file == stock_file and len(stock_file) == 30
