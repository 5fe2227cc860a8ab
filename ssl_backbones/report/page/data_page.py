"""What is in data of one's own, as one HTML file that needs nothing else: counts, sizes, images, oddities."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ... import __version__
from ...data.annotations.box_judging import SLACK
from ...data.annotations.examining import Counts
from ...data.annotations.masks import run_length_fault
from ...drawing.instances import corners
from ...tables import Table
from ..content import ImageSource, Report
from ..wording import encodable
from .examples import Example, draw, encode
from .html_page import POLICY, page_environment

NUM_IMAGES = 12  # annotated ones, and as many odd ones at most
MOST_BYTES = 1_500_000  # of pictures
MOST_DRAWN = 300  # annotations of an image: more hide it

SIDES = (0, 8, 16, 32, 64, 96, 192, 384, 768)
"""Square roots of areas in pixels; below 32 COCO calls an object small, from 96 on large."""

Key = tuple[str, int]
"""Of an image: its split, and its id there."""


@dataclass(frozen=True)
class SplitContent:
    """A split as it was read.

    Attributes:
        root: the folder of the file names.
        content: in the form that `read_coco` gives it.
        counts: of the content.
        faults: path -> why the image file cannot be used.
    """

    root: str
    content: Mapping[str, Any]
    counts: Counts
    faults: Mapping[str, str]

    @cached_property
    def images(self) -> dict[int, Mapping[str, Any]]:
        return {image["id"]: image for image in self.content["images"]}

    @cached_property
    def source(self) -> ImageSource:
        """Of LVIS's images the files are not known."""
        named = {id_: one["file_name"] for id_, one in self.images.items() if "file_name" in one}
        files = {id_: os.path.normpath(os.path.join(self.root, n)) for id_, n in named.items()}
        annotations: dict[int, list[Mapping[str, Any]]] = {id_: [] for id_ in self.images}
        for one in self.content.get("annotations", ()):
            if one["image_id"] in annotations:
                annotations[one["image_id"]].append(one)
        return ImageSource(
            files, annotations, {c["id"]: c["name"] for c in self.content["categories"]}
        )

    @cached_property
    def objects(self) -> dict[int, list[Mapping[str, Any]]]:
        """Of each image the annotations that are no crowds."""
        annotations = self.source.annotations.items()
        return {id_: [one for one in some if not one["iscrowd"]] for id_, some in annotations}


Splits = Mapping[str, SplitContent]


def format_data_page(
    name: str,
    facts: Mapping[str, str],
    findings: Mapping[str, Sequence[str]],
    tables: Sequence[Table],
    splits: Splits,
    duplicates: Sequence[Sequence[tuple[str, str]]],
) -> str:
    """The page as HTML, with pictures of `MOST_BYTES` at most; it can be written as UTF-8.

    Args:
        name: of the dataset.
        facts: where it lies, and what it was taken for.
        findings: by heading what was found, a sentence each.
        tables: counts and classes; none where no split can be read.
        duplicates: files of the same bytes in two splits or more, each a split and a path.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
    """
    template = page_environment().get_template("data.html")
    typical = _drawn(dict.fromkeys(choose(splits), ""), splits)
    odd = _drawn(odd_images(splits), splits)
    encode([one for _, example, _ in typical + odd for one in example.pictures], MOST_BYTES)
    bars = [_with_bars(table) for table in (*tables[1:], table_of_sizes(splits))]
    names = [
        [(split, os.path.relpath(path, splits[split].root)) for split, path in group]
        for group in duplicates
    ]
    page = template.render(
        name=name,
        facts=facts,
        findings=findings,
        tables=[*tables[:1], *bars] if splits else [],
        splits=splits,
        typical=typical,
        odd=odd,
        duplicates=names,
        policy=POLICY,
        version=__version__,
    )
    return encodable(page)


def choose(splits: Splits, seed: int = 0) -> list[Key]:
    """Images that can be used, in turn from each split: first of its rarest classes, then by chance.

    Those without an annotation are taken only of a split that has no other. The choice depends on nothing
    but the content and the seed.
    """
    generator = random.Random(seed)
    by_split = [
        [(name, id_) for id_ in _rarest_first(one, generator)] for name, one in splits.items()
    ]
    in_turn = [key for keys in itertools.zip_longest(*by_split) for key in keys if key]
    return sorted(in_turn[:NUM_IMAGES], key=lambda key: list(splits).index(key[0]))


def _rarest_first(split: SplitContent, generator: random.Random) -> list[int]:
    """The images of a split that can be used, by chance but for one of each class in front."""
    source = split.source
    usable = [id_ for id_, path in source.files.items() if path not in split.faults]
    usable = [id_ for id_ in usable if source.annotations[id_]] or usable
    generator.shuffle(usable)
    one_of = {one["category_id"]: id_ for id_ in usable for one in split.objects[id_]}
    known = [category for category in one_of if category in source.class_names]
    known.sort(key=lambda category: split.counts.by_class[source.class_names[category]])
    return list(dict.fromkeys([*(one_of[category] for category in known), *usable]))


