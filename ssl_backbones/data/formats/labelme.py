"""labelme's folders: a JSON file for each image, with the shapes that were drawn on it.

Source: labelme's own `read_label_file` and examples/instance_segmentation/labelme2coco.py, of
https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
from PIL import Image

from ...errors import InputError, format_name
from ...fast.annotations.coco_json import parse_json
from ..annotations.fields import UnsureError, quote
from ..annotations.foreign import foreign_format, is_labelme
from ..annotations.masks import box_of
from ..image_folders import SAMPLE, files_in, folders_in, read_bytes, split_named
from ..images import IMAGE_SUFFIXES, large_images, upright_size
from .labelled import ALL, LabelledData, LabelledImage, LabelledObject, in_order

_POINTS = {"rectangle": (2, 4), "oriented_rectangle": (4,), "circle": (2,), "mask": (2,)}
"""How many points a shape has; a polygon three and more."""
_NO_OBJECTS = ("point", "points", "line", "linestrip")
_TEXT = re.compile("[^\ud800-\udfff]+")  # halves of characters, which cannot be written


def find_labelme(root: Path) -> LabelledData | None:
    """Find labelme's files in the folders of splits, in `root` itself, or in the folders inside it.

    Only JSON files without an image of their name beside them, and a few of each folder, are read. None where
    none of the first of each folder is labelme's.

    Raises:
        InputError: a JSON file beside them is damaged or another tool's, or there is no image for it.
    """
    inside = folders_in(root)
    of_split = {one: split for one in inside if (split := split_named(one.name))}
    places = [one for one in (root, *inside) if _holds_labelme(one)]
    if not places:
        return None
    if not of_split.keys().isdisjoint(places):
        places = list(of_split)
    elif root in places:
        places = [root]
    images = {path for place in places for path in files_in(place, IMAGE_SUFFIXES)}
    beside = {path.with_suffix(""): path for path in sorted(images)}
    used, found = set(), defaultdict(list)
    for path in (path for place in places for path in files_in(place, (".json",))):
        image = beside.get(path.with_suffix(""))
        if not image and (content := _content(path)):
            image = _image_of(path, content, beside)
        if image:
            used.add(image)
            found[of_split.get(path.parent, ALL)].append(path)
    for folder in {image.parent for image in used}.difference(places):
        images.update(files_in(folder, IMAGE_SUFFIXES))
    bare = sorted(images - used)
    notes = [f"{len(bare)} images have no JSON file: left out (first: {bare[0]})"] if bare else []
    read = partial(_read, root=root, beside=beside)
    files = sorted(images | used)
    return LabelledData("labelme's files", in_order(found), files, None, read, _settle, notes)


def _holds_labelme(folder: Path) -> bool:
    with contextlib.suppress(InputError):  # a folder that is none of the data's may be private
        for path in files_in(folder, (".json",))[:SAMPLE]:
            with contextlib.suppress(InputError):
                if _content(path) is not None:
                    return True
    return False


def _content(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None of one that is no annotations."""
    try:
        content = parse_json(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; mend it or take it out") from error
    if isinstance(content, dict) and is_labelme(content):
        return content
    if phrase := foreign_format(b"", content):
        raise InputError(f"{path} {phrase}")
    return None


def _image_of(path: Path, content: Mapping[str, Any], beside: Mapping[Path, Path]) -> Path:
    """The image beside the file, else that of its imagePath."""
    name = content.get("imagePath")
    if type(name) not in (str, type(None)):
        raise InputError(f"{path}: imagePath is {quote(name)}, which is no text; correct it")
    image = Path(os.path.normpath(path.parent / (name or "").replace("\\", "/")))
    near = beside.get(path.with_suffix(""))
    if os.path.isfile(image):
        if near and near != image:
            raise InputError(f"{path}: its imagePath is {image}, and {near} is beside it; keep one")
        return image
    if near:
        return near
    raise InputError(
        f"{path}: its image '{format_name(name or '')}' is not there; put it there, or beside the JSON file "
        "under the same name"
    )


def _read(path: Path, root: Path, beside: Mapping[Path, Path]) -> LabelledImage:
    content = _content(path)
    if content is None:
        raise InputError(f"{path} is beside an image and not labelme's; take it out of the folder")
    image = _image_of(path, content, beside)
    size = upright_size(image)
    for key, side in zip(("imageWidth", "imageHeight"), size, strict=True):
        if content.get(key) not in (None, side):
            raise InputError(
                f"{path}: {key} is {quote(content[key])}, and image {image}, as EXIF turns it, is "
                f"{size[0]} x {size[1]}; put the image there that was annotated"
            )
    parts = defaultdict(list)  # of each object
    notes = []
    for number, shape in enumerate(content["shapes"], 1):
        try:
            name, group, kind = _identity(shape)
            if kind in _NO_OBJECTS:
                notes = ["points and lines are left out: key points are not learnt from labelme"]
                continue
            key = (name, number, None) if group is None else (name, None, group)
            parts[key].append((number, kind, _outline(shape, kind, size)))
        except UnsureError as fault:
            label = quote(shape.get("label") if isinstance(shape, dict) else shape)
            where = f"{path}: shape {number} ({label})"
            raise InputError(f"{where} {fault.reason}; {fault.mend}") from fault
    origin = f"{path.relative_to(root)} shape"
    objects = [_object(name, origin, of, size) for (name, *_), of in parts.items()]
    return LabelledImage(image, *size, objects, notes)


def _identity(shape: Any) -> tuple[str, int | str | None, str]:
    """Label, group and type."""
    if type(shape) is not dict:
        raise UnsureError("is no object of JSON")
    label, group, kind = (shape.get(key) for key in ("label", "group_id", "shape_type"))
    if type(label) is not str or not _TEXT.fullmatch(label.strip()):
        raise UnsureError("has no label that is text", "give it the name of its class")
    if type(group) not in (int, str, type(None)):
        raise UnsureError(f"has the group_id {quote(group)}", "give a whole number or null")
    kind = "polygon" if kind is None else kind  # of the oldest files, as in labelme2coco.py
    if kind not in ("polygon", *_POINTS, *_NO_OBJECTS):
        raise UnsureError(f"has the shape_type {quote(kind)}, which labelme does not write")
    return label.strip(), group, kind


def _outline(shape: Mapping[str, Any], kind: str, size: tuple[int, int]) -> Any:
    """A shape in COCO's form: a polygon, or compressed run lengths."""
    points = shape.get("points")
    if type(points) is not list or not all(map(_is_point, points)):
        raise UnsureError("has points that are not pairs of numbers")
    fits = len(points) > 2 if kind == "polygon" else len(points) in _POINTS[kind]
    if not fits:
        raise UnsureError(f"is a {kind} of {len(points)} points", "draw it once more")
    for x, y in points:
        # Written so that NaN is refused.
        if not (-1 <= x <= size[0] + 1 and -1 <= y <= size[1] + 1):
            reason = f"has the point {quote([x, y])} outside the image of {size[0]} x {size[1]}"
            raise UnsureError(reason, "move it into the image")
    if kind == "mask":
        return _run_lengths(shape.get("mask"), points, size)
    if kind == "circle":
        return _circle(*points)
    if kind == "rectangle":
        (left, *_, right), (top, *_, bottom) = map(sorted, zip(*points, strict=True))
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
        if len(points) == 4 and sorted(points) != sorted(corners):
            raise UnsureError("is a rectangle that is not upright", "make it a polygon")
        points = corners
    return list(chain.from_iterable(points))


def _is_point(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and {int, float}.issuperset(map(type, value))


def _circle(centre: Sequence[float], edge: Sequence[float]) -> list[float]:
    """The polygon of labelme2coco.py before labelme 6.2, which starts at another point of the circle.

    Source: https://github.com/wkentaro/labelme/blob/v5.5.0/examples/instance_segmentation/labelme2coco.py
    """
    radius = np.linalg.norm(np.subtract(edge, centre))
    if radius == 0:
        raise UnsureError("is a circle without a radius", "draw it once more")
    # So many that no chord is a pixel from its arc.
    number = max(int(np.pi / np.arccos(1 - 1 / radius)), 12) if radius > 1 else 12
    angles = 2 * np.pi / number * np.arange(number)
    around = np.stack((np.sin(angles), np.cos(angles)), axis=1)
    return (centre + radius * around).flatten().tolist()


def _run_lengths(
    mask: Any, points: Sequence[Sequence[float]], size: tuple[int, int]
) -> dict[str, Any]:
    try:
        png = io.BytesIO(base64.b64decode(mask))
        with large_images(), Image.open(png, formats=("PNG",)) as image:
            pixels = np.asarray(image)
    except Exception as error:  # whatever a decoder raises on a damaged file
        raise UnsureError("has a mask that is not a PNG in base64", "draw it once more") from error
    x, y = map(round, points[0])
    whole = np.zeros(size[::-1], np.uint8, order="F")
    place = whole[max(y, 0) :, max(x, 0) :][: len(pixels), : pixels.shape[1]]
    # labelme cuts [y1 : y2 + 1, x1 : x2 + 1] out of a whole mask, which gives less where a box of one of its
    # models ends with the image.
    sides = np.subtract(points[1], points[0]) + 1 - pixels.shape[1::-1]
    if min(x, y) < 0 or place.shape != pixels.shape or not -1 < min(sides) <= max(sides) <= 1:
        reason = "has a mask that is not as large as its points say, or not inside the image"
        raise UnsureError(reason, "draw it once more")
    place[:] = pixels != 0
    return pycocotools.mask.encode(whole)


def _object(
    name: str, origin: str, parts: Sequence[tuple[int, str, Any]], size: tuple[int, int]
) -> LabelledObject:
    """An object of one or several shapes; one of rectangles has both box and polygons, until `_settle`."""
    mask: Any = [outline for _, kind, outline in parts if kind != "mask"]
    masks = [outline for _, kind, outline in parts if kind == "mask"]
    if masks:
        drawn = pycocotools.mask.frPyObjects(mask, *size[::-1]) if mask else []
        merged = pycocotools.mask.merge([*masks, *drawn])
        mask = {"size": merged["size"], "counts": merged["counts"].decode()}
    box = box_of(mask) if all(kind == "rectangle" for _, kind, _ in parts) else None
    return LabelledObject(name, f"{origin} {parts[0][0]}", box, mask)


def _settle(images: list[LabelledImage]) -> tuple[list[LabelledImage], list[str]]:
    """Rectangles alone are boxes; beside other shapes they are polygons, as in labelme2coco.py."""
    objects = [one for image in images for one in image.objects]
    boxes = [one for one in objects if one.bbox]
    drop = {"segmentation": None} if len(boxes) == len(objects) else {"bbox": None}
    for image in images:
        image.objects[:] = [one._replace(**drop) for one in image.objects]
    if not 0 < len(boxes) < len(objects):
        return images, []
    return images, [
        f"{len(boxes)} of {len(objects)} objects are rectangles (first: {boxes[0].origin}): read as polygons "
        "of four corners, since others have outlines"
    ]
