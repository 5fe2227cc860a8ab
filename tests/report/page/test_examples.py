"""Which test images are shown, and how they are drawn."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from small_report import SCRIPT, small_report

from ssl_backbones.data import images
from ssl_backbones.report.analysis.findings import ImageOutcome
from ssl_backbones.report.page.examples import SIZES, Group, Picture, choose, draw, encode

DATASET = "small_test"


@pytest.fixture
def report(tmp_path):
    return small_report(tmp_path, num_runs=1, num_images=12)


def rate(report, scores, run=0):
    """Give the images 1, 2, ... scores, in all tasks."""
    images = [
        ImageOutcome(number, score, 0.1 * (number % 3), (f"class {number}",), ())
        for number, score in enumerate(scores, start=1)
    ]
    content = report.runs[run]
    content.analyses = {t: replace(a, images=images) for t, a in content.analyses.items()}


def chosen(report, kind, num=2):
    return [
        example.image_id
        for example in choose(report, DATASET, num)
        if any(group.kind == kind for group in example.groups)
    ]


def test_the_best_and_the_worst_by_score_then_by_overlap(report):
    # The mean IoU of the images 1 to 6 is 0.1, 0.2, 0, 0.1, 0.2, 0.
    rate(report, [0.5, 0.5, 1.0, 0.0, 0.0, 0.5])
    assert chosen(report, "best") == [3, 2]
    assert chosen(report, "worst") == [4, 5]


def test_no_image_is_the_best_and_the_worst_and_none_without_a_score_is_either(report):
    rate(report, [0.5, None, 0.2])
    assert chosen(report, "best") == [1, 3]
    assert chosen(report, "worst") == []
    rate(report, [0.5, None, 0.2, 0.1])
    assert chosen(report, "worst") == [4]


def test_random_images_depend_on_the_seed_alone(report):
    first = chosen(report, "random", 4)
    assert len(first) == 4 and first == chosen(report, "random", 4)
    seeds = [replace(report, seed=seed) for seed in range(20)]
    assert len({tuple(chosen(other, "random", 4)) for other in seeds}) > 10
    # Every image may be among them, those of no score too.
    assert set().union(*(chosen(other, "random", 4) for other in seeds)) == set(range(1, 13))


def test_images_of_several_runs_are_shown_once_with_all_reasons(tmp_path):
    report = small_report(tmp_path, num_runs=2, num_images=4)
    rate(report, [1.0, 0.6, 0.3, 0.0])
    rate(report, [1.0, 0.0, 0.3, 0.6], run=1)
    found = {example.image_id: example for example in choose(report, DATASET, 1)}
    assert {Group("best", 0), Group("best", 1)} <= set(found[1].groups)
    assert Group("worst", 0) in found[4].groups and Group("worst", 1) in found[2].groups
    assert found[2].classes == ("class 2",)


def test_more_images_are_asked_for_than_there_are(report):
    rate(report, [0.5, 0.4])
    assert sorted(example.image_id for example in choose(report, DATASET, 50)) == [1, 2]
    assert choose(report, DATASET, 0) == []
    assert choose(report, "another set", 3) == []


def drawn(report):
    examples = choose(report, DATASET, 12)
    draw(report, DATASET, examples)
    return {example.image_id: example for example in examples}


def test_truth_and_detections_are_drawn_and_said(report):
    example = drawn(report)[2]
    truth, found = example.pictures
    # Two objects there; of the detections one scores 0.3, which is not shown.
    assert truth.alt == "000002.jpg, ground truth: 1 × a & b, 1 × seven"
    assert found.alt == "000002.jpg, found by run 0: 1 × a & b"
    assert (truth.title, found.title) == ("ground truth", "run 0")
    # Enlarged by a whole number, so that labels can be read: 64 pixels become 320.
    assert truth.pixels.shape == found.pixels.shape == (320, 320, 3)
    pixels = np.asarray(Image.open(report.test_images[DATASET].files[2]))
    plain = pixels.repeat(5, axis=0).repeat(5, axis=1)
    rows, columns = np.nonzero((truth.pixels != plain).any(2))
    # The boxes (4, 8) to (20, 32) and (24, 8) to (40, 32), and labels above them.
    assert (columns.min(), columns.max()) == (20, 199) and rows.max() == 159
    assert found.score == report.runs[0].analyses["bbox"].images[1].score


def test_large_images_are_shrunk_with_their_objects(tmp_path):
    report = small_report(tmp_path, num_runs=1, num_images=2, size=960)
    corners = [200, 300, 600, 300, 600, 800, 200, 800]
    one = {"category_id": 10, "bbox": [200, 300, 400, 500], "segmentation": [corners]}
    report.test_images[DATASET].annotations[2] = [one]
    truth = drawn(report)[2].pictures[0].pixels
    assert truth.shape == (480, 480, 3)
    small = Image.open(report.test_images[DATASET].files[2]).resize((480, 480))
    changed = (truth != np.asarray(small)).any(2)
    rows, columns = np.nonzero(changed)
    assert (columns.min(), columns.max(), rows.max()) == (100, 299, 399)
    # Its mask as well as its outline.
    assert changed[150:400, 100:300].mean() > 0.99


def test_images_beyond_pillows_limit_are_drawn_where_memory_allows(tmp_path, monkeypatch):
    report = small_report(tmp_path, num_runs=1, num_images=2, size=960)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400_000)
    assert drawn(report)[2].pictures[0].pixels.shape == (480, 480, 3)
    # There is room for one pixel less than the 921,600; Pillow's bound is an even number.
    monkeypatch.setattr(images, "_free_memory", lambda: 14 * 921_599)
    example = drawn(report)[2]
    assert "(921600 pixels) exceeds limit of 921598 pixels" in example.problem
    assert example.pictures == []


def as_broken_png():
    """Of noise, which Pillow writes in several chunks."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    before, _, rest = file.getvalue().rpartition(b"IDAT")
    return before + bytes(4) + rest


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_bytes(b"no image"), "cannot identify image file"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "truncated"),
        # Pillow's SyntaxError: a chunk behind the first has no name that there is.
        (lambda path: path.write_bytes(as_broken_png()), "broken PNG file"),
    ],
)
def test_an_image_that_cannot_be_drawn_is_a_sentence(report, spoil, message):
    path = Path(report.test_images[DATASET].files[1])
    spoil(path)
    examples = drawn(report)
    assert str(path) in examples[1].problem and message in examples[1].problem
    assert examples[1].pictures == [] and len(examples[2].pictures) == 2


