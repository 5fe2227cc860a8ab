"""Files of other annotation tools and formats, told by their content where COCO's is expected."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...fast.annotations.coco_json import parse_json

YOLO = "is YOLO's (a text file for each image): give the folder of the data, or its data.yaml"
VOC = "is Pascal VOC's XML (a file for each image): give the folder of the data"
LABELME = "is labelme's (a JSON file for each image): give their folder"
_VIA = "is VIA's: in VIA choose Annotation > Export Annotations (COCO format)"
_LABELBOX = "is LabelBox's export: convert it to COCO, which LabelBox itself does not write"
_EXPORT = "export as COCO from the tool that wrote it"

_SAMPLE = 20
"""So many entries or lines tell a format: a file is of one kind from its first to its last."""
_HEAD = 1 << 16
"""Bytes, of which the lines of a text are looked at."""


def foreign_format(data: bytes, content: Any = None) -> str | None:
    """Name the format of a file that is not COCO's, and the export to choose in the tool that wrote it.

    Args:
        data: the file's bytes; its first 64 KiB are enough of one that is not JSON.
        content: the parsed JSON, if the caller has it.

    Returns:
        What follows a file's name in a message, such as "is VIA's: in VIA choose ..."; None for COCO's
        files and for what is of none of the known formats.
    """
    data = data.removeprefix(codecs.BOM_UTF8)
    if content is None:
        with contextlib.suppress(ValueError, RecursionError):
            content = parse_json(data)
    if isinstance(content, dict | list):
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            return None
        return next((phrase for is_it, phrase in _OF_JSON if is_it(content)), None)
    head = data[:_HEAD]
    return next((phrase for is_it, phrase in _OF_BYTES if is_it(head)), None)


def _entries(content: Any) -> Iterator[Mapping[str, Any]]:
    """The first objects of a list, or the one that the content is."""
    some = itertools.islice(content, _SAMPLE) if isinstance(content, list) else (content,)
    return (entry for entry in some if isinstance(entry, dict))


def _has(entry: Mapping[str, Any], **kinds: type) -> bool:
    return all(isinstance(entry.get(key), kind) for key, kind in kinds.items())


def _is_via(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    if "_via_settings" in content or "_via_img_metadata" in content:
        return True
    # Its plain export: a mapping from name and size to what is said of an image.
    some = list(itertools.islice(content.values(), _SAMPLE))
    return bool(some) and all(
        isinstance(one, dict) and "filename" in one and "regions" in one for one in some
    )


def is_labelme(content: Any) -> bool:
    """Whether parsed JSON is of labelme: shapes drawn on an image, or a list with such."""
    return any(
        _has(e, shapes=list) and e.keys() & {"imagePath", "imageData"} for e in _entries(content)
    )


def _is_createml(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(entry.get("image"), str)
        and any("coordinates" in one for one in _entries(objects))
        for entry in _entries(content)
        for objects in [entry.get("annotations")]
        if isinstance(objects, list)
    )


def _is_labelbox(content: Any) -> bool:
    return any("Labeled Data" in e or _has(e, data_row=dict) for e in _entries(content))


def _is_label_studio(content: Any) -> bool:
    lists = {"annotations", "completions", "predictions", "result"}
    return any(
        (_has(e, data=dict) and e.keys() & lists) or e.keys() >= {"annotation_id", "annotator"}
        for e in _entries(content)
    )


def _is_results(content: Any) -> bool:
    return isinstance(content, list) and any(
        {"image_id", "score"} <= e.keys() for e in _entries(content)
    )


def _is_bare_list(content: Any) -> bool:
    keys = {"image_id", "category_id"}
    return isinstance(content, list) and any(keys <= e.keys() for e in _entries(content))


_OF_JSON: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (_is_via, _VIA),
    (is_labelme, LABELME),
    (_is_createml, f"is CreateML's: {_EXPORT} (in Roboflow the format COCO)"),
    (_is_labelbox, _LABELBOX),
    (_is_label_studio, "is Label Studio's own JSON: in Label Studio choose Export > COCO"),
    (
        _is_results,
        "is a list of detections with scores, as an evaluation writes: give the annotations of the images",
    ),
    (
        _is_bare_list,
        "is a list of annotations alone, without images and categories: export the whole as COCO",
    ),
)


def _lines(head: bytes) -> list[str]:
    """The first lines that hold something; the last may be cut off where the bytes end."""
    lines = (line.strip() for line in head.decode("utf-8-sig", "replace").splitlines())
    return list(itertools.islice(filter(None, lines), _SAMPLE))


def _is_zip(head: bytes) -> bool:
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def _is_gzip(head: bytes) -> bool:
    return head.startswith(b"\x1f\x8b")


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")


def _root_element(head: bytes) -> str:
    """Name of the first element of XML or HTML, in small letters; "" of what is neither."""
    text = re.sub(r"(?s)<\?.*?\?>|<!--.*?-->", "", head.decode("utf-8", "replace")).lstrip()
    match = re.match(r"<!?([A-Za-z]\w*)", text)
    return match[1].lower() if match else ""


def _is_cvat(head: bytes) -> bool:
    return _root_element(head) == "annotations"


def _is_voc(head: bytes) -> bool:
    return _root_element(head) == "annotation"


def _is_markup(head: bytes) -> bool:
    return bool(_root_element(head))


def _records(head: bytes) -> list[Any]:
    """The objects of a file with a JSON object on each line; none of another file."""
    lines = _lines(head)
    try:
        first = parse_json(lines[0].encode()) if len(lines) > 1 else None
    except (ValueError, RecursionError):
        return []
    # The others may be cut off.
    return [first] if isinstance(first, dict) and all(x.startswith("{") for x in lines) else []


def _is_labelbox_lines(head: bytes) -> bool:
    return _is_labelbox(_records(head))


def _is_ndjson(head: bytes) -> bool:
    return bool(_records(head))


def is_yolo(head: bytes) -> bool:
    """A class's number, and a box or polygon in shares of the image."""
    line = re.compile(r"\d+(\.0*)?(\s+[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?){4,}")
    lines = _lines(head)
    return bool(lines) and all(map(line.fullmatch, lines))


