"""What Detectron2's augmentations lack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform


class OneOf(T.Augmentation):
    """One of several lists of augmentations, each as likely as the others, drawn anew for each image.

    Source: MMDetection, `AutoAugment` in mmdet/datasets/pipelines/auto_augment.py.
    """

    def __init__(self, choices: Sequence[Sequence[T.Augmentation]]):
        super().__init__()
        self.choices = [T.AugmentationList(choice) for choice in choices]

    def __call__(self, aug_input: T.AugInput) -> Transform:
        return self.choices[np.random.randint(len(self.choices))](aug_input)
