"""The pictures that a report leaves in the folder of a run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_report import small_report

from ssl_backbones.errors import InputError
from ssl_backbones.report.content import RunContent
from ssl_backbones.report.page.run_files import write_run_files

ALL = {
    "results.png",
    "pr_curves_box.png",
    "pr_curves_mask.png",
    "confusion_matrix.png",
    "predictions_beside_labels.jpg",
}


@pytest.fixture
def report(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "images").mkdir()
    report = small_report(tmp_path / "images", num_runs=1)
    report.runs[0].folder = str(tmp_path / "run")
    return report


def written(report):
    return {path.name for path in write_run_files(report, report.runs[0])}


def test_all_pictures_are_written_and_can_be_read(report, tmp_path):
    # A formula that matplotlib cannot read is a name as well.
    report.runs[0].analyses["bbox"].class_names[0] = "$\\frac$"
    paths = list(write_run_files(report, report.runs[0]))
    assert {path.name for path in paths} == ALL == {p.name for p in (tmp_path / "run").iterdir()}
    for path in paths:
        picture = Image.open(path)
        assert picture.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_labels_stand_to_the_left_of_the_detections(report, tmp_path):
    report.runs[0].curves = {}

    def sheet(min_score):
        report.min_score = min_score
        written(report)
        return np.asarray(Image.open(tmp_path / "run" / "predictions_beside_labels.jpg"), dtype=int)

    sure, none = sheet(0.5), sheet(0.95)
    assert sure.shape[1] == 4 * 320
    # JPEG spreads what differs by less than 16 pixels.
    changed = np.flatnonzero((abs(sure - none) > 40).any((0, 2)))
    assert {int(column // 320) for column in changed} == {1, 3}


def test_a_run_gets_those_pictures_for_which_it_has_what_it_takes(report):
    run = report.runs[0]
    run.detections, run.analyses = None, {}
    assert written(report) == {"results.png"}
    run.curves = {}
    assert written(report) == set()


def test_results_come_from_the_curves(report, tmp_path):
    run = report.runs[0]
    run.analyses = {}
    run.curves = {"total_loss": run.curves["total_loss"], "lr": run.curves["lr"]}
    written(report)
    before = (tmp_path / "run" / "results.png").read_bytes()
    run.curves = {**run.curves, "total_loss": [(i, 1.0) for i in range(0, 700, 20)]}
    written(report)
    assert (tmp_path / "run" / "results.png").read_bytes() != before


def test_a_folder_that_cannot_be_written_is_one_line(report):
    run = RunContent("a", "/dev/null/run", curves={"lr": [(0, 1.0)]})
    with pytest.raises(InputError, match=r"cannot write /dev/null/run/results\.png"):
        list(write_run_files(report, run))
    assert not Path("/dev/null/run").exists()


def test_what_was_written_before_one_that_cannot_be_is_told(report, tmp_path):
    (tmp_path / "run" / "confusion_matrix.png").mkdir()
    names = []
    with pytest.raises(InputError, match="confusion_matrix"):
        for path in write_run_files(report, report.runs[0]):
            names.append(path.name)
    assert names == ["results.png", "pr_curves_box.png", "pr_curves_mask.png"]


def test_names_that_utf_8_cannot_write_are_drawn(report):
    report.runs[0].analyses["bbox"].class_names[0] = "se\udc80ven"
    assert written(report) == ALL
