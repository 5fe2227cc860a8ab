"""A detector whose detections are known."""

import os
import signal

import torch
from detectron2.structures import Boxes, BoxMode, Instances


class Oracle(torch.nn.Module):
    """Detects every annotated object, its box shifted by some pixels and its mask that of the right box.

    Attributes:
        seen: ids of the images that it was given.
        killed_after: the process is killed at the image after that many.
    """

    def __init__(self, annotations, shift=2.0, killed_after=None):
        super().__init__()
        self.by_image = annotations
        self.register_buffer("shift", torch.tensor(shift))
        self.threshold = 0.0
        # Not public: they do not decide what is detected.
        self._seen, self._killed_after = [], killed_after

    @property
    def seen(self):
        return self._seen

    def forward(self, inputs):
        return [{"instances": self._detect(image)} for image in inputs]

    def _detect(self, image):
        if len(self._seen) == self._killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen.append(image["image_id"])
        found = self.by_image[image["image_id"]]
        boxes = torch.tensor(
            [BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in found]
        )
        result = Instances((image["height"], image["width"]))
        result.pred_boxes = Boxes(boxes + self.shift)
        result.scores = torch.linspace(0.9, 0.5, len(found))
        result.pred_classes = torch.tensor([a["class"] for a in found])
        masks = torch.zeros(len(found), image["height"], image["width"], dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        result.pred_masks = masks
        return result[result.scores > self.threshold]
