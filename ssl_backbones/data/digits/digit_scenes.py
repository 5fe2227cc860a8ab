"""The embedded pictures: real handwritten digits written over real photographs.

Both come with scikit-learn: 1,797 digits of 8x8 cells (E. Alpaydin and C. Kaynak, Optical Recognition of
Handwritten Digits, UCI repository, 1998) and the photographs china.jpg and flower.jpg. They are split into
training and test before anything is made of them, so that no stroke and no pixel of a photograph is shared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ...errors import InputError

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
LEAST_LEFT = 0.1  # of a digit's strokes must be in the picture for it to be annotated


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
    check_size(size)
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


def check_size(size: int) -> None:
    """Refuse a scene that is too small for digits, or larger than the photographs' regions.

    Raises:
        InputError: naming the sizes there are.
    """
    largest = REGIONS["test"][2]
    if not 32 <= size <= largest:
        raise InputError(f"a scene of {size} pixels: give a size from 32 to {largest} pixels")


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


@dataclass(frozen=True)
class Photograph:
    """A scene, and for each of its digits whether the edge of the picture cuts it."""

    scene: Scene
    cut: list[bool]

    @property
    def height(self) -> int:
        return self.scene.image.shape[0]

    @property
    def width(self) -> int:
        return self.scene.image.shape[1]


def photographs(
    split: str, num: int, *, size: int, seed: tuple[int, int], on_scene: Callable[[], None]
) -> Iterator[Photograph]:
    """Yield square, landscape and portrait pictures in turn, whose longer side is `size`.

    Each depends on `seed` and its place alone.

    Raises:
        InputError: as `make_scene`.
    """
    for index in range(num):
        scene = make_scene(split, size=size, seed=(*seed, index))
        short = size * 3 // 4
        height, width = ((size, size), (short, size), (size, short))[index % 3]
        yield crop(scene, height, width)
        on_scene()


def crop(scene: Scene, height: int, width: int) -> Photograph:
    """Keep the middle of a scene, in pixels, and the digits of which enough is left there."""
    top, left = (scene.image.shape[0] - height) // 2, (scene.image.shape[1] - width) // 2
    region = np.s_[top : top + height, left : left + width]
    fine = np.s_[top * CELLS : (top + height) * CELLS, left * CELLS : (left + width) * CELLS]
    kept = [
        (digit, label, mask[fine], np.count_nonzero(mask[fine]) < np.count_nonzero(mask))
        for digit, label, mask in zip(scene.digits, scene.labels, scene.masks, strict=True)
        if np.count_nonzero(mask[fine]) >= LEAST_LEFT * np.count_nonzero(mask)
    ]
    digits, labels, masks, cut = ([one[place] for one in kept] for place in range(4))
    image = np.ascontiguousarray(scene.image[region])
    return Photograph(Scene(image, digits, labels, masks, scene.photo, scene.region), cut)


def pixel_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels around a mask: left, top, right, bottom, the last two outside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    right, bottom = columns[-1] // CELLS + 1, rows[-1] // CELLS + 1
    return int(columns[0] // CELLS), int(rows[0] // CELLS), int(right), int(bottom)


TOLERANCE = 0.75  # cells of the mask by which a polygon may cut a corner


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


def mask_to_polygons(mask: np.ndarray, scale: int = 1) -> list[list[float]]:
    """Outline a mask by polygons whose rasterisation is the mask again.

    COCO's polygons know no holes: their union is the object. A hole is therefore joined to its outline by
    a bridge of no width, walked once each way, which the even-odd rule of COCO's rasteriser cancels.

    Args:
        mask: boolean (H, W). Taken finer than the image, it keeps the outline within a fraction of a pixel
            of the true one.
        scale: cells of the mask in a pixel of the image, along each axis.

    Returns:
        One flat list [x0, y0, x1, y1, ...] for each connected part, in pixels of the image, whose pixel
        (0, 0) covers [0, 1) x [0, 1).
    """
    # findContours walks through cells' centres, half a cell inside the edge. Grown by one cell to the right
    # and downwards, a mask has its centres where the corners of the original's outermost cells were.
    grown = np.pad(mask.astype(np.uint8), ((0, 1), (0, 1)))
    grown = cv2.dilate(grown, np.ones((2, 2), np.uint8), anchor=(1, 1))
    contours, hierarchy = cv2.findContours(grown, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for index, contour in enumerate(contours):
        is_hole = hierarchy[0, index, 3] >= 0
        if is_hole:
            continue
        outline = _simplify(contour)
        hole = hierarchy[0, index, 2]
        while hole >= 0:
            outline = _bridge(outline, _simplify(contours[hole]))
            hole = hierarchy[0, hole, 0]
        polygons.append(np.round(outline / scale, 3).ravel().tolist())
    return polygons


def _simplify(contour: np.ndarray) -> np.ndarray:
    """A contour's corners (N, 2); all its points where fewer than three corners would remain."""
    corners = cv2.approxPolyDP(contour, TOLERANCE, closed=True)
    return (corners if len(corners) >= 3 else contour)[:, 0]


def _bridge(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole (M, 2) to an outline (N, 2) between their nearest points: (N + M + 2, 2)."""
    distance = np.square(outline[:, None] - hole[None]).sum(-1)
    start, entry = np.unravel_index(distance.argmin(), distance.shape)
    walk_round_hole = np.concatenate([hole[entry:], hole[: entry + 1]])
    return np.concatenate([outline[: start + 1], walk_round_hole, outline[start:]])
