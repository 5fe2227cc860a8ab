"""A trained detector as its config builds it, and what it finds in images and videos."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.config import instantiate
from detectron2.structures import Instances
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..data.images import Mapper
from ..engine import preflight
from ..engine.checkpoints.checkpointer import StrictCheckpointer
from ..engine.provenance import check_weights
from ..errors import InputError
from ..modeling.norm import apply_norm, choose_norm
from .inputs import Item, Source, read
from .output import Results

logger = logging.getLogger(__name__)


class Detector:
    """Finds the instances of images that the config's own test mapper has prepared.

    Args:
        cfg: changed by the rules that training follows too: the device, and what stands for SyncBN.
        weights: a checkpoint of the whole model, by path or name; every tensor must come from it.
        averaged: take the averaged weights (`train.ema`) in the checkpoint instead.

    Raises:
        InputError: the weights are not this model's, or do not go with the config's channel order; the
            config does not say how images are prepared.
    """

    def __init__(self, cfg: DictConfig, weights: str, *, averaged: bool = False):
        mapper_cfg = OmegaConf.select(cfg, "dataloader.test.mapper")
        if mapper_cfg is None:
            raise InputError(
                "the config has no dataloader.test.mapper: nothing prepares the images"
            )
        _settle_device(cfg)
        cfg.train.init_checkpoint = weights
        preflight.check_channel_order(cfg)
        check_weights(cfg, eval_only=True)
        apply_norm(cfg.model, choose_norm(1, cfg.train.device))
        self.model = _load(cfg, averaged)
        self.mapper: Mapper = instantiate(mapper_cfg)

    @torch.no_grad()
    def __call__(self, images: Sequence[Mapping[str, Any]]) -> list[Instances]:
        """The instances of each image, on the CPU, in pixels of its "height" and "width".

        Images of unlike sizes are padded to the largest of them, which changes scores a little.

        Raises:
            InputError: the model finds no instances (but regions or proposals, for example).
        """
        outputs = self.model(list(images))
        if any("instances" not in output for output in outputs):
            raise InputError(
                "the model of this config gives no instances: give one that detects objects, such as "
                "configs/moco_1x.py"
            )
        return [output["instances"].to("cpu") for output in outputs]


def _settle_device(cfg: DictConfig) -> None:
    """Take the CPU where the config's GPU is not there: it finds the same."""
    if str(cfg.train.device).startswith("cuda") and not torch.cuda.is_available():
        logger.warning(
            f"There is no GPU for train.device={cfg.train.device}: the CPU takes its place"
        )
        cfg.train.device = "cpu"


def _load(cfg: DictConfig, averaged: bool) -> nn.Module:
    model = instantiate(cfg.model).to(cfg.train.device).eval()
    checkpointer = StrictCheckpointer(model, strict=cfg.train.strict_init)
    held = checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
    if averaged:
        if "ema" not in held:
            raise InputError(
                f"{cfg.train.init_checkpoint} holds no averaged weights: leave --ema out, or give a "
                "checkpoint of a run with train.ema.enabled=true"
            )
        model.load_state_dict(held["ema"]["model"])
    return model


class Summary(NamedTuple):
    """What came out of it.

    Attributes:
        images: read, frames of videos among them.
        detections: kept.
        highest_score: of all detections, kept or not; 0 if the model found nothing at all.
        faults: a line for each source that could not be read.
    """

    images: int
    detections: int
    highest_score: float
    faults: list[str]


def predict(
    detector: Detector,
    sources: Sequence[Source],
    results: Results,
    *,
    threshold: float,
    batch_size: int = 1,
    on_image: Callable[[], None] = lambda: None,
    on_fault: Callable[[str], None] = lambda fault: None,
) -> Summary:
    """Detect on every image and frame, and add what scores at least `threshold` to `results`.

    Args:
        batch_size: images that go through the model together.
        on_image: called after each image or frame.
        on_fault: called with one line for each source that cannot be read; the others go on.

    Raises:
        InputError: the model finds no instances, or a result cannot be written.
    """
    faults: list[str] = []

    def note(fault: str) -> None:
        faults.append(fault)
        on_fault(fault)

    highest = 0.0
    for batch in _batches(read(sources, detector.mapper, note), batch_size):
        found = detector([item.prepared for item in batch])
        for item, instances in zip(batch, found, strict=True):
            highest = max([highest, *instances.scores.tolist()])
            results.add(item, instances[instances.scores >= threshold])
            on_image()
    return Summary(len(results.images), len(results.detections), highest, faults)


def count_images(sources: Sequence[Source]) -> int:
    """About how many images and frames there are."""
    total = sum(not source.is_video for source in sources)
    videos = [source for source in sources if source.is_video]
    if videos:
        # OpenCV is imported where there is a video only.
        from .video import count_frames

        total += sum(count_frames(video.path) for video in videos)
    return total


def _batches(items: Iterator[Item], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch
