"""Detectron2's dataset mapper, several times as fast and with the same result."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from PIL import Image

from .decoding import read_image
from .instances import UnusualAnnotationError, transform_instances
from .resizing import resize

# What these draw depends on the image's size alone, and what they give is one of ResizeTransform,
# HFlipTransform, VFlipTransform and NoOpTransform.
_BLIND = (T.RandomFlip, T.Resize, T.ResizeScale, T.ResizeShortestEdge)
_KNOWN = {T.ResizeTransform, T.HFlipTransform, T.VFlipTransform, T.NoOpTransform}


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
