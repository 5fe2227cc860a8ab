"""Runs an exported detector with torch and torchvision, or with onnxruntime; numpy and Pillow do the rest.

This file imports nothing of this project, so that it shows what a stranger needs: the comparison runs it as a
script, in a process in which neither Detectron2 nor this project can be imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

FACTS = "detector.json"
"""Under which a file keeps what is said of its detector: TorchScript as a file in it, others as metadata."""


class Found(NamedTuple):
    """Instances of an image.

    Attributes:
        boxes: (N, 4) of x0, y0, x1, y1 in the image's pixels.
        scores: (N,).
        classes: (N,), from 0.
        masks: (N, H, W) of truth values, or (0, 0, 0) of a detector of boxes alone.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray


def load(path: str) -> tuple[dict[str, Any], Callable[..., Found]]:
    """What a graph's file says of itself, and what runs it: of what `prepare` gives.

    Raises:
        KeyError, ValueError: it says nothing, or no JSON; a graph's own loader raises what it will.
    """
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        facts = json.loads(session.get_modelmeta().custom_metadata_map[FACTS])
        return facts, lambda *given: Found(*session.run(None, dict(zip(names, given, strict=True))))

    import torch
    import torchvision  # noqa: F401  operators of a detector: NMS and ROIAlign

    held = {FACTS: ""}
    network = torch.jit.load(path, map_location="cpu", _extra_files=held).eval()

    def run(*given: np.ndarray) -> Found:
        with torch.no_grad():
            return Found(*(one.numpy() for one in network(*map(torch.from_numpy, given))))

    return json.loads(held[FACTS]), run


def read(path: str) -> Image.Image:
    """An image, upright, in RGB."""
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def prepare(
    image: Image.Image, facts: dict[str, Any], times: float = 1.0, threshold: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (3, h, w), sizes (H, W, h, w) and least score as the network takes them.

    An image is resized as in testing, and padded where the network's size is fixed.

    Args:
        times: of the size that the rule gives, where it is not fixed.
        threshold: another least score than that of the run's test.
    """
    width, height = image.size
    if facts["fixed"]:
        scale = min(facts["fixed"][0] / height, facts["fixed"][1] / width)
        sides = [round(width * scale), round(height * scale)]
    else:
        sides = shape(width, height, int(facts["short"] * times), int(facts["long"] * times))
    small = image.resize(sides, Image.BILINEAR)
    inside = np.asarray(small)[:, :, :: -1 if facts["order"] == "BGR" else 1].transpose(2, 0, 1)
    # What is padded is the mean, which the network takes for nothing.
    mean = np.array(facts["mean"], np.float32)[:, None, None]
    pixels = np.full((3, *(facts["fixed"] or sides[::-1])), mean, np.float32)
    pixels[:, : small.height, : small.width] = inside
    least = facts["threshold"] if threshold is None else threshold
    return pixels, np.array([height, width, *sides[::-1]]), np.array(least, np.float32)


def shape(width: int, height: int, short: int, longest: int) -> list[int]:
    """Width and height by the size rule, which rounds once, after both of its steps."""
    scale = short / min(width, height)
    sides = [width * scale, height * scale]
    sides[width > height] = float(short)
    shrink = min(longest / max(sides), 1.0)
    return [int(side * shrink + 0.5) for side in sides]


def main(model: str, jobs: str, folder: str) -> None:
    """Run a list of images and write what is found in each to a file of its own."""
    for name in ("detectron2", "ssl_backbones"):
        sys.modules[name] = None  # type: ignore[assignment]
    facts, run = load(model)
    for number, (path, times, threshold) in enumerate(json.loads(Path(jobs).read_text())):
        found = run(*prepare(read(path), facts, times, threshold))
        np.savez_compressed(f"{folder}/{number}.npz", **found._asdict())
        print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
