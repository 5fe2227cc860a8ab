"""Files that the pages name and no command of them makes."""

import json
import pickle
import shutil
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


def write_dino_vit(path: Path) -> None:
    """As DINO publishes its ViTs: a state dict without a head. One block, of weights that look trained."""
    import timm

    torch.manual_seed(0)
    network = timm.models.vision_transformer.VisionTransformer(
        embed_dim=64, depth=1, num_heads=1, num_classes=0
    )
    state = network.state_dict()
    torch.save(
        {name: value + 0.1 * torch.randn(value.shape) for name, value in state.items()}, path
    )


def write_without_statistics(converted: Path, path: Path) -> None:
    """A converted file of which a script took the parameters and not the running statistics."""
    tensors = read_checkpoint(converted).content["model"]
    tensors = {name: value for name, value in tensors.items() if ".running_" not in name}
    content = {"model": tensors, "__author__": "a script", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))


def write_own_data(digits: Path, folder: Path) -> None:
    """The digits as a tool might export them: a JSON file for each split, in a form that is not COCO's own.

    `iscrowd` is missing everywhere, `area` is null in every third annotation, ids are text, and a byte order
    mark comes first.
    """
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for split, of_digits in (("train", "train"), ("val", "test")):
        content = json.loads((digits / "annotations" / f"{of_digits}.json").read_text())
        for category in content["categories"]:
            category["name"] = names[int(category["name"])]
        for index, annotation in enumerate(content["annotations"]):
            del annotation["iscrowd"]
            annotation["id"] = str(annotation["id"])
            annotation["area"] = None if index % 3 == 0 else annotation["area"]
        shutil.copytree(digits / of_digits, folder / split)
        (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8-sig")
