"""Resampled average precision against pycocotools on repeated images, and intervals against known answers."""

import copy

import numpy as np
import pytest
from coco_scenes import coco, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from ssl_backbones.report.analysis import bootstrap as module
from ssl_backbones.report.analysis.bootstrap import bootstrap, weighted_average_precision
from ssl_backbones.report.analysis.findings import METRICS
from ssl_backbones.report.analysis.outcomes import Outcomes, find_outcomes

FEW = settings(max_examples=12, deadline=None)
TASKS = pytest.mark.parametrize("task", ["bbox", "segm"])
WEIGHTS = st.lists(st.integers(0, 4), min_size=6, max_size=6)
IMAGES = 40


def distinct_scores(results):
    """The same, no two detections of an image with equal scores; those of different images still may."""
    places = {}
    for found in results:
        place = places[found["image_id"]] = places.get(found["image_id"], 0) + 1
        found["score"] += place / 1000
    return results


def repeated(dataset, results, weights):
    """Dataset and results with image n really in it weights[n - 1] times, under new ids."""
    images, objects, found = [], [], []
    for image, weight in zip(dataset["images"], weights, strict=True):
        for _ in range(weight):
            images.append({**image, "id": len(images) + 1})
            for things, copies in ((dataset["annotations"], objects), (results, found)):
                for thing in things:
                    if thing["image_id"] == image["id"]:
                        copies.append(copy.deepcopy(thing) | {"image_id": len(images)})
    for number, one in enumerate(objects):
        one["id"] = number + 1
    return {**dataset, "images": images, "annotations": objects}, found


@TASKS
@given(seed=st.integers(0, 1000), weights=WEIGHTS)
@FEW
def test_a_weight_is_how_often_an_image_is_there(pycocotools, task, seed, weights):
    dataset, results = scene(seed)
    distinct_scores(results)
    ours = weighted_average_precision(find_outcomes(coco(dataset), results, task))
    again, found = repeated(dataset, results, weights)
    if not found:
        return
    theirs = pycocotools(again, found, task).stats[:3]
    expected = [np.nan if value == -1 else 100 * value for value in theirs]
    np.testing.assert_allclose(ours(np.array(weights)), expected, rtol=0, atol=1e-12)


@TASKS
@pytest.mark.parametrize("seed", range(5))
def test_at_weight_1_it_is_the_average_precision_of_the_evaluation(pycocotools, task, seed):
    dataset, results = scene(seed)
    # Of equal scores the earlier image's comes first, wherever it is in the list.
    results.sort(key=lambda found: found["image_id"] * 5 % 7)
    ours = weighted_average_precision(find_outcomes(coco(dataset), results, task))
    theirs = 100 * pycocotools(dataset, results, task).stats[:3]
    assert ours(np.ones(6, np.int64)) == theirs.tolist()
    assert 0 < theirs[0] < theirs[1] < 100


@given(seed=st.integers(0, 1000), weights=WEIGHTS)
@FEW
def test_numpy_and_numba_are_equal(seed, weights):
    dataset, results = scene(seed)
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    compiled = module._weighted_precision(outcomes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "numba_or_none", lambda purpose: None)
        plain = module._weighted_precision(outcomes)
    assert compiled.__name__ != plain.__name__
    weights = np.array(weights)
    np.testing.assert_array_equal(compiled(weights), plain(weights), strict=True)


def test_identical_runs_differ_by_exactly_0():
    dataset, results = scene(3)
    runs = [find_outcomes(coco(dataset), copy.deepcopy(results), "bbox") for _ in range(2)]
    first, second = bootstrap(runs, resamples=200)
    assert first.values == second.values
    for metric in METRICS:
        interval = second.differences[metric]
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)
        assert second.shares_higher[metric] == 0
        assert first.differences[metric] is None and first.shares_higher[metric] is None
        assert first.values[metric].low < first.values[metric].value < first.values[metric].high


def test_a_run_that_is_better_in_every_image_is_always_higher():
    dataset, results = scene(3)
    perfect = [
        {"score": 0.9, **{name: one[name] for name in ("image_id", "category_id", "bbox")}}
        for one in dataset["annotations"]
    ]
    runs = [find_outcomes(coco(dataset), found, "bbox") for found in (results, perfect)]
    _, second = bootstrap(runs, resamples=200)
    assert second.shares_higher == {"AP": 1, "AP50": 1, "AP75": 1}
    assert second.differences["AP"].low > 0
    # Nothing is above 100, whatever is drawn.
    assert second.values["AP"].value == second.values["AP"].low == second.values["AP"].high == 100