def odd_images(splits: Splits) -> dict[Key, str]:
    """Images that stand out and in what, at most `NUM_IMAGES`: in turn the worst of each kind."""
    kinds: dict[str, list[tuple[int, Key, str]]] = defaultdict(list)
    for name, split in splits.items():
        most, mean = split.counts.max_objects, split.counts.mean_objects
        for id_, image in split.images.items():
            objects = split.objects[id_]
            boxes = [one["bbox"] for one in objects]
            maskless = [one for one in objects if not one.get("segmentation")]
            for kind, number in (
                ("boxes less than one pixel wide or high", sum(min(b[2:]) < 1 for b in boxes)),
                ("boxes that reach outside the image", sum(_is_outside(b, image) for b in boxes)),
                ("objects without a mask", len(maskless) if split.counts.with_masks else 0),
            ):
                if number:
                    words = f"{kind}: {number} of {len(objects)}"
                    kinds[kind].append((number, (name, id_), words))
            if reason := split.faults.get(split.source.files.get(id_, "")):
                kinds["file"].append((1, (name, id_), f"cannot be used: {reason}"))
            if len(objects) == most > max(1, 2 * mean):
                words = f"{most} objects, the most in {name}, where the mean is {mean:.1f}"
                kinds["most"].append((most, (name, id_), words))
    ranked = [sorted(some, key=lambda one: -one[0]) for some in kinds.values()]
    reasons: dict[Key, list[str]] = defaultdict(list)
    for _, key, words in filter(None, itertools.chain(*itertools.zip_longest(*ranked))):
        reasons[key].append(words)
    worst = list(reasons.items())[:NUM_IMAGES]
    return {key: "; ".join(words) for key, words in worst}


def table_of_sizes(splits: Splits) -> Table:
    """How many objects of each split are how large, by `SIDES`."""
    import numpy as np

    columns = []
    for split in splits.values():
        areas = [one["area"] for some in split.objects.values() for one in some]
        sides = np.sqrt(np.maximum(areas, 0))
        columns.append(np.histogram(sides, [*SIDES, math.inf])[0].tolist())
    heads = [f"{low} to {high}" for low, high in itertools.pairwise(SIDES)]
    heads.append(f"{SIDES[-1]} and more")
    title = "Objects by size: the square root of the area in pixels"
    return Table(title, ["", *splits], list(zip(heads, *columns, strict=True)))


def _with_bars(table: Table) -> Table:
    """The same with a bar behind each number, against the largest of its column."""
    from markupsafe import Markup

    bar = Markup('<span class="bar" style="--run: var(--run-0); --ap: {:.1%}">{}</span>')
    columns = []
    for column in zip(*(cells for _, *cells in table.rows), strict=True):
        numbers = [number or 0 for number in column]
        most = max(numbers) or 1
        columns.append([bar.format(number / most, number) for number in numbers])
    heads = [row[0] for row in table.rows]
    return Table(table.title, table.columns, list(zip(heads, *columns, strict=True)))


def _is_outside(box: Sequence[float], image: Mapping[str, Any]) -> bool:
    """By more than the checks let pass."""
    left, top, right, bottom = corners(box)
    beyond = max(right - image["width"], bottom - image["height"])
    return max(-left, -top, beyond) > SLACK


def _drawn(chosen: Mapping[Key, str], splits: Splits) -> list[tuple[str, Example, str]]:
    """The images with what is annotated in them, or with a sentence where that cannot be drawn."""
    shown = []
    for (name, id_), words in chosen.items():
        split = splits[name]
        file, annotations = split.source.files.get(id_, str(id_)), split.source.annotations[id_]
        if len(annotations) > MOST_DRAWN:
            words += f" ({MOST_DRAWN} of its {len(annotations)} annotations are drawn)"
        fit = [_drawable(one, split.images[id_]) for one in annotations[:MOST_DRAWN]]
        example = Example(id_, os.path.basename(file), [])
        # A report of no run: only what is annotated is drawn.
        source = replace(split.source, annotations={id_: fit})
        draw(Report([], 0, 0, 0, test_images={name: source}), name, [example])
        shown.append((name, example, words))
    return shown


def _drawable(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """The annotation, without what would be too much for decoders and drawing."""
    height, width = image["height"], image["width"]
    far = 2 * max(height, width)
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and run_length_fault(mask, height, width):
        mask = None
    box = [max(-far, min(side, far)) for side in annotation["bbox"]]
    return {**annotation, "bbox": box, "segmentation": mask}
