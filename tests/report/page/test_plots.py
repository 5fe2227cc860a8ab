"""What the plots of a report say: their titles, captions and descriptions, and what they are drawn from."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from small_report import CLASSES, small_report

from ssl_backbones.report.content import RunContent
from ssl_backbones.report.page.plots import (
    MOST_POINTS,
    confusion_picture,
    curves_of,
    draw_confusion,
    draw_curve,
    error_gains,
    learning_curves,
    mean_precision,
    precision_recall,
    thinned,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return small_report(tmp_path_factory.mktemp("images")).runs


def test_ap_comes_first_then_the_losses_with_their_sum_then_the_learning_rate():
    names = ("lr", "loss_mask", "time", "total_loss", "loss_cls", "segm/AP", "bbox/AP", "bbox/AP50")
    run = RunContent("a", "a", curves={name: [(0, 1.0)] for name in names} | {"loss_x": []})
    expected = ["bbox/AP", "segm/AP", "total_loss", "loss_cls", "loss_mask", "lr"]
    assert list(curves_of(run)) == expected


def test_ap_before_training_begins_its_curve():
    run = RunContent("a", "a", curves={"bbox/AP": [(99, 30.0)], "segm/AP": [(99, 20.0)]})
    run.metrics = {"start/bbox/AP": 1.5, "start/segm/AP": None}
    assert curves_of(run) == {"bbox/AP": [(0, 1.5), (99, 30.0)], "segm/AP": [(99, 20.0)]}
    assert run.curves["bbox/AP"] == [(99, 30.0)]


def test_a_panel_a_scalar_which_says_the_ends_of_each_curve(runs):
    plots = learning_curves(runs)
    titles = ["box AP", "total loss", "loss_cls", "loss_mask", "learning rate"]
    assert [plot.title for plot in plots] == titles
    total = plots[1]
    # (3 + 0) / (1 + 680 / 200) = 0.6818
    assert "run 0 from 3 to 0.6818 at iteration 680" in total.svg
    for colour in ("var(--run-0)", "var(--run-1)"):
        assert colour in total.svg
    assert "stroke-dasharray" in total.svg
    assert total.caption == ""


def test_a_run_without_a_scalar_leaves_its_curve_out(runs):
    bare = RunContent("bare", "bare")
    plots = learning_curves([runs[0], bare])
    assert len(plots) == len(learning_curves([runs[0]]))
    assert not any("bare" in plot.svg for plot in plots)
    assert learning_curves([bare]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5000))
def test_long_curves_are_averaged_and_short_ones_untouched(values):
    points = list(enumerate(values))
    thin, count = thinned(points)
    assert len(thin) <= MOST_POINTS
    if len(points) <= MOST_POINTS:
        assert thin == points and count == 1
    else:
        assert thin[0][1] == pytest.approx(statistics.fmean(values[:count]), abs=1e-6)
        assert thin[-1][0] <= points[-1][0]


def test_a_curve_of_a_single_point_is_seen():
    axis = Figure().subplots()
    draw_curve(axis, [(699, 53.9)], 699)
    (line,) = axis.get_lines()
    assert line.get_marker() == "o"
    assert axis.get_xlim()[1] > 699 and axis.get_ylim() == (0, pytest.approx(58.2, abs=0.1))


def test_precision_and_recall_of_all_runs_at_two_thresholds_and_of_each_at_all(runs):
    plots = precision_recall(runs, "bbox")
    titles = [plot.title for plot in plots]
    assert titles == ["IoU 0.50, all runs", "IoU 0.75, all runs", *(run.name for run in runs)]
    assert [plot.svg.count("stroke: var(--run-0)") for plot in plots] == [1, 1, 10, 0]
    assert [plot.title for plot in precision_recall(runs[:1], "bbox")] == ["Every IoU threshold"]
    assert precision_recall([RunContent("a", "a")], "bbox") == []


def test_mean_precision_is_ap_at_the_threshold(runs):
    analysis = runs[0].analyses["bbox"]
    # 1 - r^2 over r = 0, 0.01, ..., 1: 1 - (100 * 101 * 201 / 6 / 100^2) / 101 = 1 - 0.335
    assert mean_precision(analysis, 0.5) == pytest.approx(66.5)


def test_gains_of_each_type_stand_in_the_figure_and_its_description(runs):
    plot = error_gains(runs, "bbox")
    assert "run 0: Cls 0.0, Loc 0.7, Both 1.4, Dupe 2.1, Bkg 2.8, Miss 3.5" in plot.svg
    assert ">localisation</text>" in plot.svg
    assert error_gains([RunContent("a", "a")], "bbox") is None


def test_confusion_is_as_strong_as_its_share_of_the_row():
    axis = Figure().subplots()
    draw_confusion(axis, [[3, 1], [0, 0]])
    alphas = axis.get_images()[0].get_array()[..., 3]
    assert alphas.tolist() == [[0.75, 0.25], [0, 0]]


def test_confusion_as_a_figure(runs):
    svg = confusion_picture(runs[0].analyses["bbox"], "c", f"of {CLASSES[1]}")
    assert "data:image/png" in svg and "<script" not in svg
