"""Test images of a report: the best, the worst and random ones, drawn with truth and detections."""

from __future__ import annotations

import base64
import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..content import TASKS, ImageSource, Report, RunContent

if TYPE_CHECKING:
    import numpy as np

NOT_EVALUATED, NOT_ANALYSED = "not evaluated on this image", "its detections are not analysed"
KINDS = ("best", "worst", "random")
LONGEST_SIDE = 480  # pixels of a picture before the size of the page asks for less
SIZES = ((480, 82), (400, 76), (320, 70), (256, 62), (192, 55))
"""Longest sides in pixels, and JPEG qualities, from the best to what can just be made out."""


@dataclass(frozen=True)
class Group:
    """Why an image was chosen: it is among the best or worst of a run, or a random one of all."""

    kind: str
    run: int | None = None


@dataclass
class Picture:
    """One drawing of an image.

    Attributes:
        title: what it shows: "ground truth", or the name of a run.
        alt: the same in words, with what can be seen.
        pixels: uint8 RGB (H, W, 3).
        score: F1 of the run in the image, None where there is none.
        errors: TIDE's types that the run makes in the image.
        link: the same as a data URI, once the size of the page is known.
    """

    title: str
    alt: str
    pixels: np.ndarray
    score: float | None = None
    errors: tuple[str, ...] = ()
    link: str = ""


@dataclass
class Example:
    """An image with what is there and what each run found; `problem` stands in place of pictures.

    Attributes:
        absent: name of each run that has no picture, and why.
    """

    image_id: Any
    file_name: str
    groups: list[Group]
    classes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    pictures: list[Picture] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)
    problem: str = ""


def ranking_task(runs: Iterable[RunContent]) -> str:
    """The task by which images are ranked: the first that any run has; "" if none has one."""
    return next((task for task in TASKS if any(task in run.analyses for run in runs)), "")


def choose(report: Report, dataset: str, num: int) -> list[Example]:
    """For each run on `dataset` its `num` best and worst images, and `num` random ones of all.

    No image is both among the best and the worst of a run. The choice depends on nothing but the report
    and its seed.
    """
    runs = {i: run for i, run in enumerate(report.runs) if run.dataset == dataset}
    task = ranking_task(runs.values())
    outcomes = {
        i: {image.image_id: image for image in run.analyses[task].images}
        for i, run in runs.items()
        if task in run.analyses
    }
    groups = defaultdict(list)
    for i, images in outcomes.items():
        rated = [image for image in images.values() if image.score is not None]
        rated.sort(key=lambda image: (-image.score, -image.mean_iou, str(image.image_id)))
        for image in rated[:num]:
            groups[image.image_id].append(Group("best", i))
        for image in rated[num:][::-1][:num]:
            groups[image.image_id].append(Group("worst", i))
    known = sorted({image_id for images in outcomes.values() for image_id in images}, key=str)
    for image_id in random.Random(report.seed).sample(known, min(num, len(known))):
        groups[image_id].append(Group("random"))
    source = report.test_images.get(dataset)
    return [
        Example(
            image_id,
            Path(source.files[image_id]).name
            if source and image_id in source.files
            else str(image_id),
            why,
            classes=_union(
                images[image_id].classes for images in outcomes.values() if image_id in images
            ),
            errors=_union(
                images[image_id].errors for images in outcomes.values() if image_id in images
            ),
        )
        for image_id, why in groups.items()
    ]


def draw(report: Report, dataset: str, examples: Sequence[Example]) -> None:
    """Fill in the examples' pictures; an image that cannot be drawn gets a sentence instead."""
    source = report.test_images.get(dataset)
    runs = [run for run in report.runs if run.dataset == dataset]
    chosen = {example.image_id for example in examples}
    found = [_by_image(run.detections or (), chosen, report.min_score) for run in runs]
    task = ranking_task(runs)
    outcomes = [
        {image.image_id: image for image in run.analyses[task].images}
        if task in run.analyses
        else None
        for run in runs
    ]
    for example in examples:
        if source is None or example.image_id not in source.files:
            example.problem = f"where the image {example.image_id} lies is not known"
            continue
        try:
            image = _read(source.files[example.image_id])
            example.pictures = [_draw_truth(image, example, source)]
            for run, detections, of in zip(runs, found, outcomes, strict=True):
                outcome = of.get(example.image_id) if of else None
                if outcome is None:
                    example.absent.append((run.name, NOT_ANALYSED if of is None else NOT_EVALUATED))
                    continue
                picture = _draw_detections(
                    image, example, source, run, detections[example.image_id]
                )
                picture.score, picture.errors = outcome.score, outcome.errors
                example.pictures.append(picture)
        except Exception as error:  # a damaged file may raise anything, a PNG a SyntaxError
            example.pictures, example.absent = [], []
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            example.problem = f"{source.files[example.image_id]} cannot be drawn: {reason}"


