"""Detectron2's dataset mapper, several times as fast and with the same result."""

from __future__ import annotations

import copy
import functools
import io
import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import filter_empty_instances
from detectron2.structures import Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..acceleration import optional
from .resizing import resize

logger = logging.getLogger(__name__)


_START = b"\xff\xd8\xff"  # of a JPEG file: its first marker, and the beginning of the next
_BASELINE, _SCAN, _JFIF, _ICC = 0xC0, 0xDA, 0xE0, 0xE2
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)  # Huffman and quantization tables, restart interval, comment
_OTHERS = range(0xE1, 0xF0)  # application data, in which Pillow may find an orientation
# Of all components, the first of which is luma: 4:4:4, 4:2:2, 4:2:0; then gray. Others are rare and decoders
# upsample them differently.
_SAMPLINGS = ((0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11), (0x11,))
_ORIENTATION = 274  # EXIF's tag


def read_image(file_name: str, format: str) -> np.ndarray:
    """Read an image like `detectron2.data.detection_utils.read_image`: the same pixels, the same errors.

    A baseline JPEG of 8 bits that is gray or of three components is decoded by simplejpeg, if that is
    installed. Any other file, and one that is damaged or that EXIF says to turn, is left to Detectron2.

    Args:
        format: "RGB" or "BGR".

    Returns:
        uint8 (H, W, 3).
    """
    decoder = _decoder()
    if decoder is not None:
        with PathManager.open(file_name, "rb") as file:
            start = file.read(len(_START))
            data = start + file.read() if start == _START else b""
        if data and _is_usual(data):
            try:
                return decoder.decode_jpeg(data, format)
            except ValueError:
                # Damaged, or not quite as the standard has it: what Detectron2 says to it counts.
                pass
    return detection_utils.read_image(file_name, format)


def _is_usual(data: bytes) -> bool:
    """Whether Pillow and simplejpeg see the same in these bytes, and no orientation has to be applied."""
    plain, frame = True, b""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        marker = data[position + 1]
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : end]
        if marker == _SCAN:
            return _is_usual_frame(frame) and (plain or _is_upright(data))
        if marker == _BASELINE and not frame:
            frame = segment
        elif (marker == _JFIF and segment[:5] == b"JFIF\0" and len(segment) >= 12) or (
            marker == _ICC and segment[:12] == b"ICC_PROFILE\0" and len(segment) >= 14
        ):
            pass
        elif marker == _JFIF or marker in _OTHERS:
            plain = False
        elif marker not in _TABLES:
            return False  # progressive, among others
        position = end
    return False


def _is_usual_frame(frame: bytes) -> bool:
    if len(frame) not in (9, 15) or frame[0] != 8 or frame[5] != len(frame[6:]) // 3:
        return False
    height, width = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    # Pillow refuses larger ones, or warns.
    fits = Image.MAX_IMAGE_PIXELS is None or height * width <= Image.MAX_IMAGE_PIXELS
    return fits and tuple(frame[7::3]) in _SAMPLINGS


