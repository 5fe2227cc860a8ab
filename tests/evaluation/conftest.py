"""A detector whose detections are known."""

import json
import os
import signal
from pathlib import Path

import pytest
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


@pytest.fixture(scope="session")
def annotation_file(digits) -> Path:
    from detectron2.data import MetadataCatalog

    import ssl_backbones.data  # noqa: F401 (registers digits_test)

    return Path(MetadataCatalog.get("digits_test").json_file)


@pytest.fixture(scope="session")
def oracle(annotation_file):
    """Makes an `Oracle` for the digits."""
    content = json.loads(annotation_file.read_text())
    ids = sorted(category["id"] for category in content["categories"])
    by_image = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        found = {**annotation, "class": ids.index(annotation["category_id"])}
        by_image[annotation["image_id"]].append(found)
    return lambda **options: Oracle(by_image, **options)


@pytest.fixture
def cfg(annotation_file, tmp_path):
    """The MoCo recipe, its test set the digits."""
    from ssl_backbones.engine.config import load_config

    names = "dataloader.test.dataset.names=digits_test"
    return load_config(
        "moco_1x", [names, "dataloader.test.num_workers=0", f"train.output_dir={tmp_path}"]
    )
