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
"""Under which TorchScript keeps what is said of a detector; ONNX and safetensors have it as metadata."""


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


def load(
    path: str,
) -> tuple[dict[str, Any], Callable[[np.ndarray, np.ndarray, float], Found] | None]:
    """What a file says, and what runs it: of pixels (3, h, w) in float32, sizes (H, W, h, w), least score.

    Of weights, which are no detector without Detectron2, None runs them.

    Raises:
        ValueError: it is no exported detector; a graph's own loader raises what it will.
    """
    run = None
    if path.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map.get(FACTS)
        names = [one.name for one in session.get_inputs()]

        def run(pixels: np.ndarray, sizes: np.ndarray, threshold: float) -> Found:
            given = dict(zip(names, (pixels, sizes, least(threshold)), strict=True))
            return Found(*session.run(None, given))

    elif path.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(FACTS)
    else:
        import torch
        import torchvision  # noqa: F401  operators of a detector: NMS and ROIAlign

        held = {FACTS: ""}
        network = torch.jit.load(path, map_location="cpu", _extra_files=held).eval()
        text = held[FACTS]

        def run(pixels: np.ndarray, sizes: np.ndarray, threshold: float) -> Found:
            given = map(torch.from_numpy, (pixels, sizes, least(threshold)))
            with torch.no_grad():
                return Found(*(one.numpy() for one in network(*given)))

    if not text:
        raise ValueError(f"{path} is no exported detector: it says nothing of itself")
    return json.loads(text), run


def least(score: float) -> np.ndarray:
    """A threshold as the graphs take it."""
    return np.array(score, dtype=np.float32)


def read(path: str) -> Image.Image:
    """An image, upright, in RGB."""
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def prepare(image: Image.Image, facts: dict[str, Any], times: float = 1.0) -> tuple:
    """Pixels and sizes as the network takes them: resized as in testing, and padded where its size is fixed.

    Args:
        times: of the size that the rule gives, where it is not fixed.
    """
    width, height = image.size
    if facts["fixed"]:
        scale = min(facts["fixed"][0] / height, facts["fixed"][1] / width)
        sides = [round(width * scale), round(height * scale)]
    else:
        sides = shape(width, height, int(facts["short"] * times), int(facts["long"] * times))
    small = image.resize(sides, Image.BILINEAR)
    pixels = np.asarray(small)[:, :, :: -1 if facts["order"] == "BGR" else 1].transpose(2, 0, 1)
    sizes = np.array([height, width, small.height, small.width])
    if facts["fixed"]:
        # What is padded is the mean, which the network takes for nothing.
        whole = np.empty((3, *facts["fixed"]), np.float32)
        whole[:] = np.array(facts["mean"], np.float32)[:, None, None]
        whole[:, : small.height, : small.width] = pixels
        return whole, sizes
    return np.ascontiguousarray(pixels, dtype=np.float32), sizes


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
    assert run is not None
    for number, (path, times, threshold) in enumerate(json.loads(Path(jobs).read_text())):
        found = run(*prepare(read(path), facts, times), threshold)
        masks, shape = np.packbits(found.masks.astype(bool)), np.array(found.masks.shape)
        parts = found._replace(masks=masks)._asdict()
        np.savez_compressed(f"{folder}/{number}.npz", shape=shape, **parts)
        print(number, flush=True)


def unpacked(path: str | Path) -> Found:
    """What `main` wrote of an image."""
    with np.load(path) as file:
        shape = file["shape"]
        found = Found(*(file[name] for name in Found._fields))
    masks = np.unpackbits(found.masks, count=int(np.prod(shape))).astype(bool)
    return found._replace(masks=masks.reshape(shape))


if __name__ == "__main__":
    main(*sys.argv[1:])