def _is_via_csv(head: bytes) -> bool:
    return any("region_shape_attributes" in line for line in _lines(head)[:1])


def _is_csv(head: bytes) -> bool:
    """Two columns at least in each of the first lines, as many as in the header, which has no numbers."""
    header, *rows = _lines(head)[:3] or [""]
    if not rows or header[0] in "{[<":
        return False
    return any(
        header.count(mark) > 1
        and not re.search(rf"(^|{mark})\s*[\d.]+\s*({mark}|$)", header)
        and all(row.count(mark) >= header.count(mark) for row in rows)
        for mark in ",;\t"
    )


_OF_BYTES: tuple[tuple[Callable[[bytes], bool], str], ...] = (
    (_is_zip, "is a zip archive: unpack it and give what is inside"),
    (_is_gzip, "is packed with gzip: unpack it and give what is inside"),
    (_is_pickle, "is a Python pickle, which is not read: save the annotations as COCO's JSON"),
    (
        _is_cvat,
        "is CVAT's XML: in CVAT choose Actions > Export task dataset and the format COCO 1.0",
    ),
    (_is_voc, VOC),
    (_is_markup, f"is XML or a web page, not COCO's JSON: {_EXPORT}"),
    (_is_labelbox_lines, _LABELBOX),
    (_is_ndjson, f"has a JSON object on each line (ndjson), not COCO's one: {_EXPORT}"),
    (is_yolo, YOLO),
    (_is_via_csv, _VIA),
    (_is_csv, f"is a table (CSV), not COCO's JSON: {_EXPORT}"),
)
