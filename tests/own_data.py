"""Data of a user's own for the tests: the digits in another folder, as clean COCO files and in odd forms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from running import checkpoint, difference

SPLITS = {"train": "train", "test": "val"}
"""Those of the digits, and what they are called here."""


def own_data(digits: Path, root: Path, change=None) -> Path:
    """Write train.json and val.json beside their folders of images; `change` may change each content."""
    root.mkdir(parents=True)
    for split, name in SPLITS.items():
        shutil.copytree(digits / split, root / name)
        content = json.loads((digits / "annotations" / f"{split}.json").read_text())
        if change:
            change(content)
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def rewrite(path: Path, change) -> None:
    """Change the content of a file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def in_odd_forms(content: dict) -> None:
    """Another form of everything that may have one without another meaning."""
    for image in content["images"]:
        image |= {"id": str(image["id"]), "width": float(image["width"])}
        image["height"] = str(image["height"])
    for number, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = str(annotation["image_id"])
        annotation["category_id"] = float(annotation["category_id"])
        (polygon, *others) = annotation["segmentation"]
        if others:
            annotation["segmentation"] = [
                [[x, y] for x, y in zip(part[::2], part[1::2], strict=True)]
                for part in (polygon, *others)
            ]
        else:
            annotation["segmentation"] = polygon if number % 2 else [list(map(str, polygon))]
        if number % 3 == 0:
            del annotation["iscrowd"]
        else:
            annotation["iscrowd"] = [None, False, "0"][number % 3]
        annotation["bbox"] = [str(one) for one in annotation["bbox"]]
        annotation["area"] = str(annotation["area"])
    del content["annotations"][0]["id"]


def register(root: str) -> None:
    """What a user's config does in Python: the two splits as own_train and own_val."""
    from detectron2.data.datasets import register_coco_instances

    for name in SPLITS.values():
        register_coco_instances(f"own_{name}", {}, f"{root}/{name}.json", f"{root}/{name}")


def results(folder: Path):
    """Weights, metrics without the dataset's name, and detections of a run."""
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    del metrics["dataset"]
    found = (folder / "inference" / "coco_instances_results.json").read_bytes()
    return checkpoint(folder)["model"], metrics, found


def same(one, other) -> None:
    assert difference(one[0], other[0]) is None
    assert one[1:] == other[1:]
