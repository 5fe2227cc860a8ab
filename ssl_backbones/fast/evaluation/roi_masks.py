"""A detector's masks handed on as it predicts them, 28 x 28 a box, instead of pasted into images."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances, ROIMasks
from torch import nn


class WithRoiMasks(nn.Module):
    """`model` as it is, but for `pred_masks`, which become Detectron2's `ROIMasks`.

    An image of 800 x 1333 pixels with 100 detections needs 107 MB of pasted masks, and 0.3 MB of these.
    `FastCOCOEvaluator` takes both:

        inference_on_dataset(WithRoiMasks(model), loader, FastCOCOEvaluator("coco_2017_val"))

    It encodes them with the CPU's arithmetic. Of a model on a GPU, where Detectron2 pastes with the GPU's, a
    pixel whose value lies within about 1e-6 of the threshold may fall on the other side.

    Raises:
        ValueError: `model` postprocesses in its own way, see `has_usual_postprocessing`.
    """

    def __init__(self, model: GeneralizedRCNN):
        super().__init__()
        if not has_usual_postprocessing(model):
            raise ValueError(f"{type(model).__name__} does not postprocess as GeneralizedRCNN does")
        self.model = model
        # Whoever turns training off for an evaluation turns on again what was on.
        self.training = model.training

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """As `GeneralizedRCNN.forward`."""
        if self.training:
            return self.model(batched_inputs)
        found = self.model.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": postprocess(instances, image)}
            for instances, image in zip(found, batched_inputs, strict=True)
        ]


def has_usual_postprocessing(model: nn.Module) -> bool:
    """Whether what a model finds is what its `inference` finds, made up by `detector_postprocess`."""
    kind = type(model)
    return (
        isinstance(model, GeneralizedRCNN)
        and all(
            getattr(kind, name) is getattr(GeneralizedRCNN, name)
            for name in ("forward", "inference")
        )
        and not (model._forward_hooks or model._forward_pre_hooks)
    )


def postprocess(instances: Instances, image: dict[str, Any]) -> Instances:
    """As Detectron2's `detector_postprocess` to the size that the image had, without pasting masks."""
    size = instances.image_size
    height, width = image.get("height", size[0]), image.get("width", size[1])
    if not instances.has("pred_masks"):
        return detector_postprocess(instances, height, width)
    masks = instances.pred_masks
    fields = {name: value for name, value in instances.get_fields().items() if name != "pred_masks"}
    # Under another name, they are filtered with the boxes and left alone.
    fields["_roi_masks"] = masks if isinstance(masks, ROIMasks) else ROIMasks(masks[:, 0])
    done = detector_postprocess(Instances(size, **fields), height, width)
    done.pred_masks = done.get("_roi_masks")
    done.remove("_roi_masks")
    return done
