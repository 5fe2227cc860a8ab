"""The part of a COCO file that Detectron2 reads, as msgspec decodes it: the rest is skipped, not kept."""

from __future__ import annotations

from typing import Any

import msgspec


# Values are Any: whatever stands there, Detectron2 hands on. No field is part of a reference cycle.
class Image(msgspec.Struct, gc=False):
    id: Any
    file_name: Any
    height: Any
    width: Any


class Annotation(msgspec.Struct, gc=False):
    """`msgspec.UNSET` stands for a key that is not there where null would be another thing."""

    id: Any
    image_id: Any
    category_id: Any
    iscrowd: Any = msgspec.UNSET
    bbox: Any = msgspec.UNSET
    segmentation: Any = None
    keypoints: Any = msgspec.UNSET
    ignore: Any = 0


class Content(msgspec.Struct, gc=False):
    images: list[Image]
    categories: list[dict[str, Any]]
    annotations: list[Annotation] = []


_DECODER = msgspec.json.Decoder(Content)


def decode(data: bytes) -> Content:
    """Decode a file's bytes.

    Raises:
        ValueError: it is not JSON, or not of COCO's form.
    """
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
