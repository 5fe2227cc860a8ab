"""The embedded dataset: the digits' scenes, in COCO's format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from ...errors import InputError
from ...files import write_folder
from .digit_scenes import SPLITS, Scene, check_size, coco_annotations, make_scene

FORMAT_VERSION = 1  # of the scenes: raise it when the same seed gives other scenes


def write_digits(
    root: str | os.PathLike,
    *,
    num_train: int,
    num_test: int,
    size: int,
    seed: int,
    on_scene: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Write the dataset into `root`: {train,test}/NNNNNN.jpg and annotations/{train,test}.json.

    The same arguments give the same bytes. Each image's entry in the JSON also holds where it comes from:
    `digits` (indexes into scikit-learn's set, in the order of the annotations), `photo` and `photo_region`.
    The folder appears whole or not at all, and takes the place of a digits dataset that was there before.

    Args:
        on_scene: called after each scene, for a progress bar.

    Returns:
        The number of annotated digits in each split.

    Raises:
        InputError: a bad size or number, a folder that cannot be written, or one that holds something else.
    """
    root = Path(root)
    info = {"num_train": num_train, "num_test": num_test, "size": size, "seed": seed}
    check_arguments(info)
    if root.exists() and not (root.is_dir() and (not any(root.iterdir()) or read_info(root))):
        raise InputError(f"{root} holds something else than a digits dataset: give another folder")
    return write_folder(
        root,
        lambda folder: {
            split: _write_split(folder, split, info[f"num_{split}"], info, on_scene)
            for split in SPLITS
        },
    )


def read_info(root: str | os.PathLike) -> dict | None:
    """Return the arguments that the digits dataset in `root` was made with, None if there is none."""
    try:
        content = json.loads((Path(root) / "annotations" / "test.json").read_text())
        return content["info"]["digits"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(*, num_train: int, num_test: int, size: int, seed: int) -> dict:
    """What `read_info` returns of a dataset that `write_digits` makes today with these arguments."""
    asked = {"num_train": num_train, "num_test": num_test, "size": size, "seed": seed}
    return {**asked, "version": FORMAT_VERSION}


def check_arguments(info: dict) -> None:
    """Refuse what no dataset can be made with: `num_train`, `num_test`, `size` and `seed`.

    Raises:
        InputError: naming the first that is wrong.
    """
    check_size(info["size"])
    for name in ("num_train", "num_test"):
        if not 1 <= info[name] < 10**6:
            raise InputError(f"{name} is {info[name]}: give a number from 1 to 999999")
    if info["seed"] < 0:
        raise InputError(f"seed is {info['seed']}: give a number from 0")


def _write_split(root: Path, split: str, num: int, info: dict, on_scene: Callable[[], None]) -> int:
    """Write one split's pictures, then its JSON; return how many digits are annotated."""
    from PIL import Image

    folder = root / split
    folder.mkdir(parents=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in range(num):
        scene = make_scene(
            split, size=info["size"], seed=(info["seed"], SPLITS.index(split), index)
        )
        name = f"{index + 1:06d}.jpg"
        # Colour at full resolution: a stroke is only a few pixels wide.
        Image.fromarray(scene.image).save(folder / name, quality=95, subsampling=0)
        images.append(_image_entry(scene, index + 1, name))
        annotations += coco_annotations(scene, index + 1, len(annotations) + 1)
        on_scene()
    _write_json(root / "annotations" / f"{split}.json", info, images, annotations)
    return len(annotations)


def _image_entry(scene: Scene, image_id: int, name: str) -> dict:
    height, width = scene.image.shape[:2]
    return {
        "id": image_id,
        "file_name": name,
        "height": height,
        "width": width,
        "digits": scene.digits,
        "photo": scene.photo,
        "photo_region": list(scene.region),
    }


def _write_json(path: Path, info: dict, images: list[dict], annotations: list[dict]) -> None:
    content = {
        "info": {
            "description": "Handwritten digits over photographs, both from scikit-learn",
            "digits": describe(**info),
        },
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
