"""The pictures of a page: their filters, and that the page keeps within its size."""

import numpy as np
import pytest
from PIL import Image
from small_report import CLASSES, small_report

from ssl_backbones.report.page.galleries import Pictures, fill


def page_of(pictures: Pictures) -> str:
    return "x" * 1000


def test_every_example_is_under_the_filters_that_fit_it(tmp_path):
    report = small_report(tmp_path, num_runs=2)
    (gallery,) = fill(report, 2, 10**7, page_of).galleries
    assert [choice.title for choice in gallery.classes] == sorted(CLASSES)
    names = {choice.name: choice.title for choice in gallery.classes}
    for example in gallery.examples:
        tags = gallery.tags(example)
        assert {names[tag] for tag in tags if tag in names} == set(example.classes)
        assert {f"error-{kind}" for kind in example.errors} <= set(tags)
        for group in example.groups:
            assert (group.kind if group.run is None else f"{group.kind}-{group.run}") in tags
        # Names of CSS classes, whatever the names of the dataset's classes are.
        assert all(tag.replace("-", "").isalnum() for tag in tags)
    assert [choice.title for choice in gallery.groups] == [
        *("best of run 0", f"best of {report.runs[1].name}"),
        *("worst of run 0", f"worst of {report.runs[1].name}"),
        "random",
    ]


def test_an_image_without_errors_can_be_asked_for(tmp_path):
    (gallery,) = fill(small_report(tmp_path, num_runs=1), 8, 10**7, page_of).galleries
    assert [choice.title for choice in gallery.groups] == ["best", "random"]
    assert gallery.errors[-1].title == "none"
    for example in gallery.examples:
        assert ("error-none" in gallery.tags(example)) == (not example.errors)


@pytest.mark.parametrize("budget", [2_000_000, 1_100_000, 350_000, 200_000])
def test_links_and_page_stay_within_the_budget_and_the_page_says_how(tmp_path, budget):
    report = small_report(tmp_path, num_runs=2)
    pictures = fill(report, 4, budget, page_of)
    assert sum(len(p.link) for p in pictures.all()) + 1000 <= budget
    assert pictures.all() and all(p.link for p in pictures.all())
    sides = {max(p.pixels.shape) for p in pictures.all()}
    assert sides == {320}
    shrunk = any("shrunk to" in note for note in pictures.notes)
    assert shrunk == (budget < 2_000_000)


def test_fewer_pictures_where_the_smallest_are_too_many_and_in_the_end_none(tmp_path):
    report = small_report(tmp_path, num_runs=2)
    most = len(fill(report, 4, 10**7, page_of).all())
    fewer = fill(report, 4, 200_000, page_of)
    assert 0 < len(fewer.all()) < most
    assert any("images of each kind are shown" in note for note in fewer.notes)
    none = fill(report, 4, 3_000, page_of)
    assert none.all() == []
    assert none.notes == ["No pictures are shown: the page would be too large otherwise."]
    assert fill(report, 0, 10**7, page_of).notes == []


def test_what_was_trained_on_is_shown_as_far_as_it_can_be_read(tmp_path):
    report = small_report(tmp_path, num_runs=1)
    run = report.runs[0]
    run.folder = str(tmp_path)
    run.training_pictures = ["batch.png", "broken.png", "missing.png"]
    Image.fromarray(np.zeros((2000, 1000, 3), dtype=np.uint8)).save(tmp_path / "batch.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    pictures = fill(report, 1, 10**7, page_of)
    (picture,) = pictures.training[0]
    assert picture.pixels.shape == (960, 480, 3)
    assert picture.alt == "batch.png: images that run 0 was trained on"
    assert pictures.notes == [
        "broken.png, which shows what run 0 was trained on: it is no picture, or a damaged one.",
        "missing.png, which shows what run 0 was trained on: No such file or directory.",
    ]


def test_runs_on_different_test_sets_have_galleries_of_their_own(tmp_path):
    report = small_report(tmp_path, num_runs=2)
    report.runs[1].dataset = "other"
    first, second = fill(report, 2, 10**7, page_of).galleries
    assert (first.dataset, second.dataset) == ("small_test", "other")
    assert all(len(example.pictures) == 2 for example in first.examples)
    assert all("not known" in example.problem for example in second.examples)


def test_a_page_that_is_too_large_without_pictures_is_said_to_be(tmp_path):
    report = small_report(tmp_path, num_runs=1)
    for num in (0, 1):
        notes = fill(report, num, 1_500, page_of).notes
        assert notes[-1].startswith(
            "The text alone of this page is 0.0 MB, more than the 0.0015 MB"
        )
    assert len(fill(report, 1, 3_000, page_of).notes) == 1


def test_text_that_utf_8_cannot_write_is_measured_all_the_same(tmp_path):
    report = small_report(tmp_path, num_runs=1)
    assert fill(report, 1, 10**7, lambda pictures: "\ud800").all()
