"""The digits' scenes as VOC and COCO have photographs: of several shapes, some objects cut by the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..digits import CELLS, Scene, make_scene

LEAST_LEFT = 0.1  # of a digit's strokes must be in the picture for it to be annotated


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
