"""The protocols as data: config, metrics, what is published of them, and how long they take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..errors import InputError

PROCESSES = 8
"""GPUs of the published runs, of two images each: losses are normalised by process."""

FOLDS = 5
"""Of a low-shot protocol; projects/low_shot/lists.py makes them."""

BOX = ("bbox/AP", "bbox/AP50", "bbox/AP75")
BOX_AND_MASK = ("bbox/AP", "segm/AP")

_ZOO = "Detectron2's MODEL_ZOO.md"
_MOCO = "MoCo, detection/README.md (commit 7397dfe), means of five runs"
_PIXPRO = "PixPro, README.md (commit 6689c38)"
_MMDETECTION = "MMDetection, configs/selfsup_pretrain/README.md (commit 236a4f9)"

_BOX_HEAD = (
    "the source does not state its box head; the files of InfoMin's authors (PyContrast, "
    "R_50_FPN_1x.yaml, commit 48dbf2f) have four convolutions with SyncBN and one fully connected layer "
    "where this protocol has two fully connected layers"
)


def _epochs(number: int, theirs: int, ours: int) -> str:
    return f"trained for {number} epochs, {theirs:,} iterations, where this protocol has {ours:,}"


_EPOCHS_1X, _EPOCHS_2X = _epochs(12, 87_960, 90_000), _epochs(24, 175_920, 180_000)


@dataclass(frozen=True)
class Published:
    """Numbers that somebody else published under a protocol, in percent.

    Attributes:
        differs: in what their protocol is not, or is not known to be, the same; "" where it is.
    """

    pretraining: str
    metrics: Mapping[str, float]
    source: str
    differs: str = ""


@dataclass(frozen=True)
class Protocol:
    """A way of judging a backbone.

    Attributes:
        config: path below the checkout.
        metrics: those that are reported; () for the AP of every task that the run evaluates.
        iterations: of a run; None where only the config knows.
        seconds: of an iteration, on 8 V100 GPUs, of the same detector with frozen batch norm; None where
            nobody published them.
        timing: whose measurement `seconds` is.
        folds: names of the datasets that its runs train on; () for one run on the config's.
        preparation: words of a Python command that makes what the runs need.
    """

    name: str
    title: str
    config: str
    metrics: tuple[str, ...] = ()
    iterations: int | None = None
    seconds: float | None = None
    timing: str = ""
    published: tuple[Published, ...] = ()
    folds: tuple[str, ...] = ()
    preparation: tuple[str, ...] = ()


def _box(pretraining: str, ap: float, ap50: float, ap75: float) -> Published:
    return Published(pretraining, dict(zip(BOX, (ap, ap50, ap75), strict=True)), _MOCO)


def _both(pretraining: str, box: float, mask: float, source: str, differs: str = "") -> Published:
    return Published(pretraining, {"bbox/AP": box, "segm/AP": mask}, source, differs)


def _low_shot(share: int) -> Protocol:
    return Protocol(
        f"low_shot_{share}",
        f"Mask R-CNN R50-FPN, {share} % of COCO's labels, mean of {FOLDS} folds",
        f"projects/low_shot/configs/low_shot_{share}.py",
        BOX_AND_MASK,
        90_000,
        0.261,
        f"{_ZOO}, Mask R-CNN R50-FPN 1x",
        folds=tuple(f"coco_low_shot_{share}_fold{fold}_train" for fold in range(FOLDS)),
        preparation=("projects/low_shot/lists.py",),
    )


_FPN_TIME = (0.261, f"{_ZOO}, Mask R-CNN R50-FPN 1x")
_C4_TIME = (0.584, f"{_ZOO}, Mask R-CNN R50-C4 1x")

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            Protocol(
                "voc_c4",
                "Faster R-CNN R50-C4, VOC trainval07+12 to test2007, 24k iterations",
                "projects/voc_c4/configs/moco_voc_c4_24k.py",
                BOX,
                24_000,
                0.537,
                f"{_ZOO}, Faster R-CNN R50-C4 on VOC",
                (
                    _box("ImageNet, supervised", 53.5, 81.3, 58.8),
                    _box("MoCo v1, 200 epochs", 55.9, 81.5, 62.6),
                    _box("MoCo v2, 200 epochs", 57.0, 82.4, 63.6),
                    _box("MoCo v2, 800 epochs", 57.4, 82.5, 64.0),
                ),
            ),
            Protocol(
                "coco_c4_1x",
                "Mask R-CNN R50-C4, COCO, 1x",
                "projects/coco_c4/configs/moco_c4_1x.py",
                BOX_AND_MASK,
                90_000,
                *_C4_TIME,
                (
                    _both("random weights", 26.4, 29.3, _PIXPRO),
                    _both("ImageNet, supervised", 38.2, 33.3, _PIXPRO),
                    _both("MoCo v1, 200 epochs", 38.5, 33.6, _PIXPRO),
                    _both("MoCo v2, 800 epochs", 39.5, 34.5, _PIXPRO),
                ),
            ),
            Protocol(
                "coco_c4_2x",
                "Mask R-CNN R50-C4, COCO, 2x",
                "projects/coco_c4/configs/moco_c4_2x.py",
                BOX_AND_MASK,
                180_000,
                *_C4_TIME,
            ),
            Protocol(
                "coco_fpn_1x",
                "Mask R-CNN R50-FPN normalised as in the MoCo paper, COCO, 1x",
                "projects/moco_fpn/configs/moco_paper_1x.py",
                BOX_AND_MASK,
                90_000,
                *_FPN_TIME,
                (
                    _both("random weights", 32.8, 29.9, _PIXPRO, _BOX_HEAD),
                    _both("ImageNet, supervised", 39.7, 35.9, _PIXPRO, _BOX_HEAD),
                    _both("MoCo v2, 800 epochs", 40.4, 36.4, _PIXPRO, _BOX_HEAD),
                    _both("InfoMin, 200 epochs", 40.6, 36.7, _PIXPRO, _BOX_HEAD),
                    _both(
                        "PixPro, 400 epochs, with instance branch", 41.4, 37.4, _PIXPRO, _BOX_HEAD
                    ),
                ),
            ),
            Protocol(
                "coco_fpn_2x",
                "Mask R-CNN R50-FPN normalised as in the MoCo paper, COCO, 2x",
                "projects/moco_fpn/configs/moco_paper_2x.py",
                BOX_AND_MASK,
                180_000,
                *_FPN_TIME,
            ),
            Protocol(
                "mmdet_1x",
                "Mask R-CNN R50-FPN as in MMDetection, COCO, 1x",
                "configs/moco_1x.py",
                BOX_AND_MASK,
                90_000,
                *_FPN_TIME,
                (
                    _both("MoCo v2, 800 epochs", 38.0, 34.3, _MMDETECTION, _EPOCHS_1X),
                    _both("SwAV, 800 epochs", 39.1, 35.7, _MMDETECTION, _EPOCHS_1X),
                ),
            ),
            Protocol(
                "mmdet_ms2x",
                "Mask R-CNN R50-FPN as in MMDetection, COCO, multi-scale 2x",
                "configs/moco_ms2x.py",
                BOX_AND_MASK,
                180_000,
                *_FPN_TIME,
                (
                    _both("MoCo v2, 800 epochs", 40.8, 36.8, _MMDETECTION, _EPOCHS_2X),
                    _both("SwAV, 800 epochs", 41.3, 37.3, _MMDETECTION, _EPOCHS_2X),
                ),
            ),
            Protocol(
                "frozen_1x",
                "Mask R-CNN R50-FPN on a frozen backbone, COCO, 1x",
                "projects/frozen/configs/moco_frozen_1x.py",
                BOX_AND_MASK,
                90_000,
                *_FPN_TIME,
            ),
            Protocol(
                "keypoints_2x",
                "Keypoint R-CNN R50-FPN, COCO, 2x",
                "projects/keypoints/configs/moco_keypoints_2x.py",
                ("bbox/AP", "keypoints/AP"),
                180_000,
                0.315,
                f"{_ZOO}, Keypoint R-CNN R50-FPN 1x",
            ),
            *map(_low_shot, (1, 2, 5, 10)),
        )
    }
)


_TAKEN = re.compile(
    rf"({'|'.join(PROTOCOLS)})(_fold\d+|_repeat\d+|_preparation)?|logs|conversion|backbone\.pkl|"
    r"(runs|evaluation)\.json|table\.(md|csv)|\.lock"
)
"""Names of runs and logs, and what else stands in the folder of an evaluation."""


def find(names: Iterable[str]) -> list[Protocol]:
    """Protocols by their names; the path of a LazyConfig stands for a protocol of its own.

    Raises:
        InputError: there is no such protocol, one is named twice, or a config is called as something else
            that an evaluation makes.
    """
    found: dict[str, Protocol] = {}
    for name in map(str.strip, names):
        if name in PROTOCOLS:
            protocol = PROTOCOLS[name]
        elif name.endswith(".py") and Path(name).is_file():
            protocol = _own(Path(name))
        else:
            raise InputError(
                f"no protocol is called {name!r}: give the path of a config, or {', '.join(PROTOCOLS)}"
            )
        if protocol.name in found:
            raise InputError(f"protocol {protocol.name} is named twice")
        found[protocol.name] = protocol
    return list(found.values())


def _own(config: Path) -> Protocol:
    if _TAKEN.fullmatch(config.stem):
        raise InputError(
            f"{config}: the run would be called {config.stem}, which an evaluation calls something else; "
            "rename the config"
        )
    return Protocol(config.stem, str(config), str(config.resolve()))
