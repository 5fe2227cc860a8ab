"""The three pretrainings of the study, each with the checkpoint that its own project writes.

MoCo v2 and SwAV are made of lightly's losses and augmentations on torchvision's ResNet-18; the supervised
control classifies digits. README.md says what differs from the papers.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator

import numpy as np
import torch
import torchvision.transforms as T
from lightly.loss import NTXentLoss, SwaVLoss
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms import MoCoV2Transform, SwaVTransform
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from projects.digits import pretrain as digits
from ssl_backbones.data.digits.digit_scenes import Scene

WIDTH = 512  # of ResNet-18's features
PROTOTYPES = 32  # SwAV's 3,000 are meant for batches of thousands
# With SwAV's 0.05 and MoCo's learning rate the network collapses here: the loss stays at chance.
SINKHORN_EPSILON = 0.02
FROZEN_PROTOTYPES = 16  # steps: with pretrain.py's settings the first epoch, as in SwAV
CONTEXT = 1.5  # side of a digit's crop, of the longer side of its box


class MoCo(nn.Module):
    """MoCo v2; a file as its main_moco.py saves."""

    learning_rate = 1e-3
    chance = float(np.log(digits.QUEUE_SIZE + 1))

    def __init__(self, crop_size: int, statistics: dict[str, list[float]]):
        super().__init__()
        self.views = MoCoV2Transform(input_size=crop_size, normalize=statistics)
        self.encoder_q = resnet18(weights=None)
        self.encoder_q.fc = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, digits.FEATURES)
        )
        self.encoder_k = copy.deepcopy(self.encoder_q)
        deactivate_requires_grad(self.encoder_k)
        self.loss_of = NTXentLoss(
            temperature=digits.TEMPERATURE,
            memory_bank_size=(digits.QUEUE_SIZE, digits.FEATURES),
        )

    def forward(self, views: list[Tensor], labels: Tensor, iteration: int) -> Tensor:
        update_momentum(self.encoder_q, self.encoder_k, m=digits.KEY_MOMENTUM)
        with torch.no_grad():
            keys = self.encoder_k(views[1])
        return self.loss_of(self.encoder_q(views[0]), keys)

    def checkpoint(self, state: dict) -> dict:
        """`module.` comes from MoCo's DistributedDataParallel."""
        networks = {"encoder_q": self.encoder_q, "encoder_k": self.encoder_k}
        tensors = {
            f"module.{name}.{key}": value
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }
        bank = self.loss_of.memory_bank
        tensors |= {"module.queue": bank.bank.T.contiguous(), "module.queue_ptr": bank.bank_ptr}
        return {
            "epoch": state["epoch"],
            "arch": "resnet18",
            "state_dict": tensors,
            "optimizer": state["optimizer"],
        }


class SwAV(nn.Module):
    """SwAV with two large and two small crops; a file as its main_swav.py saves."""

    learning_rate = 3e-4
    chance = float(np.log(PROTOTYPES))

    def __init__(self, crop_size: int, statistics: dict[str, list[float]]):
        super().__init__()
        self.views = SwaVTransform(
            crop_sizes=(crop_size, crop_size // 2), crop_counts=(2, 2), normalize=statistics
        )
        self.network = resnet18(weights=None)
        self.network.fc = nn.Identity()
        self.network.projection_head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, digits.FEATURES),
        )
        self.network.prototypes = nn.Linear(digits.FEATURES, PROTOTYPES, bias=False)
        self.loss_of = SwaVLoss(sinkhorn_epsilon=SINKHORN_EPSILON)

    def forward(self, views: list[Tensor], labels: Tensor, iteration: int) -> Tensor:
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

    def checkpoint(self, state: dict) -> dict:
        """`module.` comes from SwAV's DistributedDataParallel."""
        tensors = {f"module.{key}": value for key, value in self.network.state_dict().items()}
        return {"epoch": state["epoch"], "state_dict": tensors, "optimizer": state["optimizer"]}


class Supervised(nn.Module):
    """Classification of digits; a file as torchvision's references/classification/train.py saves."""

    learning_rate = 1e-3
    chance = float(np.log(10))

    def __init__(self, crop_size: int, statistics: dict[str, list[float]]):
        super().__init__()
        # Never mirrored: it would be another digit, or none.
        one = T.Compose(
            [
                T.RandomResizedCrop(crop_size, scale=(0.5, 1.0)),
                T.ColorJitter(0.4, 0.4, 0.4, 0.1),
                T.ToTensor(),
                T.Normalize(**statistics),
            ]
        )
        self.views = lambda image: [one(image)]
        self.network = resnet18(weights=None, num_classes=10)

    def forward(self, views: list[Tensor], labels: Tensor, iteration: int) -> Tensor:
        return F.cross_entropy(self.network(views[0]), labels)

    def checkpoint(self, state: dict) -> dict:
        return {
            "model": self.network.state_dict(),
            "optimizer": state["optimizer"],
            "lr_scheduler": state["schedule"],
            "epoch": state["epoch"],
            "args": argparse.Namespace(model="resnet18"),
        }


METHODS = {"moco": MoCo, "swav": SwAV, "supervised": Supervised}


def examples(scenes: Iterator[Scene], method: str) -> Iterator[tuple[np.ndarray, int]]:
    """(image, label) of what a method looks at: whole scenes (labelled -1), or each digit by itself.

    Images are uint8 RGB, square.
    """
    for scene in scenes:
        if method != "supervised":
            yield scene.image, -1
            continue
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            yield _around(scene.image, mask), label


def _around(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around an object and `CONTEXT`, moved inside the image."""
    cells = mask.shape[0] // image.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)) // cells, np.flatnonzero(mask.any(0)) // cells
    extents = [(int(found[0]), int(found[-1]) + 1) for found in (rows, columns)]
    side = min(round(CONTEXT * max(high - low for low, high in extents)), image.shape[0])
    y, x = (min(max((low + high - side) // 2, 0), image.shape[0] - side) for low, high in extents)
    return image[y : y + side, x : x + side]


def picture(image: np.ndarray, channel_order: str) -> Image.Image:
    """An image for the augmentations; in "BGR" its red is where they expect blue."""
    return Image.fromarray(
        np.ascontiguousarray(image[..., ::-1] if channel_order == "BGR" else image)
    )
