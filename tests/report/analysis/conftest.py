"""The independent source of numbers."""

import contextlib
import io

import pytest
from coco_scenes import coco
from pycocotools.cocoeval import COCOeval


@pytest.fixture(scope="session")
def pycocotools():
    """`COCOeval` of results; as in Detectron2, it is the size of a mask that counts and not its box's."""

    def evaluate(dataset, results, task, image_ids=None):
        other = {"bbox": "segmentation", "segm": "bbox"}[task]
        with contextlib.redirect_stdout(io.StringIO()):
            truth = coco(dataset)
            found = truth.loadRes([{k: v for k, v in one.items() if k != other} for one in results])
            evaluation = COCOeval(truth, found, task)
            if image_ids:
                evaluation.params.imgIds = image_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation

    return evaluate
