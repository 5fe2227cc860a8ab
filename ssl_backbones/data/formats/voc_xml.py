"""Pascal VOC's folders: an XML file of boxes for each image, and a PNG with the pixels of its objects."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from functools import partial
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pycocotools.mask
from PIL import Image

from ...errors import InputError
from ..annotations.fields import number_of, quote
from ..annotations.voc import CORNERS, parse_xml
from ..image_folders import SAMPLE, files_in, folders_in, lines_of, read_bytes, split_named
from ..images import IMAGE_SUFFIXES, large_images, upright_size
from .labelled import ALL, LabelledData, LabelledImage, LabelledObject, in_order


def find_voc(root: Path) -> LabelledData | None:
    """Find Pascal VOC's XML files and their images; None where there are none.

    Args:
        root: a folder with Annotations/, VOCdevkit around one such, a folder of lists inside its ImageSets/,
            Roboflow's train/, valid/ and test/, or XML files beside their images.

    Raises:
        InputError: there are several such, or a list of images does not fit the XML files.
    """
    is_lists = root.parent.name == "ImageSets"
    base, lists = (root.parent.parent, root) if is_lists else (root, root / "ImageSets" / "Main")
    inside = folders_in(base)
    found = []
    for split, folder in [(ALL, base), *((split_named(one.name), one) for one in inside)]:
        for own in (*_inside(folder, "annotations"), folder) if split else ():
            xmls = files_in(own, (".xml",))
            if any(map(_is_voc, xmls[:SAMPLE])):
                found.append((split, xmls))
    years = [] if found else [one for one in inside if re.fullmatch(r"VOC(devkit|20..)", one.name)]
    splits = dict(found)
    if len(years) > 1 or len(found) > len(splits) or (ALL in splits and len(splits) > 1):
        several = ", ".join(map(str, years or [xmls[0].parent for _, xmls in found]))
        raise InputError(f"{root} has more than one folder of VOC's: {several}; give one of them")
    if not found:
        return find_voc(years[0]) if years else None
    images, masks = defaultdict(list), {}
    for own in {xmls[0].parent for xmls in splits.values()}:
        folder = own.parent if own.name.lower() == "annotations" else own
        for one in dict.fromkeys((*_inside(folder, "jpegimages", "images"), own, folder)):
            for path in files_in(one, IMAGE_SUFFIXES):
                images[own / path.stem].append(path)
        for one in _inside(folder, "segmentationobject"):
            masks |= {own / path.stem: path for path in files_in(one, (".png",))}
    bare = images.keys() - _stems(splits)
    files, notes = [], []
    if ALL in splits:
        # Others are of a class, as dog_train.txt.
        near = lists if lists.is_dir() else base
        files = [path for path in files_in(near, (".txt",)) if split_named(path.stem)]
        listed = _by_lists(files, splits[ALL], notes)
        if (is_lists or files) and not listed:
            raise InputError(f"{near} has no list of XML files, such as train.txt; give one")
        splits = listed or splits
    taken = _stems(splits)
    masks = {stem: path for stem, path in masks.items() if stem in taken}
    if 0 < len(masks) < len(taken):
        can_choose = (base / "ImageSets" / "Segmentation").is_dir() and not is_lists
        mend = "ImageSets/Segmentation as PATH" if can_choose else "each one"
        notes.append(
            f"{len(masks)} of {len(taken)} images have masks: boxes alone; give {mend} to learn masks"
        )
        masks = {}
    files += [*masks.values(), *chain(*images.values())]
    read = partial(_read, base=base, images=images, masks=masks)
    settle = partial(_settle, bare={*chain(*(images[stem] for stem in bare))})
    return LabelledData("Pascal VOC's XML", in_order(splits), files, None, read, settle, notes)


def _inside(folder: Path, *names: str) -> list[Path]:
    return [one for one in folders_in(folder) if one.name.lower() in names]


def _stems(splits: Mapping[str, Sequence[Path]]) -> set[Path]:
    return {path.with_suffix("") for path in chain(*splits.values())}


def _is_voc(path: Path) -> bool:
    # UTF-16 is as legible without its zeros.
    head = read_bytes(path, 4096).replace(b"\0", b"")
    root = re.search(rb"<[A-Za-z][^\s/>]*", head)
    return root is not None and root[0] == b"<annotation"


def _by_lists(
    lists: Sequence[Path], xmls: Sequence[Path], notes: list[str]
) -> dict[str, list[Path]]:
    """The XML files of each split by lists of ids; none where no list is of a split."""
    by_id = {path.stem: path for path in xmls}
    found: dict[str, set[Path]] = defaultdict(set)
    for path in lists:
        ids = [_id(line, by_id) for line in lines_of(path)]
        listed = [id_ for id_ in ids if id_]
        missing = [id_ for id_ in listed if id_ not in by_id]
        if len(missing) == len(listed):
            # As of VOC2012's test set, whose annotations are not given away.
            notes.append(f"{path} lists no image that has an XML file: left out")
        elif missing:
            raise InputError(
                f"{path}: line {ids.index(missing[0]) + 1}: {quote(missing[0])} has no XML file "
                f"({len(missing)} such); add it, or take it off the list"
            )
        else:
            split = "trainval" if path.stem.lower() == "trainval" else split_named(path.stem)
            found[split] |= {by_id[id_] for id_ in listed}
    whole = found.pop("trainval", None)
    if whole and not {"train", "val"} <= found.keys():
        found = {"train": whole, "test": found["test"]} if "test" in found else {ALL: whole}
    return {split: sorted(of_split) for split, of_split in found.items()}


def _id(line: str, known: Collection[str]) -> str:
    """The id that a line of a list is, or that is left of an image's name."""
    is_image = line not in known and line.lower().endswith(IMAGE_SUFFIXES)
    return line.rpartition(".")[0] if is_image else line


