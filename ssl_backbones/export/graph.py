"""A detector as one graph: from an image's pixels to boxes, scores, classes and masks of the image's size."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO
from unittest import mock

import torch
from detectron2.modeling.roi_heads import fast_rcnn, mask_head
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import boxes as box_ops

OPSET = 17  # the first with all that a Mask R-CNN is made of


class Graph(nn.Module):
    """What is traced.

    Args:
        model: a detector of Detectron2's that gives instances, in evaluation.
        fixed: height and width of its images where it takes no others; None where it takes any.
    """

    def __init__(self, model: nn.Module, fixed: Sequence[int] | None):
        super().__init__()
        self.model, self._fixed = model, fixed
        self._of_size, self._paste = torch.jit.script(_of_size), torch.jit.script(_paste)
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
        with mock.patch.object(self.model.roi_heads.box_predictor, "test_score_thresh", threshold):
            found = self._find(images, features, proposals)
        sides = sizes.to(torch.float32)
        limit = torch.stack([sides[1], sides[0]]).repeat(2)
        scale = limit / torch.stack([sides[3], sides[2]]).repeat(2)
        boxes = torch.minimum((found.pred_boxes.tensor * scale).clamp(min=0), limit)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, classes = boxes[kept], found.scores[kept], found.pred_classes[kept]
        if found.has("pred_masks"):
            masks = self._paste(found.pred_masks[kept, 0], boxes, sizes[0], sizes[1])
        else:
            masks = torch.zeros(0, 0, 0, dtype=torch.bool)
        return boxes, scores, classes, masks

    def _find(self, images: ImageList, features: dict, proposals: list[Instances]) -> Instances:
        heads = self.model.roi_heads
        if not getattr(heads, "mask_on", False):
            return heads(images, features, proposals, None)[0][0]
        # ONNX's reshapes, as a GroupNorm's, fail where nothing is found: one more box is given and taken.
        with mock.patch.object(heads, "mask_on", False):
            (found,), _ = heads(images, features, proposals, None)
        boxes = Boxes(F.pad(found.pred_boxes.tensor, (0, 0, 0, 1), value=1.0))
        classes = F.pad(found.pred_classes, (0, 1))
        whole = Instances(found.image_size, pred_boxes=boxes, pred_classes=classes)
        (whole,) = heads.forward_with_given_boxes(features, [whole])
        found.pred_masks = whole.pred_masks[:-1]
        return found


def _of_size(pixels: Tensor, height: int, width: int) -> Tensor:
    fits = pixels.shape[1] == height and pixels.shape[2] == width
    assert fits, f"this detector takes images of {height} x {width}: pad with its mean"
    return pixels


def _paste(masks: Tensor, boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """(N, H, W) of masks (N, M, M) in their boxes, bilinear and cut at 0.5 as detectron2.layers.mask_ops.

    Bilinear is first down, then across: two products of matrices, in which what is far off counts nothing.
    One mask at a time, since numbers of all of them would take four times the memory of the result.
    Outside of its box a mask is less than 0.5 everywhere.
    """
    down = _shares(boxes[:, 1], boxes[:, 3], height, masks.shape[1])
    across = _shares(boxes[:, 0], boxes[:, 2], width, masks.shape[2]).transpose(1, 2)
    starts, ends = boxes[:, :2].floor().to(torch.int64), boxes[:, 2:].ceil().to(torch.int64)
    pasted = torch.zeros([masks.shape[0], int(height), int(width)], dtype=torch.bool)
    for number in range(masks.shape[0]):
        left, top = int(starts[number, 0]), int(starts[number, 1])
        right, bottom = int(ends[number, 0]), int(ends[number, 1])
        part = down[number, top:bottom] @ masks[number] @ across[number, :, left:right]
        pasted[number, top:bottom, left:right] = part >= 0.5
    return pasted


def _shares(start: Tensor, end: Tensor, side: Tensor, cells: int) -> Tensor:
    """(N, side, cells): what each cell of a mask counts in each row, or column, of the image."""
    places = torch.arange(side).to(start.dtype) + 0.5
    inside = (places - start[:, None]) / (end - start)[:, None] * cells - 0.5
    return (1 - (inside[:, :, None] - torch.arange(cells)).abs()).clamp(min=0)


def trace(
    model: nn.Module, given: Sequence[Tensor], fixed: Sequence[int] | None = None
) -> torch.jit.ScriptModule:
    """For `torch.jit.save`; of any size of image where nothing in the model depends on it.

    Args:
        given: pixels, sizes and threshold of an image.
    """
    # In a trace torchvision takes one way for few boxes and for many; as a script it chooses each time.
    chosen = torch.jit.script(box_ops.batched_nms)
    with _tracing(), mock.patch.object(box_ops, "batched_nms", chosen):
        return torch.jit.trace(Graph(model, fixed), tuple(given), check_trace=False)


def write_onnx(model: nn.Module, given: Sequence[Tensor], file: BinaryIO) -> None:
    """The same, of the one size of the given pixels."""
    with _tracing():
        torch.onnx.export(
            Graph(model, None),
            tuple(given),
            file,
            opset_version=OPSET,
            input_names=["pixels", "sizes", "threshold"],
            output_names=["boxes", "scores", "classes", "masks"],
            dynamo=False,  # the newer exporter fails on a guard that depends on data
        )


@contextmanager
def _tracing() -> Iterator[None]:
    """Counts as tensors, as `patch_builtin_len` of detectron2.export (which needs caffe2) makes them.

    A trace warns of every comparison in Detectron2; whether it holds is what the images tell.
    """
    counted = {"len": lambda one: one.__len__(), "create": True}
    with (
        warnings.catch_warnings(),
        mock.patch.multiple(fast_rcnn, **counted),
        mock.patch.multiple(mask_head, **counted),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        yield
