"""Whether processes hold the same weights, to the last bit."""

import copy

import pytest
import torch

from ssl_backbones.evaluation.coco import sha256_of_weights


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    model[0].register_buffer("mean", torch.tensor(0.5), persistent=False)
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
