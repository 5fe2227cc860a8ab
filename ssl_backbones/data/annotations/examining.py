"""What is in a COCO file, what is odd about it, and what makes it unfit to train on or to test with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ...fast.annotations.coco_json import KNOWN_FAULTY
from .box_judging import Objects, judge_boxes
from .fields import batches
from .masks import run_length_fault

SMALL, LARGE = 32**2, 96**2
"""Square pixels of mask: below the first COCO calls an object small, from the second on large."""

_NAMED = 5
"""Of classes without objects."""


class Counts(NamedTuple):
    """How much there is of what in a file.

    Attributes:
        empty_images: those with no object, or crowds alone.
        objects: annotations of the file's images that are no crowds; what follows is of these.
        crowds: annotations of its images that are.
        with_masks: objects with a mask, which is of polygons or of run lengths.
        with_points: objects with a key point that is labelled.
        points: how many key points these have, each number once.
        by_class: objects by name of their category, in the order of the categories' ids.
        small, medium, large: by area, as COCO's evaluation divides them.
        smallest_image, largest_image: "width x height" of the images with the fewest and the most pixels; ""
            where there are none.
        mean_objects, max_objects: of an image.
    """

    images: int
    empty_images: int
    objects: int
    crowds: int
    with_masks: int
    polygons: int
    run_lengths: int
    with_points: int
    points: list[int]
    by_class: dict[str, int]
    small: int
    medium: int
    large: int
    smallest_image: str
    largest_image: str
    mean_objects: float
    max_objects: int


class Findings(NamedTuple):
    """The judgement of a file.

    Attributes:
        warnings: what is odd, a sentence each.
        problems: what no run should start with, each a line that begins with what the file is.
    """

    counts: Counts
    warnings: list[str]
    problems: list[str]


class _Columns(NamedTuple):
    """Annotations in the order of the file, an entry each."""

    ids: np.ndarray
    places: np.ndarray  # of their images, in the file's list
    categories: np.ndarray
    crowds: np.ndarray  # whether they are
    areas: np.ndarray
    boxes: np.ndarray  # (N, 4), x, y, width, height
    masks: np.ndarray  # in COCO's format; None where there is none
    masked: np.ndarray  # whether there is a mask
    of_runs: np.ndarray  # whether it is of run lengths
    points: np.ndarray  # key points, of one with any that is labelled; else 0

    def those(self, chosen: np.ndarray) -> _Columns:
        return _Columns(*(column[chosen] for column in self))


def examine(
    content: Mapping[str, Any], where: str, *, evaluated: bool = False, masks: bool | None = None
) -> Findings:
    """Judge the content of a COCO file in the form that `read_coco` gives it.

    Annotations of images that are not in the file are ignored, as Detectron2 does.

    Args:
        where: what the content is of, as the first words of a problem.
        evaluated: whether it is tested on; it then may have no annotations at all.
        masks: whether a model of masks is trained or tested on it, for which all objects have one or none
            has; None where that is not known.
    """
    images, categories = content["images"], content.get("categories", [])
    listed = content.get("annotations", [])
    known = _columns(listed, {image["id"]: place for place, image in enumerate(images)})
    unfit = _unfit_run_lengths(known, images)
    # Their boxes cannot be told.
    known.masks[list(unfit)] = None
    objects = known.those(~known.crowds)
    counts = Counts(
        images=len(images),
        objects=len(objects.ids),
        crowds=len(known.ids) - len(objects.ids),
        by_class=_by_class(objects, categories),
        with_masks=int(objects.masked.sum()),
        polygons=int((objects.masked & ~objects.of_runs).sum()),
        run_lengths=int(objects.of_runs.sum()),
        with_points=int((objects.points > 0).sum()),
        points=[number for number in np.unique(objects.points).tolist() if number],
        **_of_areas(objects.areas),
        **_of_images(images, objects.places),
    )
    problems = [
        *_repeated(images, categories, known, where),
        *_unknown_categories(known, categories, where),
        *_first_unfit(unfit, known, where),
    ]
    without_labels = evaluated and "annotations" not in content
    problems += _nothing(counts, categories, without_labels, where)

    def named(id_: int) -> str:
        """Of labels in other formats, where they stand."""
        own = next(one for one in listed if one["id"] == id_)
        return own.get("origin") or f"annotation {id_}"

    needed = known if evaluated and masks else objects
    maskless, warnings = _without_mask(needed, counts, masks, named)
    problems += [f"{where}: {sentence}" for sentence in maskless]
    sizes = np.array([(one["width"], one["height"]) for one in images], float).reshape(-1, 2)
    refused, odd = judge_boxes(
        Objects(objects.ids, objects.boxes, sizes[objects.places], objects.masks, named)
    )
    problems += [f"{where}: {sentence}" for sentence in refused]
    warnings += [*odd, *_oddities(content, counts, len(listed) - len(known.ids))]
    return Findings(counts, warnings, problems)


def _columns(listed: Sequence[Mapping[str, Any]], places: Mapping[int, int]) -> _Columns:
    """The annotations of images that have a place in the file."""
    columns = []
    for batch in [*batches(listed)] or [[]]:
        known = [one for one in batch if one["image_id"] in places]
        masks = [one.get("segmentation") or None for one in known]
        boxes = chain.from_iterable([one["bbox"] for one in known])
        columns.append(
            _Columns(
                ids=np.array([one["id"] for one in known], np.int64),
                places=np.array([places[one["image_id"]] for one in known], np.int64),
                categories=np.array([one["category_id"] for one in known], np.int64),
                crowds=np.array([one["iscrowd"] for one in known], bool),
                areas=np.array([one["area"] for one in known], float),
                boxes=np.fromiter(boxes, float, 4 * len(known)).reshape(-1, 4),
                masks=np.fromiter(masks, object, len(known)),
                masked=np.array([mask is not None for mask in masks], bool),
                of_runs=np.array([isinstance(mask, dict) for mask in masks], bool),
                points=np.array([_points(one.get("keypoints")) for one in known], np.int64),
            )
        )
    return _Columns(*map(np.concatenate, zip(*columns, strict=True)))


def _points(keypoints: Any) -> int:
    is_labelled = isinstance(keypoints, list) and any(keypoints[2::3])
    return len(keypoints) // 3 if is_labelled else 0


def _by_class(objects: _Columns, categories: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    by_id = Counter(objects.categories.tolist())
    in_order = sorted(categories, key=lambda category: category["id"])
    return {category["name"]: by_id[category["id"]] for category in in_order}


def _of_areas(areas: np.ndarray) -> dict[str, int]:
    below_small, below_medium = (int((areas < limit).sum()) for limit in (SMALL, LARGE))
    return {
        "small": below_small,
        "medium": below_medium - below_small,
        "large": len(areas) - below_medium,
    }


def _of_images(images: Sequence[Mapping[str, Any]], of_image: np.ndarray) -> dict[str, Any]:
    by_pixels = sorted(images, key=lambda image: image["width"] * image["height"])
    words = [f"{image['width']} x {image['height']}" for image in by_pixels[:1] + by_pixels[-1:]]
    per_image = np.bincount(of_image, minlength=len(images))
    return {
        "empty_images": int((per_image == 0).sum()),
        "smallest_image": words[0] if words else "",
        "largest_image": words[-1] if words else "",
        "mean_objects": len(of_image) / max(len(images), 1),
        "max_objects": int(per_image.max(initial=0)),
    }


def _repeated(
    images: Iterable[Mapping[str, Any]],
    categories: Iterable[Mapping[str, Any]],
    known: _Columns,
    where: str,
) -> list[str]:
    ids_of = {
        "image": [image["id"] for image in images],
        "category": [category["id"] for category in categories],
    }
    if KNOWN_FAULTY not in where:
        ids_of["annotation"] = known.ids.tolist()
    problems = []
    for kind, ids in ids_of.items():
        if len(set(ids)) < len(ids):
            twice = [id_ for id_, count in Counter(ids).items() if count > 1]
            more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
            problems.append(
                f"{where}: {kind} id {twice[0]}{more} stands there twice; give each its own"
            )
    return problems


def _unknown_categories(
    known: _Columns, categories: Iterable[Mapping[str, Any]], where: str
) -> list[str]:
    ids = np.array([category["id"] for category in categories], np.int64)
    wrong = np.flatnonzero(~np.isin(known.categories, ids))
    if not len(wrong):
        return []
    first, category = known.ids[wrong[0]], known.categories[wrong[0]]
    return [
        f"{where}: annotation {first} has category_id {category}, which is not among the categories "
        f"({len(wrong)} such annotations); correct it, or add the category"
    ]


def _unfit_run_lengths(known: _Columns, images: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Which annotations have run lengths that do not fit their image, and why."""
    unfit = {}
    for index in np.flatnonzero(known.of_runs):
        image = images[known.places[index]]
        fault = run_length_fault(known.masks[index], image["height"], image["width"])
        if fault is not None:
            unfit[index] = fault
    return unfit


