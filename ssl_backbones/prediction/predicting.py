"""From images and videos to detections: the loop of tools/predict.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from .detector import Detector
from .inputs import Source
from .items import Item, read
from .results import Results


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
    sources: Iterable[Source],
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
