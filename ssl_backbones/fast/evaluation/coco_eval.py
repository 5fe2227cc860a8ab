"""COCO's average precision to the last bit of pycocotools, many times as fast: hotcoco where it is equal."""

from __future__ import annotations

import contextlib
import copy
import datetime
import gc
import logging
import os
from collections.abc import Iterator
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from ..acceleration import numba_or_none, optional
from .detections import Detections, Irregular, Strings, first_damaged

logger = logging.getLogger(__name__)

# What becomes of a detection at an IoU threshold.
FALSE, TRUE, IGNORED = 0, 1, 2
_CODES = {"fp": FALSE, "tp": TRUE, "ignored": IGNORED}

_process: int | None = None
"""The first that evaluated with hotcoco, whose threads are only there."""


class FastCOCOeval(COCOeval):
    """pycocotools' `COCOeval` by hotcoco: precision, recall, scores and statistics equal to the last bit.

    It differs in time and memory only. Where hotcoco is not known to be equal, pycocotools itself evaluates:
    keypoints, unsorted `recThrs`, boxes that are not finite or whose area overflows or underflows, scores
    that are no numbers, damaged run-lengths and empty runs, polygons of less than three points, ids that are
    0 or there twice, annotations without `area` or `iscrowd`; and everything where hotcoco is not installed,
    or in a process that was forked from one that has evaluated. So
    it makes `evalImgs`, and `accumulate` with other parameters, when they are asked for.

    Args:
        cocoGt: the annotations.
        cocoDt: what `cocoGt.loadRes` made; or `Detections`, evaluated as Detectron2 does: of masks, the size
            of the mask counts and not that of the box.
        iouType: "bbox", "segm" or "keypoints".

    Raises:
        AssertionError: there are `Detections` in images that are not annotated.
    """

    def __init__(
        self,
        cocoGt: COCO | None = None,
        cocoDt: COCO | Detections | None = None,
        iouType: str = "segm",
    ):
        self._matched: Any = None
        self._detections = cocoDt if isinstance(cocoDt, Detections) else None
        super().__init__(cocoGt, None if self._detections is not None else cocoDt, iouType)
        if self._detections is not None:
            unknown = set(self._detections.image_ids) - set(cocoGt.getImgIds())
            assert not unknown, "Results do not correspond to current coco set"

    def evaluate(self) -> None:
        """Match detections with objects."""
        p = self.params
        if p.useSegm is not None:
            p.iouType = "segm" if p.useSegm == 1 else "bbox"
        self._matched, self.eval = None, {}
        self.evalImgs = []
        if p.iouType in ("bbox", "segm") and (hotcoco := hotcoco_or_none()):
            with contextlib.suppress(Irregular):
                self._match(hotcoco)
        if self._matched is None:
            self._evaluate_by_image()

    def accumulate(self, p: Params | None = None) -> None:
        """Compute `eval`: precision, recall and scores over classes, sizes and numbers of detections."""
        p = p or self.params
        if self._matched is None or not _same(p, self._paramsEval):
            # They are made from the outcomes by image.
            if not self.evalImgs:
                self._evaluate_by_image()
            super().accumulate(p)
            return
        p.catIds = p.catIds if p.useCats == 1 else [-1]
        self._matched.accumulate()
        found = self._matched.eval
        self.eval = {
            "params": p,
            "counts": list(found["precision"].shape),
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            **{name: found[name] for name in ("precision", "recall", "scores")},
        }

    def codes(self) -> np.ndarray:
        """N x IoU thresholds: what became of each detection, of the first range of areas.

        IGNORED is also what does not count. Detections lie as `loadRes` or `Detections` has them.
        """
        thresholds = self.params.iouThrs
        if self._matched is None:
            return _codes_by_image(self)
        codes = np.full((self._count, len(thresholds)), IGNORED, np.int8)
        for level, threshold in enumerate(thresholds):
            # Nothing is above a score of 2, of which it would look for mistakes in the annotations.
            states = self._matched.image_diagnostics(float(threshold), 2.0)["dt_status"]
            places = self._kept[np.fromiter(states, np.int64, len(states)) - 1]
            codes[places, level] = list(map(_CODES.__getitem__, states.values()))
        return codes

    @property
    def evalImgs(self) -> list:
        """The outcomes by image, class and size, as pycocotools' `evaluate` computes them."""
        if self._matched is not None and not self._by_image:
            accumulated = self.eval
            self._evaluate_by_image()
            self.eval = accumulated
        return self._by_image

    @evalImgs.setter
    def evalImgs(self, value: list) -> None:
        self._by_image = value

    def _evaluate_by_image(self) -> None:
        """As pycocotools does."""
        if self.cocoDt is None and self._detections is not None:
            results = list(self._detections.results())
            if self.params.iouType == "segm":
                for found in results:
                    found.pop("bbox", None)
            self.cocoDt = self.cocoGt.loadRes(results)
        matched, self._matched = self._matched, None
        super().evaluate()
        self._matched = matched

    def _match(self, hotcoco: ModuleType) -> None:
        p = self.params
        images, classes, limits = _asked(p)
        found, areas = _columns(self._detections, self.cocoDt, p.iouType)
        index_of_image = {image: place + 1 for place, image in enumerate(images)}
        index_of_class = {kind: place + 1 for place, kind in enumerate(classes)}
        # Whatever the ids are, places from 1 on take their part, in the order in which pycocotools goes.
        with _irregular_instead():
            truth = _truth(hotcoco, self.cocoGt, index_of_image, index_of_class, p.iouType)
            rows = np.zeros((len(found.scores), 7))
            rows[:, 0] = [index_of_image.get(one, 0) for one in found.image_ids]
            rows[:, 5] = found.scores
            rows[:, 6] = [index_of_class.get(one, 0) for one in found.category_ids.tolist()]
            if p.iouType == "bbox":
                rows[:, 1:5] = found.boxes
            kept = np.flatnonzero((rows[:, 0] > 0) & (rows[:, 6] > 0))
            masks = found.masks if p.iouType == "segm" else None
            loaded = _loaded(hotcoco, truth, rows[kept], masks, kept)
            if areas is not None:
                loaded.update_anns(ids=np.arange(1, len(kept) + 1), area=areas[kept])
            evaluation = hotcoco.COCOeval(truth, loaded, p.iouType)
            asked = evaluation.params
            asked.img_ids = list(index_of_image.values())
            asked.cat_ids = list(index_of_class.values())
            asked.use_cats = bool(p.useCats)
            asked.max_dets = limits
            asked.iou_thrs = np.asarray(p.iouThrs, np.float64).tolist()
            asked.rec_thrs = np.asarray(p.recThrs, np.float64).tolist()
            asked.area_rng = np.asarray(p.areaRng, np.float64).reshape(-1, 2).tolist()
            asked.area_rng_lbl = ["all", *map(str, range(1, len(asked.area_rng)))]
            evaluation.evaluate()
        p.imgIds, p.catIds, p.maxDets = images, classes, limits
        self._paramsEval = copy.deepcopy(p)
        self._matched, self._kept, self._count = evaluation, kept, len(rows)


