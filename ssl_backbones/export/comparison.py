"""Whether an exported file finds what Detectron2 finds, and whether a mistake in it would show."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.data.transforms import ResizeScale
from detectron2.structures import ImageList
from omegaconf import DictConfig
from torch import Tensor, nn

from ..data.images import load
from ..errors import InputError
from ..evaluation.metrics import flatten
from ..progress import progress_bar
from . import elsewhere
from .elsewhere import Found
from .running import arrays_of, as_instances

LARGEST = {"instances": 0, "boxes": 1e-2, "scores": 1e-4, "masks": 1e-3}
"""Allowed of a right export: instances that belong to no other, pixels, scores, share of a mask's pixels."""

LARGEST_OF_PRECISION = 0.01
"""Of the test set's AP, in percent."""


class Job(NamedTuple):
    """An image to find the instances of.

    Attributes:
        times: of the size that the run's rule gives; 1 where the size is fixed.
        threshold: least score; None for that of the run's test.
    """

    path: str
    times: float = 1.0
    threshold: float | None = None


class Truth:
    """Detectron2 itself: a run's model, and its way to the input, of which the file's own knows nothing.

    Args:
        cfg: of the run.
        fixed: height and width that images are made to fit in and padded to; None where they take any size.
    """

    def __init__(self, cfg: DictConfig, model: nn.Module, fixed: Sequence[int] | None):
        self.model, self._mapper, self._fixed = model, cfg.dataloader.test.mapper, fixed

    def mapped(self, job: Job) -> dict[str, Any]:
        """An image as the run's mapper prepares it for its test."""
        mapper = self._mapper.copy()
        rule = mapper.augmentations[0]
        if self._fixed:
            sides = dict(zip(("target_height", "target_width"), self._fixed, strict=True))
            mapper.augmentations = [L(ResizeScale)(min_scale=1.0, max_scale=1.0, **sides)]
        else:
            rule.short_edge_length = int(rule.short_edge_length * job.times)
            rule.max_size = int(rule.max_size * job.times)
        return load(instantiate(mapper), {"file_name": job.path})

    @torch.no_grad()
    def ask(
        self, jobs: Sequence[Job], wrong: Callable[[Tensor], Tensor] = lambda pixels: pixels
    ) -> Iterator[Found]:
        """What it finds.

        Args:
            wrong: done to the pixels.
        """
        beside = [{"image": torch.zeros(3, *self._fixed)}] if self._fixed else []
        prepare, predictor = self.model.preprocess_image, self.model.roi_heads.box_predictor

        def prepared(batch: list[dict]) -> ImageList:
            images = prepare([*batch, *beside])  # Detectron2 pads to the largest of a batch
            return ImageList(images.tensor[:1], images.image_sizes[:1])

        for job in _counted(jobs):
            record = self.mapped(job)
            least = predictor.test_score_thresh if job.threshold is None else job.threshold
            with (
                mock.patch.object(predictor, "test_score_thresh", least),
                mock.patch.object(self.model, "preprocess_image", prepared),
            ):
                found = self.model([{**record, "image": wrong(record["image"])}])
            yield arrays_of(found[0]["instances"])


def ask_elsewhere(written: Path, jobs: Sequence[Job]) -> Iterator[Found]:
    """What a graph finds, in a process in which neither Detectron2 nor this project can be imported.

    Raises:
        InputError: it does not run there.
    """
    folder = written.parent
    listed = folder / "jobs.json"
    listed.write_text(json.dumps([(os.path.abspath(job.path), *job[1:]) for job in jobs]))
    words = [sys.executable, "-I", elsewhere.__file__, written, listed, folder]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, **piped) as process:
        try:
            for number in _counted(range(len(jobs))):
                why = "it was ended from outside"
                while (line := process.stdout.readline()) != f"{number}\n":
                    why = line.strip() if "Error" in line else why
                    if not line:
                        raise InputError(f"the exported file does not run elsewhere: {why}")
                with np.load(folder / f"{number}.npz") as file:
                    yield Found(**file)
                (folder / f"{number}.npz").unlink()
        finally:
            process.kill()


def _counted(items: Sequence[Any]) -> Iterator[Any]:
    with progress_bar(len(items)) as advance:
        for item in items:
            yield item
            advance()