def _read(
    path: Path, base: Path, images: Mapping[Path, list[Path]], masks: Mapping[Path, Path]
) -> LabelledImage:
    """An XML file, the boxes of whose objects are still their corners as they stand there."""
    root = parse_xml(path, str(path))
    if root.tag != "annotation":
        raise InputError(f"{path} is {quote(root.tag)}, not VOC's annotation; take it out of there")
    image = _image(path, root, images)
    size = upright_size(image)
    for side, actual in zip(("width", "height"), size, strict=True):
        for text in ("".join(one.itertext()).strip() for one in root.findall(f"size/{side}")):
            number = number_of(text or "0")
            if number is None or 0 < number != actual:
                raise InputError(
                    f"{path} says {side} {quote(text)}, and {image} is {size[0]} x {size[1]}; give the image "
                    "that the boxes were drawn on"
                )
    elements = root.findall("object")
    objects = [_object(one, path, number, base) for number, one in enumerate(elements, 1)]
    if mask := masks.get(path.with_suffix("")):
        shapes = _masks(mask, path, size, len(objects))
        pairs = zip(objects, shapes, strict=True)
        objects = [one._replace(segmentation=shape) for one, shape in pairs]
    notes = []
    if any((one.findtext("difficult") or "").strip() == "1" for one in elements):
        notes.append("objects marked as difficult are taken as any other")
    if root.find("object/polygon") is not None:
        notes.append("the objects' polygons, which are not VOC's own, are not read: boxes alone")
    return LabelledImage(image, *size, objects, notes)


def _image(path: Path, root: ET.Element, images: Mapping[Path, list[Path]]) -> Path:
    """The image with the stem of the XML file, else the one that it names."""
    name = PureWindowsPath((root.findtext("filename") or "").strip()).name
    of_stem = images.get(path.with_suffix(""), [])
    of_name = [one for one in images.get(path.parent / Path(name).stem, ()) if one.name == name]
    found = [one for one in of_stem if one in of_name] or of_stem or of_name
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{path}: {found[0]} and {found[1]} may both be its image; keep one")
    raise InputError(
        f"{path}: its image, of its name or {quote(name)}, is not beside it, in images/ or in JPEGImages/; "
        "put it there"
    )


