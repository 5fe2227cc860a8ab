"""How detections are drawn."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ssl_backbones.prediction.inputs import Item, Source
from ssl_backbones.prediction.output import Classes, draw_detections

# The first two of Detectron2's colours, (0.000, 0.447, 0.741) and (0.850, 0.325, 0.098) of 255.
BLUE, ORANGE = (0, 113, 188), (216, 82, 24)


def test_the_surest_detection_is_on_top():
    item = Item(Source("a.jpg"), None, np.zeros((400, 400, 3), dtype=np.uint8), {})
    for scores, colour in (([0.9, 0.3], BLUE), ([0.3, 0.9], ORANGE)):
        instances = Instances((400, 400))
        instances.pred_boxes = Boxes(torch.tensor([[100.0, 100.0, 200.0, 200.0]] * 2))
        instances.scores = torch.tensor(scores)
        instances.pred_classes = torch.tensor([0, 1])
        picture = draw_detections(item, instances, Classes(["a", "b"], [1, 2]))
        assert tuple(picture[199, 150]) == colour