def difference_of(theirs: Found, ours: Found) -> dict[str, float]:
    """The largest of each of `LARGEST`; of the number of instances alone where that is another.

    Equal scores may come in any order: an instance belongs to the nearest box of its class.
    """
    count = len(theirs.scores)
    if len(ours.scores) != count or count == 0:
        return {"instances": abs(len(ours.scores) - count)}
    off = np.abs(ours.boxes - theirs.boxes[:, None]).max(axis=2)
    off += np.abs(ours.scores - theirs.scores[:, None])
    off[ours.classes != theirs.classes[:, None]] = np.inf
    nearest = off.argmin(axis=1)
    found = {
        "instances": count - len(set(nearest[np.isfinite(off.min(axis=1))])),
        "boxes": np.abs(ours.boxes[nearest] - theirs.boxes).max(),
        "scores": np.abs(ours.scores[nearest] - theirs.scores).max(),
    }
    if theirs.masks.size:
        alike = ours.masks.shape == theirs.masks.shape
        found["masks"] = (
            (ours.masks[nearest] != theirs.masks).mean(axis=(1, 2)).max() if alike else np.inf
        )
    return {
        name: float(np.nan_to_num(value, nan=np.inf, posinf=np.inf))
        for name, value in found.items()
    }


def compare(
    expected: Sequence[Found], found: Iterator[Found], jobs: Sequence[Job]
) -> dict[str, float]:
    """The largest differences.

    Raises:
        InputError: one is more than is allowed.
    """
    largest: dict[str, tuple[float, str]] = {}
    for theirs, ours, job in zip(expected, found, jobs, strict=True):
        for name, value in difference_of(theirs, ours).items():
            largest[name] = max(largest.get(name, (0.0, "")), (value, job.path))
    for name, (value, path) in largest.items():
        if value > LARGEST[name]:
            raise InputError(
                f"the exported file finds something else than Detectron2: {name} differ by {value:.2g} in "
                f"{path}, and {LARGEST[name]:g} is allowed; nothing was written"
            )
    return {name: value for name, (value, _) in largest.items()}


def controls(truth: Truth, jobs: Sequence[Job], expected: Sequence[Found]) -> dict[str, int]:
    """In how many comparisons a mistake shows, of those that can show at all.

    Raises:
        InputError: one shows in none.
    """
    model, scores = truth.model, np.concatenate([one.scores for one in expected])
    others = [job._replace(threshold=float(np.median(scores))) for job in jobs]
    mistakes = {
        "channels in the other order": (jobs, lambda pixels: pixels.flip(0)),
        "no normalisation": (jobs, lambda pixels: pixels * model.pixel_std + model.pixel_mean),
        "another score threshold": (others, lambda pixels: pixels),
    }
    numbers = {}
    for name, (asked, wrong) in mistakes.items():
        inputs = (truth.mapped(job)["image"].float() for job in jobs)
        if asked is jobs and all(torch.equal(wrong(pixels), pixels) for pixels in inputs):
            continue
        pairs = map(difference_of, expected, truth.ask(asked, wrong))
        numbers[name] = sum(any(one[key] > LARGEST[key] for key in one) for one in pairs)
        if not numbers[name]:
            raise InputError(
                f"cannot be compared: {name} shows in none of the images; give others with --images"
            )
    return numbers


def average_precisions(
    cfg: DictConfig, records: Sequence[Mapping[str, Any]], both: Sequence[Iterator[Found]]
) -> dict[str, tuple[float, ...]]:
    """Of the test set, by the run's own evaluator: of what Detectron2 finds, and of what the file finds.

    Raises:
        InputError: the two are more than 0.01 percent apart.
    """
    metrics = []
    for found in both:
        evaluator = instantiate(cfg.dataloader.evaluator)
        evaluator.reset()
        for record, one in zip(records, found, strict=True):
            evaluator.process([record], [{"instances": as_instances(one, record)}])
        with redirect_stdout(io.StringIO()):  # COCO's tables
            metrics.append(flatten(evaluator.evaluate()))
    pairs = {
        key: (value, metrics[1][key])
        for key, value in metrics[0].items()
        if key in ("bbox/AP", "segm/AP")
    }
    for name, (theirs, ours) in pairs.items():
        if not abs(theirs - ours) <= LARGEST_OF_PRECISION:
            raise InputError(
                f"the exported file has {name} {ours:.3f}, and Detectron2 {theirs:.3f}; nothing was written"
            )
    return pairs
