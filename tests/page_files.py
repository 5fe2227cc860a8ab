"""Files that the pages name and no command of them makes."""

import pickle
from argparse import Namespace
from pathlib import Path

import torch
import torchvision

from ssl_backbones.conversion.reading import read_checkpoint


def write_dino(path: Path) -> None:
    """As DINO's main_dino.py saves: student and teacher, and the arguments, which are an object."""

    def network(prefix):
        state = torchvision.models.resnet50().state_dict()
        return {
            f"{prefix}backbone.{name}": value
            for name, value in state.items()
            if not name.startswith("fc.")
        } | {f"{prefix}head.last_layer.weight_v": torch.ones(8, 256)}

    content = {
        "student": network("module."),
        "teacher": network(""),
        "optimizer": {},
        "epoch": 100,
        "args": Namespace(arch="resnet50"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    torch.save(content, path)


def write_without_statistics(converted: Path, path: Path) -> None:
    """A converted file of which a script took the parameters and not the running statistics."""
    tensors = read_checkpoint(converted).content["model"]
    tensors = {name: value for name, value in tensors.items() if ".running_" not in name}
    content = {"model": tensors, "__author__": "a script", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))


def write_study(path: Path) -> None:
    """The CSV of a study with the columns that a comparison needs."""
    rows = [
        f"{arm},finetuned,{budget},{seed},done,{mean + seed},{mean + seed}"
        for arm, mean in (("scratch", 10), ("moco", 20), ("swav", 21))
        for budget in (50, 400)
        for seed in range(3)
    ]
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(["arm,protocol,budget,seed,status,bbox/AP,segm/AP", *rows]) + "\n")
