"""Running statistics made anew, against the moments of everything that went through the layer."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.config import instantiate
from running import TINY

from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.hooks.precise_bn import PreciseBN


@pytest.fixture
def cfg(digits):
    return load_config(TINY, ["train.precise_bn.num_iter=3"])


@pytest.fixture
def model(cfg):
    torch.manual_seed(0)
    return instantiate(cfg.model).train()


def updated(cfg, model, iteration=5, seed=7):
    hook = PreciseBN(cfg, model)
    hook.trainer = SimpleNamespace(iter=iteration, max_iter=100, seed=seed)
    hook.update()
    return {name: tensor.clone() for name, tensor in model.named_buffers() if "running" in name}


def test_statistics_are_the_moments_of_all_pixels(cfg, model):
    cfg.dataloader.train.mapper.augmentations[0].short_edge_length = [32, 64]
    cfg.train.precise_bn.num_iter = 8
    norm = model.backbone.bottom_up.stem.conv1.norm
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    buffers = norm.running_mean, norm.running_var
    updated(cfg, model)
    assert len(seen) == 8
    # Images of several sizes: each pixel counts the same.
    pixels = torch.cat([batch.transpose(0, 1).flatten(1) for batch in seen], dim=1)
    assert len({batch.shape for batch in seen}) > 1
    torch.testing.assert_close(norm.running_mean.double(), pixels.mean(1), rtol=1e-5, atol=1e-5)
    variance = pixels.var(1, correction=0)
    torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-5)
    # The optimizer, the average and DDP hold these very tensors.
    assert buffers[0] is norm.running_mean and buffers[1] is norm.running_var
    assert norm.momentum == 0.1 and model.training


def test_they_depend_on_seed_and_iteration_alone(cfg, model):
    first = updated(cfg, model)
    torch.rand(10)
    again = updated(cfg, model)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in ({"iteration": 6}, {"seed": 8}):
        statistics = updated(cfg, model, **other)
        assert any(not torch.equal(first[name], statistics[name]) for name in first)


def test_training_goes_on_as_if_nothing_had_happened(cfg, model):
    weights = {name: p.clone() for name, p in model.named_parameters()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    updated(cfg, model)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("iteration, due", [(4, False), (5, True), (99, True)])
def test_it_comes_before_an_evaluation(cfg, model, iteration, due):
    cfg.train.eval_period, cfg.train.precise_bn.num_iter = 6, 1
    before = model.backbone.bottom_up.stem.conv1.norm.running_mean.clone()
    hook = PreciseBN(cfg, model)
    hook.trainer = SimpleNamespace(iter=iteration, max_iter=100, seed=0)
    hook.after_step()
    after = model.backbone.bottom_up.stem.conv1.norm.running_mean
    assert torch.equal(before, after) is not due


def test_without_batch_norm_there_is_nothing_to_do(cfg):
    cfg.dataloader.train.dataset.names = "no such dataset"
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1).eval())
    assert updated(cfg, model)["1.running_mean"].item() == 0
