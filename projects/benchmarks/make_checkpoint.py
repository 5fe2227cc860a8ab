"""Write a MoCo v2 checkpoint as training leaves it: both encoders, queue and optimizer, 370 MB.

    python projects/benchmarks/make_checkpoint.py FOLDER

The tensors have the names, shapes and order of MoCo's own class over torchvision's ResNet-50 and random
values; `moco-zip.pth.tar` and `moco-legacy.pth.tar` are the same in torch's two formats.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torchvision
from torch import nn


def checkpoint() -> dict:
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


def main(folder: str) -> None:
    content = checkpoint()
    torch.save(content, Path(folder) / "moco-zip.pth.tar")
    torch.save(content, Path(folder) / "moco-legacy.pth.tar", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
