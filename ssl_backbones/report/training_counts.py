"""Numbers of the images that a training loader feeds: how many, how large, how bright."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SMALL, LARGE = 32**2, 96**2  # pixels: COCO's bounds of small and of large objects
FINEST_CELL = 4  # pixels: of an FPN's finest feature map


@dataclass
class Counts:
    """Of images after augmentation, as the model gets them.

    Attributes:
        sizes: (height, width) of each image.
        means: of each image's channels, in the tensor's order.
        without_objects: images without any.
        boxes: (width, height) of each object.
        by_class: objects by class number.
        skipped: images that could not be read, whose place others took.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)
    without_objects: int = 0
    boxes: list[tuple[float, float]] = field(default_factory=list)
    by_class: Counter[int] = field(default_factory=Counter)
    skipped: int = 0

    def add(self, image: Mapping[str, Any]) -> None:
        """Count a mapped image: "image", a tensor (C, H, W), and perhaps "instances"."""
        self.sizes.append(tuple(image["image"].shape[1:]))
        self.means.append(image["image"].double().mean(dim=(1, 2)).numpy())
        instances = image.get("instances")
        if instances is None or len(instances) == 0:
            self.without_objects += 1
            return
        corners = instances.gt_boxes.tensor
        self.boxes += [tuple(size) for size in (corners[:, 2:] - corners[:, :2]).tolist()]
        self.by_class.update(instances.gt_classes.tolist())

    def rows(self, class_names: Sequence[str]) -> list[tuple[str, str]]:
        """The counts in words, a row each."""
        shorter, longer = ([side(size) for size in self.sizes] for side in (min, max))
        areas = np.array([width * height for width, height in self.boxes])
        narrow = sum(min(box) < FINEST_CELL for box in self.boxes)
        commonest = [
            f"{class_names[number] if number < len(class_names) else number} ({count})"
            for number, count in self.by_class.most_common(10)
        ]
        return [
            ("images", f"{len(self.sizes)}, of which {self.without_objects} without an object"),
            ("not readable", f"{self.skipped}, whose place others took"),
            ("shorter side", f"{min(shorter)} to {max(shorter)} pixels"),
            ("longer side", f"{min(longer)} to {max(longer)} pixels"),
            ("objects", f"{len(self.boxes)} of {len(self.by_class)} classes"),
            ("most frequent", ", ".join(commonest) or "none"),
            ("small boxes", f"{(areas < SMALL).sum()} below 32 x 32 pixels"),
            ("large boxes", f"{(areas > LARGE).sum()} above 96 x 96 pixels"),
            (
                "narrow boxes",
                f"{narrow} with a side below {FINEST_CELL} pixels, an FPN's finest cell",
            ),
        ]

    def channel_means(self) -> list[float]:
        """Over all images, in the tensors' order of channels."""
        return np.mean(self.means, axis=0).tolist()