def test_a_seed_gives_the_same_intervals_and_another_others():
    dataset, results = scene(3)
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    one, same, other = (bootstrap([outcomes], resamples=50, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_every_resample_is_reported():
    dataset, results = scene(3)
    advances = []
    outcomes = find_outcomes(coco(dataset), results, "bbox")
    bootstrap([outcomes], resamples=7, advance=lambda: advances.append(1))
    assert len(advances) == 7


def test_without_objects_there_is_no_interval():
    dataset, results = scene(3)
    outcomes = find_outcomes(coco({**dataset, "annotations": []}), results, "bbox")
    for run in bootstrap([outcomes, outcomes], resamples=5):
        for numbers in run:
            assert set(numbers.values()) == {None}


def test_without_images_there_is_no_interval():
    dataset, _ = scene(3)
    outcomes = find_outcomes(coco({**dataset, "images": [], "annotations": []}), [], "bbox")
    assert set(bootstrap([outcomes], resamples=5)[0].values.values()) == {None}


def test_runs_on_different_images_are_refused():
    dataset, results = scene(3)
    whole = find_outcomes(coco(dataset), results, "bbox")
    part = find_outcomes(coco(dataset), results, "bbox", [1, 2])
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        bootstrap([whole, part])


def three_objects_an_image():
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10]]
    return {
        "images": [{"id": n + 1, "height": 20, "width": 60} for n in range(IMAGES)],
        "annotations": [
            {"id": 3 * n + m + 1, "image_id": n + 1, "category_id": 1, "bbox": box}
            | {"area": 100, "iscrowd": 0}
            for n in range(IMAGES)
            for m, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "one"}],
    }


def finding(truth, share, random):
    """Outcomes of a detector that finds each object with a probability, and nothing else."""
    found = [
        {name: one[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.5}
        for one in truth.dataset["annotations"]
        if random.random() < share
    ]
    return find_outcomes(truth, found, "bbox")


def expected_average_precision(share):
    """Its mean over endless test sets: a recall is reached or not, and precision is 1 where it is."""
    number = 3 * IMAGES
    found = np.arange(number + 1)
    reached = (found[:, None] / number >= np.linspace(0, 1, 101)).mean(axis=1)
    # Nothing found reaches no recall, not even that of 0.
    reached[0] = 0
    return 100 * binom.pmf(found, number, share) @ reached


def test_the_intervals_cover_the_known_answer_as_often_as_they_say():
    shares, sets = (0.7, 0.6), 100
    objects = coco(three_objects_an_image())
    truth = [expected_average_precision(share) for share in shares]
    assert truth[0] == pytest.approx(70, abs=0.5)
    covered = np.zeros(3)
    for seed in range(sets):
        random = np.random.default_rng(seed)
        runs = [finding(objects, share, random) for share in shares]
        one, other = bootstrap(runs, resamples=200, seed=seed)
        intervals = one.values["AP"], other.values["AP"], other.differences["AP"]
        answers = *truth, truth[1] - truth[0]
        covered += [i.low <= a <= i.high for i, a in zip(intervals, answers, strict=True)]
    # Of 40 images they cover 0.92 to 0.94 (in 1,000 sets); three standard errors of 100 sets are 0.08.
    assert (covered / sets >= 0.85).all() and (covered / sets <= 0.99).all()


def simulated(random, images, quality, classes=10):
    """Outcomes of detectors with false detections as well, which find the hard images hard."""
    kinds = random.integers(0, classes, (images, 3))
    objects = np.zeros((classes, images), np.int32)
    np.add.at(objects, (kinds, np.arange(images)[:, None]), 1)
    hard = random.normal(0, 0.07, (images, 1))
    for one in quality:
        levels = (10 * (one - hard + random.normal(0, 0.25, (images, 3)))).round().clip(0, 10)
        scores = 0.3 + 0.035 * levels + random.normal(0, 0.15, (images, 3))
        of_false = random.integers(0, classes, (images, 5)), random.normal(0.25, 0.15, (images, 5))
        found = np.concatenate([kinds, of_false[0]], axis=1).ravel()
        scores = np.concatenate([scores, of_false[1]], axis=1).ravel()
        levels = np.pad(levels, ((0, 0), (0, 5))).ravel()
        order = np.lexsort((-scores, found))
        yield Outcomes(
            (np.arange(10) < levels[order, None]).astype(np.int8),
            scores[order],
            order,
            order // 8,
            np.searchsorted(found[order], np.arange(classes + 1)),
            objects,
            range(images),
            range(classes),
        )


def test_values_are_covered_although_few_objects_flatter_them():
    quality, sets, images = (0.55, 0.6), 60, 150
    endless = 20_000
    many = simulated(np.random.default_rng(0), endless, quality)
    truth = [weighted_average_precision(run)(np.ones(endless, np.int64))[0] for run in many]
    covered, surplus = np.zeros(2), 0.0
    for seed in range(sets):
        runs = list(simulated(np.random.default_rng(seed + 1), images, quality))
        first, second = bootstrap(runs, resamples=150, seed=seed)
        pairs = (first.values["AP"], truth[0]), (second.differences["AP"], truth[1] - truth[0])
        covered += [interval.low <= answer <= interval.high for interval, answer in pairs]
        surplus += first.values["AP"].value - truth[0]
    assert surplus / sets > 1
    assert covered[0] / sets >= 0.8 and covered[1] / sets >= 0.9
