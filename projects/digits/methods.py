"""The pretrainings on the embedded scenes, each with the checkpoint that its own project writes.

They are made of lightly's losses and augmentations on torchvision's ResNets; what differs from the papers is
what a few hundred steps on a CPU need.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from lightly.loss import NTXentLoss, SwaVLoss
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform, SwaVTransform
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from projects.digits.pretrain import QUEUE_SIZE

RESNETS = {18: resnet18, 50: resnet50}
FEATURES = 128
TEMPERATURE = 0.2
# MoCo's 0.999 averages over a thousand steps; these runs have hundreds.
KEY_MOMENTUM = 0.99
PROTOTYPES = 32  # SwAV's 3,000 are meant for batches of thousands
# With SwAV's 0.05 and 64 prototypes a ResNet-18 collapsed: the loss stayed at chance.
SINKHORN_EPSILON = 0.02
FROZEN_PROTOTYPES = 16  # steps: with pretrain.py's settings the first epoch, as in SwAV


class MoCo(nn.Module):
    """MoCo v2; a file as its main_moco.py saves."""

    chance = float(np.log(QUEUE_SIZE + 1))

    def __init__(self, depth: int, crop_size: int):
        super().__init__()
        self.arch = f"resnet{depth}"
        self.views = MoCoV2Transform(input_size=crop_size)
        self.encoder_q = RESNETS[depth](weights=None)
        width = self.encoder_q.fc.in_features
        self.encoder_q.fc = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, FEATURES)
        )
        self.encoder_k = copy.deepcopy(self.encoder_q)
        deactivate_requires_grad(self.encoder_k)
        self.loss_of = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(QUEUE_SIZE, FEATURES))

    def forward(self, views: list[Tensor], iteration: int) -> Tensor:
        update_momentum(self.encoder_q, self.encoder_k, m=KEY_MOMENTUM)
        # MoCo shuffles keys across GPUs for batch norm's sake; one process has no across.
        with torch.no_grad():
            keys = self.encoder_k(views[1])
        return self.loss_of(self.encoder_q(views[0]), keys)

    def checkpoint(self, epoch: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """`module.` comes from MoCo's DistributedDataParallel."""
        networks = {"encoder_q": self.encoder_q, "encoder_k": self.encoder_k}
        tensors = {
            f"module.{name}.{key}": value
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }
        bank = self.loss_of.memory_bank
        tensors |= {"module.queue": bank.bank.T.contiguous(), "module.queue_ptr": bank.bank_ptr}
        return {"epoch": epoch, "arch": self.arch, "state_dict": tensors, "optimizer": optimizer}


class SwAV(nn.Module):
    """SwAV with two large and two small crops; a file as its main_swav.py saves."""

    chance = float(np.log(PROTOTYPES))

    def __init__(self, depth: int, crop_size: int):
        super().__init__()
        self.views = SwaVTransform(crop_sizes=(crop_size, crop_size // 2), crop_counts=(2, 2))
        self.network = RESNETS[depth](weights=None)
        width = self.network.fc.in_features
        self.network.fc = nn.Identity()
        self.network.projection_head = nn.Sequential(
            nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, FEATURES)
        )
        self.network.prototypes = nn.Linear(FEATURES, PROTOTYPES, bias=False)
        self.loss_of = SwaVLoss(sinkhorn_epsilon=SINKHORN_EPSILON)

    def forward(self, views: list[Tensor], iteration: int) -> Tensor:
        prototypes = self.network.prototypes
        with torch.no_grad():
            prototypes.weight.copy_(F.normalize(prototypes.weight))
        prototypes.requires_grad_(iteration >= FROZEN_PROTOTYPES)
        # Crops of one size go through the network together, as in SwAV.
        high, low = (
            list(self._similarities(torch.cat(crops)).chunk(2)) for crops in (views[:2], views[2:])
        )
        return self.loss_of(high, low)

    def _similarities(self, images: Tensor) -> Tensor:
        features = self.network.projection_head(self.network(images))
        return self.network.prototypes(F.normalize(features))

    def checkpoint(self, epoch: int, optimizer: dict[str, Any]) -> dict[str, Any]:
        """`module.` comes from SwAV's DistributedDataParallel."""
        tensors = {f"module.{key}": value for key, value in self.network.state_dict().items()}
        return {"epoch": epoch, "state_dict": tensors, "optimizer": optimizer}


METHODS = {"moco": MoCo, "swav": SwAV}