def hotcoco_or_none() -> ModuleType | None:
    """hotcoco, or None with one line in the log: where it is not installed, or would wait for ever.

    It does that in a process forked from one that has evaluated: the threads are not there.
    """
    global _process
    hotcoco = optional("hotcoco", "COCO evaluation")
    if hotcoco is None:
        return None
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        logger.warning(
            "this process was forked from one that has evaluated: pycocotools evaluates, with the same result"
        )
        return None
    return hotcoco


@contextlib.contextmanager
def _irregular_instead() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        # pycocotools meets it again, and says what it always says.
        raise Irregular(str(error)) from error


def _asked(p: Params) -> tuple[list, list, list[int]]:
    """Images, classes and numbers of detections, as pycocotools orders them.

    Raises:
        Irregular: something lies in another order than hotcoco takes it for.
    """
    images, classes, limits = list(np.unique(p.imgIds)), list(p.catIds), sorted(p.maxDets)
    if p.useCats:
        classes = list(np.unique(classes))
    if classes != list(np.unique(classes)):
        raise Irregular("classes are not sorted, or one is there twice")
    if not len(p.areaRng):
        raise Irregular("there is no range of areas")
    if limits[0] < 1 or (np.diff(limits) < 1).any() or (np.diff(p.recThrs) < 0).any():
        raise Irregular("numbers of detections or recalls are there twice, or do not increase")
    return images, classes, limits


def _columns(
    found: Detections | None, coco: COCO, task: str
) -> tuple[Detections, np.ndarray | None]:
    """The detections and, of those that `loadRes` made, their areas.

    Raises:
        Irregular: there are none of that kind, or hotcoco would not take them as pycocotools does.
    """
    areas = None
    if found is None:
        results = coco.dataset["annotations"]
        with _irregular_instead():
            if len(coco.anns) != len(results) or min(coco.anns, default=1) <= 0:
                raise Irregular("ids are there twice, or not above 0")
            found = Detections.pack(results, [task])
            areas = np.array([one["area"] for one in results], np.float64)
    if (found.boxes if task == "bbox" else found.masks) is None:
        raise Irregular("there are no boxes, or no masks")
    if np.isnan(found.scores).any():
        raise Irregular("a score is no number")
    if task == "bbox":
        _check_boxes(found.boxes)
    else:
        _check_masks(found.masks)
    return found, areas


