"""COCO files for the tests of their readers: odd in every way that a reader must bear."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(0, 640), st.floats(0, 640, width=32), st.sampled_from([0, 0.0, 0.1, 1e-7, 639.99])
)
NAMES = st.text("abé漢/ .jpg", min_size=1, max_size=8)

# Odd lengths and less than three points are invalid, and Detectron2 leaves them out.
POLYGON = st.lists(NUMBERS, max_size=9) | st.lists(st.integers(0, 640), min_size=6, max_size=6)
RUN_LENGTHS = st.sampled_from(
    [
        {"counts": [3, 5, 4], "size": [4, 3]},
        {"size": [4, 3], "counts": [0, 12]},
        {"size": [3, 4], "counts": "354"},
        {"counts": "0<", "size": [4, 3]},
    ]
)
MASKS = st.lists(POLYGON, max_size=3) | RUN_LENGTHS | st.none()


@st.composite
def contents(draw) -> dict:
    """A file without faults, with categories and images in any order and annotations of images not there."""
    category_ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))
    image_ids = draw(st.lists(st.integers(0, 10**12), min_size=1, max_size=5, unique=True))
    images = [
        {
            "license": 1,
            "id": id_,
            "file_name": draw(NAMES),
            "height": draw(st.integers(1, 900)),
            "width": draw(st.integers(1, 900)),
        }
        for id_ in image_ids
    ]
    ids = draw(st.lists(st.integers(0, 10**9), max_size=8, unique=True))
    annotations = [draw(_annotation(id_, [*image_ids, 10**13], category_ids)) for id_ in ids]
    categories = [{"name": f"of {id_}", "id": id_} for id_ in category_ids]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return dict(draw(st.permutations(list(content.items()))))


@st.composite
def _annotation(draw, id_: int, image_ids: list[int], category_ids: list[int]) -> dict:
    annotation = {
        "segmentation": draw(MASKS),
        "area": 1.5,
        "iscrowd": draw(st.integers(0, 1)),
        "image_id": draw(st.sampled_from(image_ids)),
        "bbox": draw(st.lists(NUMBERS, min_size=4, max_size=4)),
        "category_id": draw(st.sampled_from(category_ids)),
        "id": id_,
        "ignore": 0,
    }
    for name in draw(st.sets(st.sampled_from(["segmentation", "iscrowd", "ignore"]))):
        del annotation[name]
    return annotation


def plain() -> dict:
    """Two images, one with a polygon and a crowd, one with a crowd alone, and one with nothing."""
    box = {"bbox": [0, 0.5, 3, 3.5], "category_id": 7, "area": 2}
    polygon = {**box, "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 4], [1.5, 1, 2, 1, 2, 2]]}
    crowd = {**box, "iscrowd": 1, "segmentation": {"counts": [3, 5, 4], "size": [4, 3]}}
    content = {
        "images": [
            {"id": id_, "file_name": f"{id_}.jpg", "height": 4, "width": 3} for id_ in (30, 10, 20)
        ],
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        "annotations": [
            {**polygon, "id": 1, "image_id": 10},
            {**crowd, "id": 2, "image_id": 10, "category_id": 3},
            {**crowd, "id": 3, "image_id": 20},
        ],
    }
    return copy.deepcopy(content)


_numbers = itertools.count()


def registered(path: Path, image_root: str = "images") -> str:
    """The name under which a COCO file was entered in Detectron2's catalogs."""
    name = f"test_coco_file_{next(_numbers)}"
    register_coco_instances(name, {}, str(path), image_root)
    return name


def forget(name: str) -> None:
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def written(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