def test_detections_that_do_not_fit_their_image_are_a_sentence(report):
    mask = coco_mask.encode(np.ones((10, 10), dtype=np.uint8, order="F"))
    report.runs[0].detections = [
        {**found, "segmentation": mask} for found in report.runs[0].detections
    ]
    assert "its masks are of 10 x 10 pixels, the image of 64 x 64" in drawn(report)[2].problem


def test_images_whose_files_are_not_known(report):
    report.test_images = {}
    assert drawn(report)[1].problem == "where the image 1 lies is not known"


def test_names_of_files_and_classes_are_kept_as_they_are(report):
    example = drawn(report)[1]
    assert example.file_name == f"{SCRIPT.replace('/', '%')}.jpg"
    assert SCRIPT in example.pictures[0].alt


def noise(side=480):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Picture("a", "a", pixels)


def test_pictures_become_smaller_until_they_fit():
    pictures = [noise(), noise()]
    assert encode(pictures, 10**7) == 480
    whole = [len(picture.link) for picture in pictures]
    for budget in (sum(whole), sum(whole) - 1, sum(whole) // 4):
        side = encode(pictures, budget)
        assert sum(len(picture.link) for picture in pictures) <= budget
        assert (side == 480) == (budget == sum(whole))
        data = base64.b64decode(pictures[0].link.removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(data)).size == (side, side)


def test_a_budget_that_nothing_fits_leaves_no_links():
    picture = noise()
    assert encode([picture], 100) == 0 and picture.link == ""
    assert encode([], 0) == SIZES[0][0]


def test_a_run_that_saw_fewer_images_is_not_said_to_find_nothing(tmp_path):
    report = small_report(tmp_path, num_runs=2, num_images=4)
    second = report.runs[1]
    second.analyses = {
        task: replace(analysis, images=[i for i in analysis.images if i.image_id != 2])
        for task, analysis in second.analyses.items()
    }
    second.detections = [found for found in second.detections if found["image_id"] != 2]
    examples = drawn(report)
    assert examples[2].absent == [(second.name, "not evaluated on this image")]
    assert [p.title for p in examples[2].pictures] == ["ground truth", "run 0"]
    assert examples[1].absent == [] and len(examples[1].pictures) == 3


@pytest.mark.parametrize("detections", [True, False])
def test_a_run_without_analysis_is_not_said_to_find_nothing(tmp_path, detections):
    report = small_report(tmp_path, num_runs=2, num_images=4)
    second = report.runs[1]
    second.analyses = {}
    if not detections:
        second.detections = None
    for example in drawn(report).values():
        assert example.absent == [(second.name, "its detections are not analysed")]
        assert len(example.pictures) == 2