def _truth(
    hotcoco: ModuleType, coco: COCO, index_of_image: dict, index_of_class: dict, task: str
) -> Any:
    """The annotations of the images and classes in question, as hotcoco's.

    Raises:
        Irregular: hotcoco would not take them as pycocotools does.
    """
    if len(coco.anns) != len(coco.dataset["annotations"]):
        raise Irregular("several objects have the same id")
    annotations, compressed = [], []
    for place, one in enumerate(coco.dataset["annotations"], 1):
        image, kind = index_of_image.get(one["image_id"]), index_of_class.get(one["category_id"])
        if image is None or kind is None:
            continue
        if one["iscrowd"] not in (0, 1):
            raise Irregular("iscrowd is neither 0 nor 1")
        if not isinstance(one["area"], Real) or not isinstance(one["id"], Real) or not one["id"]:
            # Of an id of 0 pycocotools takes what matches the object for unmatched.
            raise Irregular("an id is 0, or it or an area is no number")
        own = {"id": place, "image_id": image, "category_id": kind}
        own |= {"area": float(one["area"]), "iscrowd": int(one["iscrowd"])}
        if task == "bbox":
            own["bbox"] = one["bbox"]
        else:
            own["segmentation"] = mask = one["segmentation"]
            if isinstance(mask, list) and (not mask or len(mask[0]) <= 4):
                raise Irregular("a polygon has less than three points")
            if not isinstance(mask, list):
                own["segmentation"] = mask = coco.annToRLE(one)
                compressed.append(mask)
        annotations.append(own)
    if task == "bbox":
        boxes = np.array([one["bbox"] for one in annotations], np.float64)
        _check_boxes(boxes.reshape(len(annotations), 4))
    else:
        _check_masks(Strings.pack(compressed))
    sides = ("height", "width") if task == "segm" else ()
    return hotcoco.COCO(
        {
            "images": [
                {"id": number, **{side: coco.imgs[image][side] for side in sides}}
                for image, number in index_of_image.items()
            ],
            "annotations": annotations,
            "categories": [{"id": n, "name": str(n)} for n in index_of_class.values()],
        }
    )


def _loaded(
    hotcoco: ModuleType, truth: Any, rows: np.ndarray, masks: Strings | None, kept: np.ndarray
) -> Any:
    """hotcoco's detections from rows of image, box, score and class; of masks, their size is the area."""
    if masks is None:
        return truth.load_res(rows)
    with _uncollected():
        rles = list(masks.rles())
        if len(kept) < len(rles):
            rles = [rles[place] for place in kept]
        loaded = truth.load_res(rows, segmentation=rles)
        areas = np.asarray(hotcoco.mask.area(rles), np.float64)
    loaded.update_anns(ids=np.arange(1, len(kept) + 1), area=areas)
    return loaded


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for garbage that a hundred thousand new dicts set off: there is none among them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_boxes(boxes: np.ndarray) -> None:
    sides = boxes[:, 2:]
    with np.errstate(over="ignore"):
        areas = sides.prod(axis=1)
    underflows = (areas == 0) & (sides > 0).all(axis=1)
    if underflows.any() or not (np.isfinite(boxes).all() and np.isfinite(areas).all()):
        raise Irregular("a box or its area is not finite, or its area underflows to 0")


def _check_masks(masks: Strings) -> None:
    if not numba_or_none("COCO evaluation of masks"):
        raise Irregular("what checks masks is not there")
    if first_damaged(masks, empty_runs=False) is not None:
        raise Irregular("the RLE of a mask does not fill its image, or has an empty run")


def _codes_by_image(evaluation: COCOeval) -> np.ndarray:
    """From pycocotools' outcomes by image; its ids are places in the list of results, from 1."""
    params = evaluation.params
    codes = np.full((len(evaluation.cocoDt.anns), len(params.iouThrs)), IGNORED, np.int8)
    images, sizes = len(params.imgIds), len(params.areaRng)
    for place, outcome in enumerate(evaluation.evalImgs):
        # The first of the ranges of areas is that of all.
        if outcome is None or place // images % sizes:
            continue
        is_true = np.where(np.asarray(outcome["dtMatches"]) != 0, TRUE, FALSE)
        own = np.where(outcome["dtIgnore"], IGNORED, is_true).astype(np.int8)
        codes[np.array(outcome["dtIds"], np.int64) - 1] = own.T
    return codes


def _same(p: Params, q: Params) -> bool:
    """Whether `p` asks for what was evaluated with `q`."""
    names = [
        "imgIds",
        "iouThrs",
        "recThrs",
        "areaRng",
        "maxDets",
        *(["catIds"] if q.useCats else []),
    ]
    return (p.useCats, p.iouType) == (q.useCats, q.iouType) and all(
        np.array_equal(getattr(p, name), getattr(q, name)) for name in names
    )
