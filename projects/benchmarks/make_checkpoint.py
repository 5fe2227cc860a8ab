"""A MoCo v2 checkpoint as training leaves it: both encoders, queue and optimizer, 370 MB.

The tensors have the names, shapes and order of MoCo's own class over torchvision's ResNet-50 and random
values.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn


def write(path: Path, form: str, small: bool = False) -> None:
    """Write it in torch's "zip" or "legacy" format; a small one holds the query encoder alone, 110 MB."""
    content = _query_alone() if small else _checkpoint()
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


def _checkpoint() -> dict:
    torch.manual_seed(0)
    state = {}
    for name in ("encoder_q", "encoder_k"):
        encoder = torchvision.models.resnet50(num_classes=128)
        encoder.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), encoder.fc)
        state |= {f"module.{name}.{key}": tensor for key, tensor in encoder.state_dict().items()}
    state["module.queue"] = nn.functional.normalize(torch.randn(128, 65536), dim=0)
    state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    momentum = [torch.randn_like(parameter) for parameter in encoder.parameters()]
    optimizer = {
        "state": {index: {"momentum_buffer": tensor} for index, tensor in enumerate(momentum)},
        "param_groups": [{"lr": 0.03, "momentum": 0.9, "params": list(range(len(momentum)))}],
    }
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": optimizer}


def _query_alone() -> dict:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = torchvision.models.resnet50(num_classes=128)
    state = {f"module.encoder_q.{key}": tensor for key, tensor in encoder.state_dict().items()}
    return {"epoch": 200, "arch": "resnet50", "state_dict": state}
