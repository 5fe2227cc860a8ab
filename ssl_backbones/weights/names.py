"""Published weights under short names, with the address and the hash that their authors give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class PublishedHash:
    """The hash that a file's authors publish: its algorithm, its first digits, and where."""

    algorithm: str
    prefix: str
    source: str


@dataclass(frozen=True)
class NamedWeights:
    """Published weights under a short name: `ssl://NAME`.

    Attributes:
        method: whose layout the file has, as the converter's `selfsup` says it.
        source: the page that publishes the address.
        published: None where the authors publish no hash.
    """

    name: str
    url: str
    method: str
    source: str
    published: PublishedHash | None = None


_MOCO_README = "https://github.com/facebookresearch/moco/blob/main/README.md"
_MOCO_FILES = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
_SWAV_README = "https://github.com/facebookresearch/swav/blob/main/README.md"
_TORCHVISION = "https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py"


def _moco(name: str, md5: str) -> NamedWeights:
    """A row of the README's table "Models", which gives the first eight digits of each MD5."""
    url = f"{_MOCO_FILES}/{name}/{name}_pretrain.pth.tar"
    return NamedWeights(name, url, "moco", _MOCO_README, PublishedHash("md5", md5, _MOCO_README))


NAMED_WEIGHTS: Mapping[str, NamedWeights] = MappingProxyType(
    {
        row.name: row
        for row in (
            _moco("moco_v1_200ep", "b251726a"),
            _moco("moco_v2_200ep", "59fd9945"),
            _moco("moco_v2_800ep", "a04e12f8"),
            NamedWeights(
                "swav_800ep",
                "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
                "swav",
                _SWAV_README,
            ),
            # ResNet50_Weights.IMAGENET1K_V1, the control of most papers. The end of its name is the
            # beginning of its sha256, by torch.hub's convention.
            NamedWeights(
                "supervised_imagenet",
                "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                "torchvision",
                _TORCHVISION,
                PublishedHash("sha256", "0676ba61", _TORCHVISION),
            ),
        )
    }
)
