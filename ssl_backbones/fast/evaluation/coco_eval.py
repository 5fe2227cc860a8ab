"""COCO's average precision to the last bit of pycocotools, many times as fast."""

from __future__ import annotations

import contextlib
import copy
import datetime
from typing import NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from ..acceleration import numba_or_none
from .annotated import GroundTruth, Runs
from .columns import Columns, Order, columns_of
from .detections import Detections, Irregular


class _Outcomes(NamedTuple):
    """Detections by class and in the order of their scores; what became of them.

    Attributes:
        codes: N x ranges of areas x IoU thresholds, as in matching_kernels.py.
        scores, ranks: of the detections; a rank counts within image and class, from 0.
        starts: where the detections of each class begin, and the end.
        objects: classes x ranges of areas, how many there are to be found.
    """

    codes: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    starts: np.ndarray
    objects: np.ndarray


class FastCOCOeval(COCOeval):
    """pycocotools' `COCOeval`, compiled: precision, recall, scores and statistics equal to the last bit.

    It differs in time and memory only. What it has no fast way for goes through pycocotools itself:
    keypoints, RLE with empty runs, annotations without `area` or `iscrowd`, everything where numba is not
    installed. So do `evalImgs` and `accumulate` with other parameters, when they are asked for.

    Args:
        cocoGt: the annotations.
        cocoDt: what `cocoGt.loadRes` made; or `Detections`, evaluated as Detectron2 does: of masks, the size
            of the mask counts and not that of the box.
        iouType: "bbox", "segm" or "keypoints".
        truth: what was packed of `cocoGt` before.

    Raises:
        AssertionError: there are `Detections` in images that are not annotated.
    """

    def __init__(
        self,
        cocoGt: COCO | None = None,
        cocoDt: COCO | Detections | None = None,
        iouType: str = "segm",
        truth: GroundTruth | None = None,
    ):
        self._outcomes: _Outcomes | None = None
        self._detections = cocoDt if isinstance(cocoDt, Detections) else None
        self._truth = truth
        super().__init__(cocoGt, None if self._detections is not None else cocoDt, iouType)
        if self._detections is not None:
            unknown = set(self._detections.image_ids) - set(cocoGt.getImgIds())
            assert not unknown, "Results do not correspond to current coco set"

    def evaluate(self) -> None:
        """Match detections with objects."""
        p = self.params
        if p.useSegm is not None:
            p.iouType = "segm" if p.useSegm == 1 else "bbox"
        self._outcomes, self.eval = None, {}
        self.evalImgs = []
        if p.iouType in ("bbox", "segm") and numba_or_none("COCO evaluation"):
            with contextlib.suppress(Irregular):
                self._outcomes = self._match()
        if self._outcomes is None:
            self._evaluate_by_image()

    def accumulate(self, p: Params | None = None) -> None:
        """Compute `eval`: precision, recall and scores over classes, sizes and numbers of detections."""
        p = p or self.params
        if self._outcomes is None or not _same(p, self._paramsEval):
            # They are made from the outcomes by image.
            if not self.evalImgs:
                self._evaluate_by_image()
            super().accumulate(p)
            return
        from .accumulation_kernels import accumulate

        p.catIds = p.catIds if p.useCats == 1 else [-1]
        recalls = np.asarray(p.recThrs, np.float64)
        limits = np.asarray(p.maxDets, np.int64)
        precision, recall, scores = accumulate(*self._outcomes, limits, recalls)
        self.eval = {
            "params": p,
            "counts": list(precision.shape),
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            "precision": precision,
            "recall": recall,
            "scores": scores,
        }

    @property
    def codes(self) -> np.ndarray | None:
        """N x ranges of areas x IoU thresholds, as in matching_kernels.py; None where pycocotools matched.

        Detections lie by class, then score, image and place.
        """
        return None if self._outcomes is None else self._outcomes.codes

    @property
    def evalImgs(self) -> list:
        """The outcomes by image, class and size, as pycocotools' `evaluate` computes them."""
        if self._outcomes is not None and not self._by_image:
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
        outcomes, self._outcomes = self._outcomes, None
        super().evaluate()
        self._outcomes = outcomes

    def _match(self) -> _Outcomes:
        p = self.params
        images, classes = list(np.unique(p.imgIds)), list(p.catIds)
        if p.useCats:
            classes = list(np.unique(classes))
        limits = sorted(p.maxDets)
        if len(set(classes)) < len(classes) or limits[0] < 0:
            raise Irregular("a class is there twice, or a limit is below 0")
        self._truth = self._truth or GroundTruth(self.cocoGt)
        is_boxes = p.iouType == "bbox"
        shapes = (self._truth.boxes if is_boxes else self._truth.masks)(self.cocoGt)
        found = columns_of(self._detections, self.cocoDt, is_boxes)
        order = Order(found, self._truth, images, classes, bool(p.useCats), limits[-1])

        ranges = np.asarray(p.areaRng, np.float64).reshape(-1, 2)
        thresholds = np.minimum(np.asarray(p.iouThrs, np.float64), 1 - 1e-10)
        facts = tuple(
            column[order.truth]
            for column in (self._truth.areas, self._truth.crowd, self._truth.has_id)
        )
        codes = _match(found, order, shapes, facts, ranges, thresholds)
        p.imgIds, p.catIds, p.maxDets = images, classes, limits
        self._paramsEval = copy.deepcopy(p)
        return _Outcomes(
            codes,
            found.scores[order.found],
            order.ranks,
            order.starts,
            order.count(_are_looked_for(*facts[:2], ranges)),
        )


def _match(
    found: Columns,
    order: Order,
    shapes: np.ndarray | Runs,
    truth: tuple[np.ndarray, ...],
    ranges: np.ndarray,
    thresholds: np.ndarray,
) -> np.ndarray:
    from .matching_kernels import match_boxes, match_masks

    areas = found.areas[order.found]
    if isinstance(shapes, np.ndarray):
        boxes, truth_boxes = found.shapes[order.found], shapes[order.truth]
        return match_boxes(order.groups, boxes, areas, truth_boxes, truth, ranges, thresholds)
    strings = found.shapes
    codes, is_regular = match_masks(
        order.groups,
        strings.characters,
        strings.spans[order.found],
        strings.sizes[order.found],
        areas,
        shapes.of(order.truth),
        truth,
        ranges,
        thresholds,
    )
    if not is_regular:
        raise Irregular("the RLE of a detection has empty runs, or does not fill its image")
    return codes


def _are_looked_for(areas: np.ndarray, crowd: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Ranges of areas x N: which objects are to be found."""
    outside = (areas < ranges[:, :1]) | (areas > ranges[:, 1:])
    return ~(outside | crowd)


def _same(p: Params, q: Params) -> bool:
    """Whether `p` asks for what was evaluated with `q`."""
    names = ["imgIds", "iouThrs", "areaRng", "maxDets", *(["catIds"] if q.useCats else [])]
    return (p.useCats, p.iouType) == (q.useCats, q.iouType) and all(
        np.array_equal(getattr(p, name), getattr(q, name)) for name in names
    )