def _object(element: ET.Element, path: Path, number: int, base: Path) -> LabelledObject:
    where = f"{path}: object {number}"
    name = _text(element, "name", where)
    texts = [_text(element, f"bndbox/{corner}", where) for corner in CORNERS]
    box: list[Any] = list(map(number_of, texts))
    if None in box or box[0] > box[2] or box[1] > box[3]:
        raise InputError(
            f"{where} has the {', '.join(CORNERS)} {quote(texts)}, which are not four numbers from left to "
            "right and top to bottom; correct them"
        )
    return LabelledObject(name, f"{path.relative_to(base)} object {number}", box)


def _text(parent: ET.Element, path: str, where: str) -> str:
    found = parent.findall(path)
    if len(found) > 1 or any(map(len, found)):
        raise InputError(f"{where} has more than one text as {path}; give it one")
    text = found[0].text if found else None
    if not (text or "").strip():
        raise InputError(f"{where} has no {path}; give it one")
    return text.strip()


def _masks(path: Path, xml: Path, size: tuple[int, int], count: int) -> list[dict[str, Any]]:
    """The run lengths of the objects, whose pixels have their numbers from 1 in the XML file."""
    try:
        with large_images(), Image.open(path, formats=("PNG",)) as image:
            mode, numbers = image.mode, np.asarray(image)
    except Exception as error:  # whatever a decoder raises on a damaged file
        raise InputError(f"{path} is not a PNG that can be read: {error}; get it anew") from error
    if mode not in ("P", "L") or image.size != size:
        raise InputError(
            f"{path} is {image.width} x {image.height}, mode {mode}, and must be {size[0]} x {size[1]}, with "
            "objects' numbers in mode P or L; save it so, or remove all masks"
        )
    background, border = 0, 255
    odd = {*np.unique(numbers).tolist()} - {background, border} ^ {*range(1, count + 1)}
    if odd:
        has = f"no pixels of object {min(odd)}" if min(odd) <= count else f"an object {min(odd)}"
        raise InputError(f"{path} has {has}, and {xml} has {count} objects; mend one of them")
    shapes = []
    for number in range(1, count + 1):
        packed = pycocotools.mask.encode(np.asfortranarray(numbers == number, np.uint8))
        shapes.append({"size": packed["size"], "counts": packed["counts"].decode()})
    return shapes


def _settle(images: list[LabelledImage], bare: Set[Path]) -> tuple[list[LabelledImage], list[str]]:
    """Boxes from corners that count pixels from 1, both inside, or from 0 where a box begins before 1."""
    objects = list(chain(*(image.objects for image in images)))
    low = [one.origin for one in objects if min(one.bbox[:2]) < 1]
    between = [one.origin for one in objects if any(side % 1 for side in one.bbox)]
    bare = bare - {image.path for image in images}
    notes = [f"{len(bare)} images (first: {min(bare)}) have no XML file: left out"] if bare else []
    if low:
        notes.append(
            f"{len(low)} boxes (first: {low[0]}) begin below 1, the first pixel of VOC: all corners are read "
            "as counted from 0"
        )
    elif between:
        # A few of VOC2011's are.
        notes.append(
            f"{len(between)} boxes (first: {between[0]}) have corners between pixels: all are read as VOC's, "
            "counted from 1"
        )
    start = 0 if low else 1

    def boxed(one: LabelledObject) -> LabelledObject:
        left, top = one.bbox[0] - start, one.bbox[1] - start
        return one._replace(bbox=[left, top, one.bbox[2] - left, one.bbox[3] - top])

    return [image._replace(objects=list(map(boxed, image.objects))) for image in images], notes
