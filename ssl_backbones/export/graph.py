"""A detector as one graph: from an image's pixels to boxes, scores, classes and masks of the image's size."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO
from unittest import mock

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import boxes as nms

from ..fast.pooling.roi_pooler import FastROIPooler

OPSET = 17  # the first with all that a Mask R-CNN is made of


class Graph(nn.Module):
    """What is traced.

    Args:
        model: a detector of Detectron2's that gives instances, in evaluation.
        fixed: height and width of its images where it takes no others; None where it takes any.
        loops: paste masks one after the other, each in its own box, which a trace for ONNX cannot say.
    """

    def __init__(self, model: nn.Module, fixed: Sequence[int] | None, loops: bool):
        super().__init__()
        for module in model.modules():
            if isinstance(module, FastROIPooler):
                module.__class__ = ROIPooler  # the same parts, and operators that an exporter knows
        self.model, self._fixed, self._loops = model, fixed, loops
        self._of_size = torch.jit.script(_of_size)
        self._paste = torch.jit.script(_paste_each) if loops else _paste_all
        self.eval().requires_grad_(False)

    def forward(
        self, pixels: Tensor, sizes: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (N, 4), scores (N,), classes (N,) and masks (N, H, W), of an image that was resized.

        Args:
            pixels: (3, h, w), from 0 to 255 in the model's channel order.
            sizes: (4,) of H and W, then what of h and w is no padding.
            threshold: (), least score.
        """
        if self._fixed is not None:
            pixels = self._of_size(pixels, *self._fixed)
        images = self.model.preprocess_image([{"image": pixels}])
        images.image_sizes = [(sizes[2], sizes[3])]
        features = self.model.backbone(images.tensor)
        proposals, _ = self.model.proposal_generator(images, features, None)
        with changed(self.model.roi_heads.box_predictor, test_score_thresh=threshold):
            found = self._find(images, features, proposals)
        sides = sizes.to(torch.float32)
        limit = torch.stack([sides[1], sides[0]]).repeat(2)
        scale = limit / torch.stack([sides[3], sides[2]]).repeat(2)
        boxes = torch.minimum((found.pred_boxes.tensor * scale).clamp(min=0), limit)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, classes = boxes[kept], found.scores[kept], found.pred_classes[kept]
        if found.has("pred_masks"):
            masks = self._paste(found.pred_masks[kept], boxes, sizes[0], sizes[1])
        else:
            masks = torch.zeros(0, 0, 0, dtype=torch.bool)
        return boxes, scores, classes, masks

    def _find(self, images: ImageList, features: dict, proposals: list[Instances]) -> Instances:
        heads = self.model.roi_heads
        if self._loops or not heads.mask_on:
            return heads(images, features, proposals, None)[0][0]
        # ONNX's reshapes, as a GroupNorm's, fail where nothing is found: one more box is given and taken.
        with changed(heads, mask_on=False):
            (found,), _ = heads(images, features, proposals, None)
        whole = Instances(found.image_size)
        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        whole.pred_boxes = Boxes(torch.cat([found.pred_boxes.tensor, box]))
        whole.pred_classes = torch.cat([found.pred_classes, torch.zeros(1, dtype=torch.int64)])
        (whole,) = heads.forward_with_given_boxes(features, [whole])
        found.pred_masks = whole.pred_masks[:-1]
        return found


def _of_size(pixels: Tensor, height: int, width: int) -> Tensor:
    fits = pixels.shape[1] == height and pixels.shape[2] == width
    assert fits, f"this detector takes images of {height} x {width}: pad with its mean"
    return pixels