def encode(pictures: Sequence[Picture], budget: int) -> int:
    """Give pictures links of at most `budget` characters together.

    Returns:
        Their longest side in pixels, the largest of `SIZES` that fits; 0 if none does, and no links.
    """
    for side, quality in SIZES:
        links = [_data_uri(picture.pixels, side, quality) for picture in pictures]
        if sum(map(len, links)) <= budget:
            for picture, link in zip(pictures, links, strict=True):
                picture.link = link
            return side
    return 0


def _data_uri(pixels: np.ndarray, side: int, quality: int) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _union(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def _by_image(
    detections: Iterable[Mapping[str, Any]], chosen: set, min_score: float
) -> Mapping[Any, list[Mapping[str, Any]]]:
    """What is shown of the chosen images, the surest last, so that it is drawn on top."""
    found = defaultdict(list)
    for detection in detections:
        if detection["image_id"] in chosen and detection["score"] >= min_score:
            found[detection["image_id"]].append(detection)
    for some in found.values():
        some.sort(key=lambda detection: detection["score"])
    return found


def _read(path: str) -> np.ndarray:
    """uint8 RGB, upright, as it is trained on."""
    from detectron2.data.detection_utils import read_image
    from PIL import Image

    from ...data.images import large_images

    with large_images():
        try:
            return read_image(path, "RGB")
        except (Image.DecompressionBombError, MemoryError) as error:
            raise ValueError(str(error) or "the memory that is free does not hold it") from error


def _draw_truth(image: np.ndarray, example: Example, source: ImageSource) -> Picture:
    annotations = source.annotations.get(example.image_id, ())
    names = [source.class_names.get(a["category_id"], "unknown") for a in annotations]
    labels = [
        f"{n} (crowd)" if a.get("iscrowd") else n for n, a in zip(names, annotations, strict=True)
    ]
    pixels = _draw_instances(image, annotations, labels, source)
    return Picture("ground truth", f"{example.file_name}, ground truth: {_counted(names)}", pixels)


def _draw_detections(
    image: np.ndarray,
    example: Example,
    source: ImageSource,
    run: RunContent,
    detections: Sequence[Mapping[str, Any]],
) -> Picture:
    names = [source.class_names.get(d["category_id"], "unknown") for d in detections]
    labels = [f"{n} {d['score']:.0%}" for n, d in zip(names, detections, strict=True)]
    pixels = _draw_instances(image, detections, labels, source)
    alt = f"{example.file_name}, found by {run.name}: {_counted(names)}"
    return Picture(run.name, alt, pixels)


def _counted(names: Sequence[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{count} × {name}" for name, count in sorted(counts.items())) or "nothing"


def _draw_instances(
    image: np.ndarray,
    instances: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    source: ImageSource,
) -> np.ndarray:
    """COCO's annotations or detections over the image, which is shrunk first: labels stay readable."""
    import numpy as np
    from PIL import Image

    from ...drawing.instances import corners, draw_instances

    height, width = image.shape[:2]
    scale = min(1, LONGEST_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(image).resize(size)) if scale < 1 else image
    numbers = {category: number for number, category in enumerate(source.class_names)}
    drawn = draw_instances(
        small,
        boxes=[[scale * side for side in corners(instance["bbox"])] for instance in instances],
        classes=[numbers.get(instance["category_id"], 0) for instance in instances],
        labels=labels,
        masks=[
            _mask(instance.get("segmentation"), (height, width), size) for instance in instances
        ],
    )
    picture = Image.fromarray(drawn)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return np.asarray(picture)


def _mask(segmentation: Any, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray | None:
    """Booleans of the size (width, height) that the image is drawn in."""
    import numpy as np
    from PIL import Image

    from ...drawing.instances import as_array

    if not segmentation:
        return None
    mask = as_array(segmentation, *shape)
    if mask.shape != shape:
        raise ValueError(
            f"its masks are of {mask.shape[1]} x {mask.shape[0]} pixels, the image of {shape[1]} x {shape[0]}"
        )
    return np.asarray(Image.fromarray(mask).resize(size))
