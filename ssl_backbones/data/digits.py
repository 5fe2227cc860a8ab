"""The embedded dataset: real handwritten digits written over real photographs, in COCO's format.

Both come with scikit-learn: 1,797 digits of 8x8 cells (E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI repository, 1998) and the photographs china.jpg and flower.jpg. They are split into
training and test before anything is made of them, so that no stroke and no pixel of a photograph is shared.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from ..files import write_folder
from .polygons import mask_to_polygons

SPLITS = ("train", "test")
DIGITS = {"train": range(1297), "test": range(1297, 1797)}
"""Indexes into `sklearn.datasets.load_digits`: its order, which keeps a writer's digits together."""

PHOTOS = ("china", "flower")
REGIONS = {"train": (0, 0, 432, 427), "test": (432, 0, 208, 427)}
"""x, y, width, height in each photograph. 432 is a multiple of the 16 pixels that a JPEG block with
halved chroma spans, so that the photographs' own compression does not reach across the split either."""

CELLS = 8  # mask cells in a pixel, along each axis: outlines are good to a sixteenth of a pixel
INK_LEVEL = 0.45  # of the digits' full scale: where the upsampled strokes end
MOST_HIDDEN = 0.25  # of a digit's strokes may be covered by the digits written later
FORMAT_VERSION = 1  # of the scenes: raise it when the same seed gives other scenes


@dataclass(frozen=True)
class Scene:
    """A picture with its digits.

    `image` is uint8 RGB (size, size, 3). For each digit, in the order of writing: `digits` holds its index
    into scikit-learn's set, `labels` its class 0..9, `masks` its visible strokes as booleans (size * CELLS,
    size * CELLS). The background is `region` (x, y, width, height) of `photo`, perhaps mirrored.
    """

    image: np.ndarray
    digits: list[int]
    labels: list[int]
    masks: list[np.ndarray]
    photo: str
    region: tuple[int, int, int, int]


def make_scene(split: str, *, size: int, seed: tuple[int, ...]) -> Scene:
    """Write 2 to 4 digits, a quarter to a half of `size` high, over a crop of a photograph.

    The scene depends on nothing but `split`, `size` and `seed`.

    Raises:
        InputError: `size` is not within 32 and the width of the test regions.
    """
    _check_size(size)
    rng = np.random.default_rng(seed)
    photo, region, image = _background(rng, split, size)
    digits, labels, strokes = _place_digits(rng, split, size)
    masks = []
    for index, stroke in enumerate(strokes):
        image = _write_in_ink(rng, image, stroke)
        later = strokes[index + 1 :]
        masks.append(stroke & ~np.logical_or.reduce(later) if later else stroke)
    return Scene(np.rint(image).astype(np.uint8), digits, labels, masks, photo, region)


def pretraining_scenes(num: int, *, size: int, seed: int) -> Iterator[Scene]:
    """Yield scenes to pretrain on, without their labels: from the training digits and regions only."""
    for index in range(num):
        # write_digits numbers its splits 0 and 1: with the same seed these are other scenes.
        yield make_scene("train", size=size, seed=(seed, 2, index))


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


def _check_size(size: int) -> None:
    largest = REGIONS["test"][2]
    if not 32 <= size <= largest:
        raise InputError(f"a scene of {size} pixels: give a size from 32 to {largest} pixels")


def check_arguments(info: dict) -> None:
    """Refuse what no dataset can be made with: `num_train`, `num_test`, `size` and `seed`.

    Raises:
        InputError: naming the first that is wrong.
    """
    _check_size(info["size"])
    for name in ("num_train", "num_test"):
        if not 1 <= info[name] < 10**6:
            raise InputError(f"{name} is {info[name]}: give a number from 1 to 999999")
    if info["seed"] < 0:
        raise InputError(f"seed is {info['seed']}: give a number from 0")


