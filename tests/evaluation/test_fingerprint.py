"""What counts as the same model."""

import copy

import pytest
import torch
from detectron2.layers import NaiveSyncBatchNorm

from ssl_backbones.evaluation.fingerprint import (
    describe,
    fingerprint,
    settings_of,
    sha256_of_weights,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    model[0].register_buffer("mean", torch.tensor(0.5), persistent=False)
    model[0].threshold, model[0].top = 0.05, {True: 50, False: 20}
    return model


def flip_a_bit(tensor):
    tensor.detach().reshape(-1).view(torch.uint8)[-4] ^= 1


@pytest.mark.parametrize(
    "tensor",
    [
        lambda model: model[0].weight,
        lambda model: model[0].mean,
        lambda model: model[1].running_var,
        lambda model: model[1].num_batches_tracked,
    ],
)
def test_a_bit_of_any_tensor_counts(model, tensor):
    twin = copy.deepcopy(model)
    assert sha256_of_weights(twin) == sha256_of_weights(model)
    flip_a_bit(tensor(twin))
    assert sha256_of_weights(twin) != sha256_of_weights(model)


def test_bfloat16_and_empty_tensors_have_a_hash(model):
    model[0].register_buffer("empty", torch.zeros(0))
    assert len(sha256_of_weights(model.bfloat16())) == 64


def test_a_threshold_counts_and_training_mode_does_not(model):
    before = settings_of(model)
    assert before["0"]["threshold"] == "0.05"
    assert before["0"]["top"] == {"True": "50", "False": "20"}
    assert settings_of(model.eval()) == before
    model[0].threshold = 0.1
    assert settings_of(model) != before


def test_the_kind_of_synchronised_norm_does_not_count(model):
    twin = copy.deepcopy(model)
    twin[1] = NaiveSyncBatchNorm(4)
    assert settings_of(twin) == settings_of(model)
    twin[1] = torch.nn.SyncBatchNorm(4)
    assert settings_of(twin) == settings_of(model)


def test_a_config_is_described_by_names_not_addresses(cfg):
    described = describe(cfg.dataloader.test)
    assert described["_target_"].endswith("build_detection_test_loader")
    assert described["mapper"]["image_format"] == "RGB"
    assert describe([object(), {"a": (1, None)}]) == ["builtins.object", {"a": [1, None]}]


def test_a_part_that_stands_in_for_detectron2s_counts_as_that(cfg):
    ours = describe(cfg.dataloader)
    for split in (cfg.dataloader.train, cfg.dataloader.test):
        assert split.mapper._target_.__name__ == "FastDatasetMapper"
        split.mapper._target_ = "detectron2.data.DatasetMapper"
    cfg.dataloader.evaluator._target_ = "detectron2.evaluation.COCOEvaluator"
    assert describe(cfg.dataloader) == ours
    cfg.dataloader.test.mapper._target_ = "my.project.Mapper"
    assert describe(cfg.dataloader) != ours


def test_the_order_of_names_does_not_count():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
