"""COCO's own annotations, where they are, and thousands of detections: AP is pycocotools' to the last bit.

SSL_BACKBONES_REAL_DATA is that of test_real_data.py. Compared are `FastCOCOeval`, `FastCOCOEvaluator` and
Detectron2's `COCOEvaluator`, on the whole set and on parts that ask for something of their own.
"""

import contextlib
import copy
import io
import json
import os

import numpy as np
import pytest
import torch
from coco_files import forget
from coco_scenes import coco
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from jittered import detections_of
from pycocotools import mask as mask_util
from pycocotools.cocoeval import COCOeval

from ssl_backbones.fast.evaluation.coco_eval import FastCOCOeval
from ssl_backbones.fast.evaluation.coco_evaluator import FastCOCOEvaluator
from ssl_backbones.fast.evaluation.detections import Detections

FOLDER = os.environ.get("SSL_BACKBONES_REAL_DATA", "")
FILE = os.path.join(FOLDER, "coco_mini", "annotations", "instances_val2017.json")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")

pytestmark = pytest.mark.skipif(not FOLDER, reason="SSL_BACKBONES_REAL_DATA names no folder")


@pytest.fixture(scope="module")
def dataset():
    with open(FILE, encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def truth(dataset):
    """A new one for each evaluation: pycocotools changes masks in place."""
    return coco(dataset)


@pytest.fixture(scope="module", params=[0, 1])
def results(request, dataset):
    return detections_of(coco(dataset), request.param)


def test_the_detections_ask_for_everything(truth, results):
    of_image = {image: 0 for image in truth.getImgIds()}
    for one in results:
        of_image[one["image_id"]] += 1
    empty = {image for image in of_image if not truth.getAnnIds(image)}
    assert len(results) > 3000 and sorted(of_image.values())[-3] > 150
    assert empty and any(of_image[image] for image in empty)
    assert sum(mask_util.area(one["segmentation"]) == 0 for one in results) > 10
    assert len({one["score"] for one in results}) < len(results) / 2
    crowds = truth.loadAnns(truth.getAnnIds(iscrowd=1))
    assert {type(one["segmentation"]["counts"]) for one in crowds} == {list}


def whole(params, truth):
    pass


def fifty_images(params, truth):
    params.imgIds = truth.getImgIds()[::4][:50]


def images_without_an_object(params, truth):
    params.imgIds = [image for image in truth.getImgIds() if not truth.getAnnIds(image)]


def images_with_a_crowd(params, truth):
    crowds = truth.loadAnns(truth.getAnnIds(iscrowd=1))
    params.imgIds = sorted({one["image_id"] for one in crowds})


def one_class(params, truth):
    params.catIds = truth.getCatIds(catNms=["person"])


def one_class_in_fifty_images(params, truth):
    one_class(params, truth)
    fifty_images(params, truth)


def without_classes(params, truth):
    params.useCats = 0


def other_limits(params, truth):
    params.maxDets = [1, 10, 300]


PARTS = [
    whole,
    fifty_images,
    images_without_an_object,
    images_with_a_crowd,
    one_class,
    one_class_in_fifty_images,
    without_classes,
    other_limits,
]


def evaluated(kind, dataset, results, task, part=whole, packed=False):
    """As Detectron2 does: of masks, their own size counts and not that of the box."""
    truth, unused = coco(dataset), "bbox" if task == "segm" else "segmentation"
    results = [{key: one[key] for key in one if key != unused} for one in results]
    with contextlib.redirect_stdout(io.StringIO()):
        found = Detections.pack(results) if packed else truth.loadRes(results)
    return summarized(kind(truth, found, task), part)


def summarized(evaluation, part=whole):
    with contextlib.redirect_stdout(io.StringIO()):
        part(evaluation.params, evaluation.cocoGt)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal(ours, theirs):
    """All twelve numbers and what they are means of."""
    assert ours._matched is not None, "pycocotools has evaluated in place of hotcoco"
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(ours.eval[name], theirs.eval[name], strict=True)
    assert ours.stats.shape == (12,)
    np.testing.assert_array_equal(ours.stats, theirs.stats, strict=True)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_all_numbers_are_pycocotools(dataset, results, task, part):
    theirs = evaluated(COCOeval, dataset, results, task, part)
    for packed in (False, True):
        assert_equal(evaluated(FastCOCOeval, dataset, results, task, part, packed), theirs)
    if part is images_without_an_object:
        assert (theirs.stats == -1).all()
    else:
        # AP50: were nothing matched, or all of it, everything would be equal too.
        assert 0.05 < theirs.stats[1] < 0.95


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_where_crowds_are_all_there_is_nothing_counts(dataset, results, task):
    crowds = [one for one in dataset["annotations"] if one["iscrowd"]]
    only = {**dataset, "annotations": crowds}
    theirs = evaluated(COCOeval, only, results, task)
    assert_equal(evaluated(FastCOCOeval, only, results, task), theirs)
    assert (theirs.stats == -1).all()


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_crowds_matter(dataset, results, task):
    """Without them, what is found in them is wrong; equal there too, and other numbers than with them."""
    objects = [one for one in dataset["annotations"] if not one["iscrowd"]]
    without = {**dataset, "annotations": objects}
    theirs = evaluated(COCOeval, without, results, task)
    assert_equal(evaluated(FastCOCOeval, without, results, task), theirs)
    assert evaluated(COCOeval, dataset, results, task).stats[0] > theirs.stats[0]


def test_results_with_boxes_beside_the_masks_are_sized_by_the_box(dataset, results):
    """So does pycocotools itself with a results file, unlike Detectron2."""
    made = []
    for kind in (FastCOCOeval, COCOeval):
        truth = coco(dataset)
        with contextlib.redirect_stdout(io.StringIO()):
            found = truth.loadRes(copy.deepcopy(results))
        made.append(summarized(kind(truth, found, "segm")))
    assert_equal(*made)
    of_masks = evaluated(COCOeval, dataset, results, "segm")
    assert (made[1].eval["precision"] != of_masks.eval["precision"]).any()


@pytest.fixture(scope="module")
def registered():
    name = "coco_mini_val"
    register_coco_instances(name, _get_builtin_metadata("coco"), FILE, os.path.dirname(FILE))
    yield name
    forget(name)


@pytest.mark.parametrize("results", [0], indirect=True)
@pytest.mark.parametrize("part", [whole, fifty_images])
def test_both_evaluators_are_pycocotools_on_the_file_that_they_write(
    dataset, truth, results, registered, part, tmp_path
):
    chosen = COCOeval(truth).params
    part(chosen, truth)
    files, metrics = [], []
    for kind in (COCOEvaluator, FastCOCOEvaluator):
        folder = tmp_path / kind.__name__
        evaluator = kind(registered, output_dir=str(folder), use_fast_impl=False)
        evaluator.reset()
        for batch in batches(truth, results, MetadataCatalog.get(registered)):
            evaluator.process(*batch)
        metrics.append(evaluator.evaluate(None if part is whole else chosen.imgIds))
        files.append((folder / "coco_instances_results.json").read_bytes())
    assert files[0] == files[1]
    # NaN equals nothing.
    assert str(metrics[0]) == str(metrics[1])
    written = json.loads(files[1])
    assert len(written) == len(results)
    names = [one["name"] for one in truth.loadCats(truth.getCatIds())]
    for task in ("bbox", "segm"):
        theirs = evaluated(COCOeval, dataset, written, task, part)
        for name, value in zip(NAMES, theirs.stats, strict=False):
            assert metrics[1][task][name] == value * 100
        of_class = theirs.eval["precision"][:, :, :, 0, -1]
        for place, name in enumerate(names):
            defined = of_class[:, :, place][of_class[:, :, place] > -1]
            expected = np.mean(defined) * 100 if defined.size else float("nan")
            np.testing.assert_equal(metrics[1][task][f"AP-{name}"], expected)


def batches(truth, results, metadata):
    """What a model gets and gives, image by image."""
    of_image = {image: [] for image in truth.getImgIds()}
    for one in results:
        of_image[one["image_id"]].append(one)
    ids = metadata.thing_dataset_id_to_contiguous_id
    for image, found in of_image.items():
        height, width = truth.imgs[image]["height"], truth.imgs[image]["width"]
        given = Instances((height, width))
        boxes = torch.tensor([one["bbox"] for one in found]).reshape(-1, 4)
        given.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        given.scores = torch.tensor([one["score"] for one in found])
        given.pred_classes = torch.tensor([ids[one["category_id"]] for one in found]).long()
        masks = [mask_util.decode(one["segmentation"]) for one in found]
        masks = np.array(masks, bool).reshape(-1, height, width)
        given.pred_masks = torch.from_numpy(masks)
        yield [{"image_id": image, "height": height, "width": width}], [{"instances": given}]
