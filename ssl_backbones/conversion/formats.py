"""The formats that a backbone is written in, by the name that the command line knows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        suffix: that its name must have.
        content: what is in it and who reads it, in a few words.
    """

    name: str
    suffix: str
    content: str


FORMATS = {
    row.name: row
    for row in (
        Format("detectron2", ".pkl", "Detectron2's pickle, which every Detectron2 project loads"),
        Format(
            "detectron2-safetensors",
            ".safetensors",
            "the same without pickle, which this project's trainer loads",
        ),
        Format("torchvision", ".pth", "a state dict for torchvision's class, strictly, fc aside"),
        Format("safetensors", ".safetensors", "torchvision's names, provenance as metadata"),
        Format("mmdet", ".pth", "what MMDetection and MMPretrain load as a backbone"),
    )
}
