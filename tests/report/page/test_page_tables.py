"""The rows of the tables of a page."""

from dataclasses import replace

import pytest
from small_report import small_report

from ssl_backbones.report.content import RunContent
from ssl_backbones.report.page.page_tables import class_rows, commonest_confusions, image_counts


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return small_report(tmp_path_factory.mktemp("images"))


def test_the_commonest_confusions_leave_out_background_and_what_is_right(report):
    analysis = replace(
        report.runs[0].analyses["bbox"],
        class_names=["a", "b"],
        confusion=[[9, 2, 7], [3, 9, 7], [8, 8, 0]],
    )
    assert commonest_confusions(analysis) == [("b", "a", 3), ("a", "b", 2)]


def test_two_classes_of_one_name_are_two_rows(tmp_path):
    runs = small_report(tmp_path, classes=("same", "other", "same")).runs
    rows = class_rows(runs, "bbox")
    assert [(name, objects) for name, objects, _ in rows] == [
        *(("same", 10), ("other", 17), ("same", 24))
    ]
    # 30 + 10 * (class + run)
    assert [[of.ap for of in both] for _, _, both in rows] == [[30, 40], [None, None], [50, 60]]


def test_each_run_s_images_are_told_where_they_differ():
    runs = [RunContent("a", "a", facts={"images": 8}), RunContent("b", "b", facts={"images": 8})]
    assert image_counts(runs) == [("", "8")]
    runs[1].facts = {"images": 5}
    assert image_counts(runs) == [("a", "8"), ("b", "5")]
    runs[1].facts = {}
    assert image_counts(runs) == [("a", "8"), ("b", "not known")]
    assert image_counts(runs[1:]) == []