def _is_upright(data: bytes) -> bool:
    """Whether Pillow takes the file for a plain JPEG that is not to be turned; reads its headers only."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format == "JPEG" and image.getexif().get(_ORIENTATION, 1) == 1
    except Exception:
        return False  # Detectron2's own attempt will tell what is wrong


@functools.cache
def _decoder() -> ModuleType | None:
    """Simplejpeg, where it is installed and decodes as Pillow does; their libjpeg may differ."""
    simplejpeg = optional("simplejpeg", "Reading JPEG files")
    if simplejpeg is None:
        return None
    noise = np.random.default_rng(0).integers(256, size=(33, 50, 3), dtype=np.uint8)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "JPEG", quality=90, subsampling=subsampling)
        if (simplejpeg.decode_jpeg(file.getvalue()) != np.asarray(Image.open(file))).any():
            logger.warning(
                "this Pillow decodes JPEG unlike simplejpeg: files are left to it, slowly"
            )
            return None
    return simplejpeg


# What these draw depends on the image's size alone, and what they give is one of ResizeTransform,
# HFlipTransform, VFlipTransform and NoOpTransform.
_BLIND = (T.RandomFlip, T.Resize, T.ResizeScale, T.ResizeShortestEdge)
_KNOWN = {T.ResizeTransform, T.HFlipTransform, T.VFlipTransform, T.NoOpTransform}

EMPTY = 1e-5
"""Width or height in pixels up to which Detectron2 takes a box for empty."""


class FastDatasetMapper(DatasetMapper):
    """A `DatasetMapper` whose every output equals Detectron2's: pixels, boxes, polygons, random draws.

    Fast are images in RGB or BGR, resized and flipped by Detectron2's own `ResizeShortestEdge`,
    `ResizeScale`, `Resize` and `RandomFlip`, with boxes and polygons. With any other augmentation or
    image format everything, and with keypoints, run-length masks or bit masks the annotations, are done by
    Detectron2's code; so are they by a subclass's own `_transform_annotations`.

    Args:
        is_train, options: as in `DatasetMapper`, or a config instead, as there.
        exact: False allows pixels to be off by 1, of 255, where that is faster: see `resizing.resize`.
    """

    @configurable
    def __init__(self, is_train: bool, *, exact: bool = True, **options: Any):
        super().__init__(is_train, **options)
        self.exact = exact

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one image of Detectron2's dataset format, which is left as it is."""
        if not self._is_fast():
            return super().__call__(dataset_dict)
        output = copy.deepcopy({k: v for k, v in dataset_dict.items() if k != "annotations"})
        image = read_image(output["file_name"], self.image_format)
        detection_utils.check_image_size(output, image)
        sem_seg = None
        if "sem_seg_file_name" in output:
            sem_seg = detection_utils.read_image(output.pop("sem_seg_file_name"), "L").squeeze(2)
        transforms = self._draw(*image.shape[:2])
        output["image"] = self._transform_image(image, transforms)
        if sem_seg is not None:
            sem_seg = transforms.apply_segmentation(sem_seg)
            output["sem_seg"] = torch.as_tensor(sem_seg.astype("long"))
        image_size = tuple(output["image"].shape[1:])
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(
                output, image_size, transforms, proposal_topk=self.proposal_topk
            )
        if self.is_train and "annotations" in dataset_dict:
            output["annotations"] = dataset_dict["annotations"]
            if type(self)._transform_annotations is not FastDatasetMapper._transform_annotations:
                output["annotations"] = copy.deepcopy(output["annotations"])
            self._transform_annotations(output, transforms, image_size)
        return output

    def _is_fast(self) -> bool:
        return (
            self.image_format in ("RGB", "BGR")
            and type(self.augmentations) is T.AugmentationList
            and all(type(augmentation) in _BLIND for augmentation in self.augmentations.augs)
        )

    def _draw(self, height: int, width: int) -> T.TransformList:
        """Let the augmentations draw, as they would if each were given the image that the last one left."""
        transforms = []
        for augmentation in self.augmentations.augs:
            # Of an image's size, without its memory.
            image = np.broadcast_to(np.uint8(0), (height, width, 3))
            transforms.append(augmentation.get_transform(image))
            if isinstance(transforms[-1], T.ResizeTransform):
                height, width = transforms[-1].new_h, transforms[-1].new_w
        return T.TransformList(transforms)

    def _transform_image(self, image: np.ndarray, transforms: T.TransformList) -> torch.Tensor:
        """Apply transforms to uint8 (H, W, 3); returns uint8 (3, new H, new W)."""
        resizes = [t for t in transforms.transforms if isinstance(t, T.ResizeTransform)]
        if len(resizes) != 1 or resizes[0].interp != Image.Resampling.BILINEAR:
            image = transforms.apply_image(image)
            return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        position = transforms.transforms.index(resizes[0])
        for transform in transforms.transforms[:position]:
            image = transform.apply_image(image)
        flips = [type(transform) for transform in transforms.transforms[position + 1 :]]
        return resize(
            image,
            resizes[0].new_h,
            resizes[0].new_w,
            hflip=flips.count(T.HFlipTransform) % 2 == 1,
            vflip=flips.count(T.VFlipTransform) % 2 == 1,
            exact=self.exact,
        )

    def _transform_annotations(
        self,
        dataset_dict: dict[str, Any],
        transforms: T.TransformList,
        image_shape: tuple[int, int],
    ) -> None:
        """Put "instances" in the place of "annotations", which themselves are left as they are."""
        annotations = dataset_dict["annotations"]
        polygons = not self.use_instance_mask or self.instance_mask_format == "polygon"
        try:
            if self.use_keypoint or not polygons:
                raise UnusualAnnotationError("keypoints or bit masks")
            # Detectron2's own __call__ comes here as well, with crops, which cut polygons.
            if not _KNOWN.issuperset(map(type, transforms.transforms)):
                raise UnusualAnnotationError("transforms that may change each coordinate otherwise")
            instances = transform_instances(
                [annotation for annotation in annotations if annotation.get("iscrowd", 0) == 0],
                transforms,
                image_shape,
                masks=self.use_instance_mask,
                recompute_boxes=self.recompute_boxes,
            )
        except (UnusualAnnotationError, OverflowError):
            dataset_dict["annotations"] = copy.deepcopy(annotations)
            super()._transform_annotations(dataset_dict, transforms, image_shape)
        else:
            del dataset_dict["annotations"]
            dataset_dict["instances"] = instances


class UnusualAnnotationError(ValueError):
    """Annotations that only Detectron2's own functions can transform, or refuse in their own words."""


