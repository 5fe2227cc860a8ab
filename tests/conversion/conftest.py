"""Checkpoints as MoCo and SwAV write them, with the key lists of their own code, made once."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn


class MoCo(nn.Module):
    """The parts with a state of moco/builder.py's `MoCo`, in the order of its constructor."""

    def __init__(self, query: nn.Module, key: nn.Module, *, mlp: bool, queue: int = 256):
        super().__init__()
        self.encoder_q, self.encoder_k = query, key
        if mlp:  # what distinguishes v2
            for encoder in (query, key):
                encoder.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), encoder.fc)
        self.register_buffer("queue", nn.functional.normalize(torch.randn(128, queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


def swav(backbone: nn.Module) -> nn.Module:
    """The parts with a state of src/resnet50.py's `ResNet`, as main_swav.py builds it."""
    del backbone.fc
    backbone.projection_head = nn.Sequential(
        nn.Linear(2048, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, 128)
    )
    backbone.prototypes = nn.Linear(128, 3000, bias=False)
    return backbone


def pretrained(seed: int) -> nn.Module:
    """A ResNet-50 whose batch norms have seen data, so that a wrong conversion shows."""
    torch.manual_seed(seed)
    network = torchvision.models.resnet50(num_classes=128)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = None  # the statistics become those of what is seen
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))
    return network


@pytest.fixture(scope="session")
def query() -> nn.Module:
    return pretrained(0)


@pytest.fixture(scope="session")
def key() -> nn.Module:
    return pretrained(1)


@pytest.fixture(scope="session")
def wrapped_state() -> Callable[[nn.Module], dict]:
    """The state dict of a network as DistributedDataParallel names it."""
    return lambda network: {f"module.{name}": t for name, t in network.state_dict().items()}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the session's large files lie; removed at its end, for pytest keeps three of them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def moco_v2_file(folder, query, key, wrapped_state) -> Path:
    """As main_moco.py saves, in the format of its time, after one step of its optimizer."""
    query, key = copy.deepcopy(query), copy.deepcopy(key)
    model = MoCo(query, key, mlp=True)
    optimizer = torch.optim.SGD(query.parameters(), lr=1e-9, momentum=0.9, weight_decay=1e-4)
    query.eval()(torch.randn(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 800,
        "arch": "resnet50",
        "state_dict": wrapped_state(model),
        "optimizer": optimizer.state_dict(),
    }
    path = folder / "moco_v2.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="session")
def moco_v1_file(folder, query, key, wrapped_state) -> Path:
    model = MoCo(copy.deepcopy(query), copy.deepcopy(key), mlp=False)
    content = {"epoch": 200, "arch": "resnet50", "state_dict": wrapped_state(model)}
    path = folder / "moco_v1.pth.tar"
    torch.save(content | {"optimizer": {"state": {}, "param_groups": []}}, path)
    return path


@pytest.fixture(scope="session")
def swav_file(folder, query, wrapped_state) -> Path:
    """As published: flat, in the format of its time."""
    path = folder / "swav.pth.tar"
    model = swav(copy.deepcopy(query))
    torch.save(wrapped_state(model), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="session")
def swav_training_file(folder, query, wrapped_state) -> Path:
    """As main_swav.py saves: the learning rate comes from a numpy schedule, `amp` from apex."""
    content = {
        "epoch": 26,
        "state_dict": wrapped_state(swav(copy.deepcopy(query))),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.6), "params": [0]}]},
        "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 7}},
    }
    path = folder / "swav_training.pth.tar"
    torch.save(content, path)
    return path


@pytest.fixture(scope="session")
def source_tensors(query) -> dict[str, np.ndarray]:
    """What every file above holds of the backbone, under torchvision's names."""
    return {
        name: tensor.numpy()
        for name, tensor in query.state_dict().items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
