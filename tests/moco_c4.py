"""MoCo's C4 detectors as its own code builds them: its yaml files' values over Detectron2's defaults."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import get_norm
from detectron2.modeling import build_model
from torch import nn

FILES = {
    "base": "Base-RCNN-C4-BN.yaml",
    "coco": "coco_R_50_C4_2x.yaml",
    "coco_moco": "coco_R_50_C4_2x_moco.yaml",
    "voc": "pascal_voc_R_50_C4_24k.yaml",
    "voc_moco": "pascal_voc_R_50_C4_24k_moco.yaml",
}
"""MoCo's files in detection/configs by the names that fidelity.yaml files cite them by."""


@cache
def facts(name: str) -> dict[int, tuple[str, Any]]:
    """What a file of `FILES` says itself: (key, value) of each of its lines."""
    return {line: (key, value) for line, key, value in _content()[FILES[name]]["facts"]}


def effective_config(name: str) -> CfgNode:
    """The config of a file of `FILES`: Detectron2's defaults, its base's values, its own."""
    base = _content()[FILES[name]]["base"]
    names = {file: name for name, file in FILES.items()}
    cfg = effective_config(names[base]) if base else get_cfg()
    for key, value in facts(name).values():
        node = cfg
        *path, leaf = key.split(".")
        for part in path:
            node = node[part]
        node[leaf] = tuple(value) if isinstance(value, list) else value
    return cfg


def moco_config(dataset: str) -> CfgNode:
    """MoCo's config of its run on "coco" (2x) or "voc" (24k), on the CPU."""
    cfg = effective_config(f"{dataset}_moco")
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def build(cfg: CfgNode) -> nn.Module:
    """Detectron2's own C4 detector, and the norm that MoCo's `Res5ROIHeadsExtraNorm` puts after res5."""
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    model = build_model(cfg)
    res5 = model.roi_heads.res5
    res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, res5[-1].out_channels))
    return model


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("configs").joinpath("moco_c4.yaml").read_text())