def _first_unfit(unfit: Mapping[int, str], known: _Columns, where: str) -> list[str]:
    if not unfit:
        return []
    first, fault = next(iter(unfit.items()))
    more = f" ({len(unfit)} such annotations)" if len(unfit) > 1 else ""
    return [f"{where}: annotation {known.ids[first]} has a mask {fault}{more}; correct it"]


def _nothing(
    counts: Counts, categories: Sequence[Any], without_labels: bool, where: str
) -> list[str]:
    """Nothing to train on, or to find in a test."""
    if not counts.images:
        return [f"{where}: has no images; give a file that lists some"]
    if not categories:
        return [f"{where}: has no categories; give a file that lists the classes"]
    if without_labels:
        return []
    if not counts.objects and counts.crowds:
        return [
            f"{where}: all of its {counts.crowds} annotations are crowds (iscrowd is 1), which are neither "
            "trained on nor looked for in a test; set iscrowd to 0 where one object is meant"
        ]
    if not counts.objects:
        return [
            f"{where}: has no annotations of its {counts.images} images; give a file that has some"
        ]
    return []


def _without_mask(
    needed: _Columns, counts: Counts, masks: bool | None, named: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """Problem and warning that objects have no mask, of which at most one is there."""
    lacking = needed.ids[~needed.masked]
    # Boxes alone make a model of boxes.
    if masks is False or not len(lacking) or not counts.with_masks:
        return [], []
    sentence = (
        f"{len(lacking)} of {len(needed.ids)} objects have no mask (first: {named(lacking[0])}): give "
        "them one, or train boxes alone (model.roi_heads.mask_in_features=null)"
    )
    return ([sentence], []) if masks else ([], [sentence])


def _oddities(content: Mapping[str, Any], counts: Counts, unmatched: int) -> list[str]:
    """What is neither wrong nor usual, in the order of the table."""
    warnings = []
    if counts.crowds and counts.objects:
        warnings.append(
            f"{counts.crowds} of {counts.crowds + counts.objects} annotations are crowds: they are not "
            "trained on, and what is found in them counts as nothing"
        )
    unused = [name for name, number in counts.by_class.items() if not number]
    if unused and counts.objects:
        names = ", ".join(map(repr, unused[:_NAMED])) + (", ..." if len(unused) > _NAMED else "")
        warnings.append(f"{len(unused)} of {len(counts.by_class)} classes have no object ({names})")
    if counts.empty_images and counts.objects:
        warnings.append(
            f"{counts.empty_images} of {counts.images} images have no object: training leaves them out, and "
            "what is found in them in a test counts as wrong"
        )
    if unmatched:
        warnings.append(f"{unmatched} annotations are of images that are not in the file: ignored")
    names = Counter([one["file_name"] for one in content["images"] if "file_name" in one])
    repeated = [name for name, number in names.items() if number > 1]
    if repeated:
        warnings.append(
            f"{len(repeated)} file names are of more than one image (first: {repeated[0]!r}): if they are "
            "one image, give it all of their annotations"
        )
    return warnings