@functools.cache
def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Strokes as float32 (1797, 8, 8) in 0..1, and classes (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target


@functools.cache
def _load_photo(name: str) -> np.ndarray:
    """A photograph, uint8 RGB (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg")


def _background(
    rng: np.random.Generator, split: str, size: int
) -> tuple[str, tuple[int, int, int, int], np.ndarray]:
    """Cut a square out of the split's region of a photograph: its name, the square, float32 RGB."""
    photo = PHOTOS[rng.integers(len(PHOTOS))]
    left, top, width, height = REGIONS[split]
    side = int(rng.integers(size, min(2 * size, width, height) + 1))
    x = left + int(rng.integers(width - side + 1))
    y = top + int(rng.integers(height - side + 1))
    crop = cv2.resize(
        _load_photo(photo)[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA
    )
    if rng.integers(2):
        crop = crop[:, ::-1]
    return photo, (x, y, side, side), crop.astype(np.float32)


def _place_digits(
    rng: np.random.Generator, split: str, size: int
) -> tuple[list[int], list[int], list[np.ndarray]]:
    """Draw digits and places: indexes, classes and whole strokes, boolean (size * CELLS,) * 2 each."""
    _, classes = _load_digits()
    digits: list[int] = []
    strokes: list[np.ndarray] = []
    for _ in range(rng.integers(2, 5)):
        digit = int(rng.choice(DIGITS[split]))
        glyph = _glyph(digit, rng.uniform(size / 4, size / 2))
        for _ in range(20):
            stroke = _set_at_random(rng, glyph, size * CELLS)
            if not _hides_too_much(stroke, strokes):
                digits.append(digit)
                strokes.append(stroke)
                break
    return digits, [int(classes[digit]) for digit in digits], strokes


def _glyph(digit: int, height: float) -> np.ndarray:
    """A digit's strokes in mask cells, cropped to what is inked; `height` in pixels is the 8 rows'."""
    image = np.pad(_load_digits()[0][digit], 1)  # so that strokes on the rim close smoothly
    side = round(height * CELLS * image.shape[0] / 8)
    inked = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) > INK_LEVEL
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return inked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _set_at_random(rng: np.random.Generator, glyph: np.ndarray, side: int) -> np.ndarray:
    """A canvas (side, side) with the whole glyph somewhere on it."""
    canvas = np.zeros((side, side), dtype=bool)
    y = rng.integers(side - glyph.shape[0] + 1)
    x = rng.integers(side - glyph.shape[1] + 1)
    canvas[y : y + glyph.shape[0], x : x + glyph.shape[1]] = glyph
    return canvas


def _hides_too_much(stroke: np.ndarray, earlier: list[np.ndarray]) -> bool:
    """Whether one more stroke leaves less than enough of any digit written before it."""
    for index, below in enumerate(earlier):
        covering = np.logical_or.reduce([stroke, *earlier[index + 1 :]])
        if np.count_nonzero(below & covering) > MOST_HIDDEN * np.count_nonzero(below):
            return True
    return False


def _write_in_ink(rng: np.random.Generator, image: np.ndarray, stroke: np.ndarray) -> np.ndarray:
    """Blend a stroke over float32 RGB (size, size, 3), in a warm ink that stands out from what it covers.

    Red exceeds green and green exceeds blue in every ink: with swapped channels the same strokes are blue,
    so a network that takes one order for the other sees inks that it has never seen.
    """
    shades = cv2.resize(
        stroke.view(np.uint8) * 255, image.shape[1::-1], interpolation=cv2.INTER_AREA
    )
    alpha = shades[..., None].astype(np.float32) / 255
    covered = (image * alpha).sum((0, 1)) / alpha.sum()
    brightness = rng.uniform(40, 255, size=(8, 1))
    green = rng.uniform(0.1, 0.9, size=(8, 1))
    blue = green * rng.uniform(0, 0.6, size=(8, 1))
    inks = brightness * np.concatenate([np.ones_like(green), green, blue], axis=1)
    ink = inks[np.abs(inks - covered).sum(1).argmax()].astype(np.float32)
    return image + alpha * (ink - image)


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


def coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict]:
    """COCO's annotations: polygons, their area as COCO rasterises them, and the box around them."""
    from pycocotools import mask as coco_mask

    annotations = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        polygons = mask_to_polygons(mask, CELLS)
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
        low, high = points.min(0), points.max(0)
        raster = coco_mask.merge(coco_mask.frPyObjects(polygons, *scene.image.shape[:2]))
        annotations.append(
            {
                "id": first_id + len(annotations),
                "image_id": image_id,
                "category_id": label + 1,  # COCO counts categories from 1
                "segmentation": polygons,
                "area": float(coco_mask.area(raster)),
                "bbox": np.round([*low, *(high - low)], 3).tolist(),
                "iscrowd": 0,
            }
        )
    return annotations


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
