"""Datasets in PASCAL VOC's format: what in their lists and XML would end a run, found before it starts."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.utils.file_io import PathManager

from ...errors import InputError
from ...fast.annotations.packed_dataset import is_registered_by
from .. import mend_of_missing

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocFiles(NamedTuple):
    """Where a registered VOC dataset is, and which of its images it lists.

    `list_file` is ImageSets/Main/SPLIT.txt.
    """

    folder: Path
    list_file: Path
    classes: Sequence[str]

    def xml(self, id_: str) -> Path:
        return self.folder / "Annotations" / f"{id_}.xml"

    def image(self, id_: str) -> Path:
        return self.folder / "JPEGImages" / f"{id_}.jpg"


def voc_files(name: str) -> VocFiles | None:
    """Of a dataset that Detectron2's `register_pascal_voc` registered; None of another one."""
    if not is_registered_by(register_pascal_voc, name):
        return None
    metadata = MetadataCatalog.get(name)
    folder = Path(PathManager.get_local_path(metadata.dirname))
    list_file = folder / "ImageSets" / "Main" / f"{metadata.split}.txt"
    return VocFiles(folder, list_file, metadata.thing_classes)


def check_voc(name: str, files: VocFiles, *, evaluated: bool) -> None:
    """Refuse a VOC dataset that Detectron2's reader or evaluator would fail on, or read as something else.

    Args:
        evaluated: whether it is tested on: Detectron2's evaluator asks more of the XML than its reader.

    Raises:
        InputError: a folder or file is missing, the list is empty or names an image twice, or an XML is cut,
            lacks something, or has a class or a box that there cannot be.
    """
    where = f"dataset {name!r}"
    if not files.folder.is_dir():
        raise InputError(f"{where}: there is no {files.folder}; {mend_of_missing(files.folder)}")
    ids = listed(files.list_file, where)
    _refuse_missing(ids, files.folder / "JPEGImages", ".jpg", f"{where}: the image")
    _refuse_missing(ids, files.folder / "Annotations", ".xml", f"{where}: the annotation")
    for id_ in ids:
        _check_xml(files.xml(id_), files.classes, where, evaluated)


def listed(list_file: Path, where: str) -> list[str]:
    """The ids in a list of images, one a line.

    Raises:
        InputError: it is missing, empty, or not such a list.
    """
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{where}: its list of images {list_file} is missing; add it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{where}: its list of images {list_file} cannot be read: {error}"
        ) from error
    for number, line in enumerate(lines, start=1):
        # Detectron2's reader skips what its evaluator does not.
        if len(line.split()) != 1 or line.startswith("#"):
            raise InputError(
                f"{where}: line {number} of {list_file} is {line!r}, and should be the id of one image"
            )
    ids = [line.strip() for line in lines]
    if len(ids) < 2:
        found = f"lists only {ids[0]!r}, and Detectron2 reads no list of one" if ids else "is empty"
        raise InputError(f"{where}: {list_file} {found}; list at least two images")
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(
            f"{where}: {list_file} lists {twice[0]!r} twice ({len(twice)} such images); list each once"
        )
    return ids


def _refuse_missing(ids: Iterable[str], folder: Path, ending: str, what: str) -> None:
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise InputError(f"{what}s' folder {folder} cannot be read: {error.strerror}") from error
    missing = [id_ for id_ in ids if f"{id_}{ending}" not in present]
    if missing:
        raise InputError(
            f"{what} {folder / missing[0]}{ending} is listed and not there ({len(missing)} such); get it, or "
            "take it out of the list"
        )


def parse_xml(path: Path, where: str) -> ET.Element:
    """The root element of an XML file; `where` is the file, as the first words of a message.

    Raises:
        InputError: it cannot be read, or is broken.
    """
    try:
        return ET.parse(path).getroot()
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two of its encoding
        raise InputError(f"{where} is not a whole XML file: {error}; get it anew") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error


def _check_xml(path: Path, classes: Sequence[str], where: str, evaluated: bool) -> None:
    root = parse_xml(path, f"{where}: {path}")
    for side in ("width", "height"):
        _whole_number(root, f"size/{side}", f"{where}: {path}")
    for number, object_ in enumerate(root.findall("object"), start=1):
        what = f"{where}: object {number} of {path}"
        kind = object_.findtext("name")
        if kind not in classes:
            raise InputError(
                f"{what} is a {kind!r}, which is not among the dataset's {len(classes)} classes; correct it, "
                "or register the dataset with classes of its own"
            )
        _check_box(object_, what, evaluated)
        if evaluated:
            if object_.find("pose") is None:
                raise InputError(f"{what} has no pose, which Detectron2's evaluator reads; add one")
            for flag in ("truncated", "difficult"):
                _whole_number(object_, flag, what)


def _check_box(object_: ET.Element, what: str, evaluated: bool) -> None:
    """A box of two corners, in numbers; whole ones for the evaluator, which takes no others."""
    texts = [object_.findtext(f"bndbox/{corner}") for corner in CORNERS]
    read = int if evaluated else float
    try:
        left, top, right, bottom = (read(text or "") for text in texts)
    except ValueError:
        whole = "whole numbers" if evaluated else "numbers"
        raise InputError(
            f"{what} has the box {dict(zip(CORNERS, texts, strict=True))}, which is not four {whole}; "
            "correct it"
        ) from None
    if not all(map(math.isfinite, (left, top, right, bottom))) or left > right or top > bottom:
        raise InputError(
            f"{what} has a box from ({left}, {top}) to ({right}, {bottom}), which is not from left to right "
            "and top to bottom; correct it"
        )


def _whole_number(parent: ET.Element, path: str, what: str) -> None:
    text = parent.findtext(path)
    try:
        int(text or "")
    except ValueError:
        raise InputError(
            f"{what} has {path.replace('/', '.')}={text!r}, which is not a whole number; correct it"
        ) from None
