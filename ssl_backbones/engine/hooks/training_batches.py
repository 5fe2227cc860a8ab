"""Pictures of the first batches: what the model really saw, when somebody asks later."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig

logger = logging.getLogger("detectron2")

NAME = "training_batch_{}.jpg"
_MOST_IMAGES = 16  # of a batch


class TrainingBatches(HookBase):
    """Draws the main process's batches of the first iterations into the run folder, with their annotations.

    Each tensor is shown as the model reads it, so that a wrong channel order shows. What cannot be drawn is
    told once; training goes on.

    Args:
        num_batches: as many iterations are drawn; 0 for none.
    """

    def __init__(self, cfg: DictConfig, num_batches: int):
        self._cfg, self._num_batches = cfg, num_batches

    def after_step(self) -> None:
        if self.trainer.iter >= self._num_batches or not comm.is_main_process():
            return
        path = os.path.join(self._cfg.train.output_dir, NAME.format(self.trainer.iter))
        try:
            self._draw(path)
        except Exception as error:
            # Whatever a batch of somebody's own loader holds, and whatever a picture of it runs into: the
            # picture is not worth the run.
            logger.warning(f"The training batches cannot be drawn: {type(error).__name__}: {error}")
            self._num_batches = 0

    def _draw(self, path: str) -> None:
        from ...drawing.instances import contact_sheet, save_picture, thumbnail
        from ...drawing.mapped_images import class_names, draw_mapped_image, input_format

        images = list(itertools.islice(_images(self.trainer.batches), _MOST_IMAGES))
        if not images:
            return
        channels, names = input_format(self._cfg), class_names(self._cfg)
        tiles = [thumbnail(draw_mapped_image(image, channels, names)) for image in images]
        captions = [Path(str(image.get("file_name", ""))).name for image in images]
        save_picture(path, contact_sheet(tiles, captions))


def _images(batches: list):
    """The images of all micro-batches that are as Detectron2's mappers make them."""
    for batch in batches:
        for image in batch if isinstance(batch, list) else [batch]:
            if isinstance(image, Mapping) and "image" in image:
                yield image
