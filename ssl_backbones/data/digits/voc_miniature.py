"""PASCAL VOC in miniature: both years, XML with 1-based boxes and difficult objects, lists of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from .digit_scenes import Photograph, Scene, photographs, pixel_box

DIFFICULT_BELOW = 0.3
"""An object is marked as difficult whose longer side is less than this share of the picture's."""

SCENES = {("2007", "train"): 3, ("2012", "train"): 4, ("2007", "test"): 5}
"""Years and splits, each with its number in the seed. There is no test set of 2012, as in VOC itself."""


def write_voc(folder: Path, year: str, info: dict[str, int], on_scene: Callable[[], None]) -> None:
    """Fill `folder`: JPEGImages/ID.jpg, Annotations/ID.xml, ImageSets/Main/{train,val,trainval,test}.txt.

    Digits have the first ten of VOC's 20 classes, from 0, an aeroplane, to 9, a cow. Every second training
    scene is of `val`; `test` there is in 2007 alone, and the ids of its images stand among the others'.
    """
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[str]] = {}
    for (of, split), number in SCENES.items():
        if of != year:
            continue
        taken = photographs(
            split,
            info[f"num_{split}"],
            size=info["size"],
            seed=(info["seed"], number),
            on_scene=on_scene,
        )
        ids = list(_write_images(folder, year, split, taken))
        parts = {"test": ids}
        if split == "train":
            parts = {"trainval": ids, "train": ids[::2], "val": ids[1::2]}
        lists |= parts
    for name, ids in lists.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(
            "".join(f"{id_}\n" for id_ in ids)
        )


def _write_images(
    folder: Path, year: str, split: str, taken: Iterable[Photograph]
) -> Iterator[str]:
    """Write pictures and XML; yield their ids, as VOC numbers them."""
    from PIL import Image

    for index, photograph in enumerate(taken):
        number = 2 * index + (1 if split == "train" else 2)
        id_ = f"{number:06d}" if year == "2007" else f"2008_{number:06d}"
        image = Image.fromarray(photograph.scene.image)
        image.save(folder / "JPEGImages" / f"{id_}.jpg", quality=95, subsampling=0)
        tree = ET.ElementTree(_annotation(photograph, year, id_))
        ET.indent(tree, "\t")
        tree.write(folder / "Annotations" / f"{id_}.xml", encoding="utf-8")
        yield id_


def _annotation(photograph: Photograph, year: str, id_: str) -> ET.Element:
    from detectron2.data.datasets.pascal_voc import CLASS_NAMES

    root = ET.Element("annotation")
    _add(root, folder=f"VOC{year}", filename=f"{id_}.jpg")
    size = ET.SubElement(root, "size")
    _add(size, width=photograph.width, height=photograph.height, depth=3)
    _add(root, segmented=0)
    scene: Scene = photograph.scene
    for label, mask, cut in zip(scene.labels, scene.masks, photograph.cut, strict=True):
        left, top, right, bottom = pixel_box(mask)
        longer = max(right - left, bottom - top)
        is_difficult = longer < DIFFICULT_BELOW * max(photograph.width, photograph.height)
        object_ = ET.SubElement(root, "object")
        _add(object_, name=CLASS_NAMES[label], pose="Unspecified")
        _add(object_, truncated=int(cut), difficult=int(is_difficult))
        # The first pixel is 1, and the last one is inside.
        box = ET.SubElement(object_, "bndbox")
        _add(box, xmin=left + 1, ymin=top + 1, xmax=right, ymax=bottom)
    return root


def _add(parent: ET.Element, **texts: object) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = str(text)