def transform_instances(
    annotations: Sequence[Mapping[str, Any]],
    transforms: T.TransformList,
    image_size: tuple[int, int],
    *,
    masks: bool,
    recompute_boxes: bool = False,
) -> Instances:
    """Make what Detectron2's `transform_instance_annotations` and `annotations_to_instances` make of them.

    Empty instances are filtered out, as by `filter_empty_instances`. The results are equal to the last bit.

    Args:
        annotations: of instances that are no crowds, in Detectron2's dataset format; they stay as they are.
        transforms: those that change a coordinate alike wherever it stands, such as resizing and flipping.
        image_size: the height and width of the transformed image.
        masks: whether polygons are wanted.
        recompute_boxes: whether boxes are those of the polygons.

    Raises:
        UnusualAnnotationError: masks that are no polygons, boxes that are not lists of four numbers and the
            like; nothing was changed.
        OverflowError: whole numbers beyond 64 bits.
    """
    height, width = image_size
    boxes = _transform_boxes(annotations, transforms)
    boxes = np.minimum(boxes.clip(min=0), [width, height, width, height])
    instances = Instances(image_size)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.tensor(
        [int(annotation["category_id"]) for annotation in annotations], dtype=torch.int64
    )
    polygons: list[list[np.ndarray]] = []
    if masks and _have_masks(annotations):
        polygons = _transform_polygons([a["segmentation"] for a in annotations], transforms)
        instances.gt_masks = PolygonMasks(polygons)
    if recompute_boxes:
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
    # Filtering copies everything, though there is hardly ever anything to leave out.
    nonempty = instances.gt_boxes.nonempty(threshold=EMPTY).all() and all(polygons)
    return instances if nonempty else filter_empty_instances(instances, box_threshold=EMPTY)


def _transform_boxes(
    annotations: Sequence[Mapping[str, Any]], transforms: T.TransformList
) -> np.ndarray:
    """Boxes (N, 4) as x0, y0, x1, y1. Those of whole numbers stay such, since Detectron2 truncates them."""
    boxes = np.zeros((len(annotations), 4))
    groups: dict[tuple[bool, int], list[int]] = {}
    for index, annotation in enumerate(annotations):
        box, mode = annotation["bbox"], annotation["bbox_mode"]
        if (
            type(box) is not list
            or len(box) != 4
            or mode not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        ):
            raise UnusualAnnotationError("a box that is not a list of four, or of another mode")
        kinds = {type(number) for number in box}
        if not kinds <= {int, float}:
            raise UnusualAnnotationError("a box that is not of Python's numbers")
        groups.setdefault((kinds == {int}, mode), []).append(index)
    for (whole, mode), indexes in groups.items():
        group = [annotations[index]["bbox"] for index in indexes]
        if mode == BoxMode.XYXY_ABS:
            corners = np.array(group, np.int64 if whole else np.float64)
        else:
            # What is not whole goes through float32, as in BoxMode.convert.
            corners = np.array(group, np.int64 if whole else np.float32)
            corners[:, 2:] += corners[:, :2]
            corners = corners if whole else corners.astype(np.float64)
        boxes[indexes] = transforms.apply_box(corners)
    return boxes


def _have_masks(annotations: Sequence[Mapping[str, Any]]) -> bool:
    have = {"segmentation" in annotation for annotation in annotations}
    if len(have) > 1:
        raise UnusualAnnotationError("masks for some instances only")
    return have == {True}


def _transform_polygons(
    instances: Iterable[Any], transforms: T.TransformList
) -> list[list[np.ndarray]]:
    """Polygons x0, y0, x1, ... of each instance, float64, all points transformed at once."""
    arrays, counts = [], []
    for polygons in instances:
        if type(polygons) is not list:
            raise UnusualAnnotationError("a mask that is not a list of polygons")
        arrays.extend(np.asarray(polygon) for polygon in polygons)
        counts.append(len(polygons))
    # Polygons of whole numbers stay such, since Detectron2 truncates them.
    transformed: list[np.ndarray] = [np.empty(0)] * len(arrays)
    for dtype in {array.dtype for array in arrays}:
        if dtype not in (np.float64, np.int64):
            raise UnusualAnnotationError(f"polygons of {dtype}")
        indexes = [index for index, array in enumerate(arrays) if array.dtype == dtype]
        lengths = [arrays[index].size for index in indexes]
        if any(length % 2 or length < 6 for length in lengths):
            raise UnusualAnnotationError("a polygon of less than three points")
        points = np.concatenate([arrays[index].reshape(-1) for index in indexes]).reshape(-1, 2)
        flat = transforms.apply_coords(points).reshape(-1)
        stops = list(itertools.accumulate(lengths))
        for index, start, stop in zip(indexes, [0, *stops], stops, strict=False):
            transformed[index] = flat[start:stop]
    parts = iter(transformed)
    return [list(itertools.islice(parts, count)) for count in counts]