def _paste_each(masks: Tensor, boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """As detectron2.layers.mask_ops pastes on a CPU: what lies outside of a box is never looked at."""
    high, wide = int(height), int(width)
    pasted = torch.zeros([masks.shape[0], high, wide], dtype=torch.bool)
    for number in range(masks.shape[0]):
        x0, y0, x1, y1 = boxes[number, 0], boxes[number, 1], boxes[number, 2], boxes[number, 3]
        left, top = max(int(torch.floor(x0)) - 1, 0), max(int(torch.floor(y0)) - 1, 0)
        right, bottom = min(int(torch.ceil(x1)) + 1, wide), min(int(torch.ceil(y1)) + 1, high)
        rows = (torch.arange(top, bottom).to(boxes.dtype) + 0.5 - y0) / (y1 - y0) * 2 - 1
        columns = (torch.arange(left, right).to(boxes.dtype) + 0.5 - x0) / (x1 - x0) * 2 - 1
        across = columns[None, :].expand(rows.shape[0], columns.shape[0])
        down = rows[:, None].expand(rows.shape[0], columns.shape[0])
        grid = torch.stack([across, down], dim=-1)[None]
        part = F.grid_sample(masks[number : number + 1], grid, align_corners=False)
        pasted[number, top:bottom, left:right] = part[0, 0] >= 0.5
    return pasted


def _paste_all(masks: Tensor, boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """The same of all at once, over the whole image."""
    x0, y0, x1, y1 = (side[:, None] for side in boxes.unbind(dim=1))
    rows = (torch.arange(height).to(boxes.dtype)[None] + 0.5 - y0) / (y1 - y0) * 2 - 1
    columns = (torch.arange(width).to(boxes.dtype)[None] + 0.5 - x0) / (x1 - x0) * 2 - 1
    across = columns[:, None, :].expand(-1, rows.shape[1], -1)
    down = rows[:, :, None].expand(-1, -1, columns.shape[1])
    grid = torch.stack([across, down], dim=-1)
    return F.grid_sample(masks, grid, align_corners=False)[:, 0] >= 0.5


def trace(
    model: nn.Module,
    pixels: Tensor,
    sizes: Tensor,
    threshold: Tensor,
    fixed: Sequence[int] | None = None,
) -> torch.jit.ScriptModule:
    """For `torch.jit.save`; of any size of image where nothing in the model depends on it."""
    with _tracing(), contextlib.ExitStack() as stack:
        chosen = torch.jit.script(_batched_nms)
        for name in ("proposal_generator.proposal_utils", "roi_heads.fast_rcnn"):
            stack.enter_context(mock.patch(f"detectron2.modeling.{name}.batched_nms", chosen))
        graph = Graph(model, fixed, loops=True)
        return torch.jit.trace(graph, (pixels, sizes, threshold), check_trace=False)


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """As torchvision chooses on a CPU, which in a trace takes the second for any number of boxes."""
    if boxes.numel() > 4000:
        return nms._batched_nms_vanilla(boxes, scores, idxs, iou_threshold)
    return nms._batched_nms_coordinate_trick(boxes, scores, idxs, iou_threshold)


def write_onnx(
    model: nn.Module, pixels: Tensor, sizes: Tensor, threshold: Tensor, file: BinaryIO
) -> None:
    """Of the one size of `pixels`."""
    with _tracing():
        torch.onnx.export(
            Graph(model, None, loops=False),
            (pixels, sizes, threshold),
            file,
            opset_version=OPSET,
            input_names=["pixels", "sizes", "threshold"],
            output_names=["boxes", "scores", "classes", "masks"],
            dynamo=False,  # the newer exporter fails on a guard that depends on data
        )


_COUNTING = (
    "proposal_generator.proposal_utils",
    "roi_heads.fast_rcnn",
    "roi_heads.mask_head",
    "poolers",
)
"""Modules below detectron2.modeling that count instances by `len`, a constant in a trace."""


@contextlib.contextmanager
def _tracing() -> Iterator[None]:
    """Counts as tensors, as `patch_builtin_len` of detectron2.export (which needs caffe2) makes them.

    A trace warns of every comparison in Detectron2; whether it holds is what the images tell.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in _COUNTING:
            place = f"detectron2.modeling.{name}.len"
            stack.enter_context(mock.patch(place, lambda one: one.__len__(), create=True))
        stack.enter_context(torch.no_grad())
        yield


@contextlib.contextmanager
def changed(module: nn.Module, **values: object) -> Iterator[None]:
    """With other values for a while."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
