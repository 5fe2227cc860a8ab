"""What the conversion is compared with: load everything with torch, rename, pickle a dictionary.

    python projects/benchmarks/straightforward.py SRC DST

It checks and proves nothing, as the scripts that projects ship with their checkpoints.
"""

from __future__ import annotations

import pickle
import re
import sys

import torch

PREFIX = "module.encoder_q."


def detectron2_name(name: str) -> str:
    if not name.startswith("layer"):
        name = f"stem.{name}"
    name = re.sub(r"layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"bn(\d)", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def main(src: str, dst: str) -> None:
    state = torch.load(src, map_location="cpu", weights_only=True)["state_dict"]
    model = {
        detectron2_name(key.removeprefix(PREFIX)): tensor.numpy()
        for key, tensor in state.items()
        if key.startswith(PREFIX) and ".fc." not in key
    }
    with open(dst, "wb") as file:
        pickle.dump({"model": model, "__author__": "MoCo", "matching_heuristics": True}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
