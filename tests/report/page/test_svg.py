"""Figures that stand within a page: their colours are the page's, their text is text."""

import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from ssl_backbones.report.page.plots import (
    NUM_COLOURS,
    figure_style,
    run_colour,
    run_dashes,
    to_svg,
)

SCRIPT = "<script>alert('$x$')</script>"


def figure(name="a", label="iteration", title="", runs=range(2)):
    with figure_style():
        drawn = Figure()
        axis = drawn.subplots()
        for run in runs:
            axis.plot([0, 1], [run, 1], color=run_colour(run), dashes=run_dashes(run))
        axis.set(xlabel=label, title=title)
        axis.grid()
        return to_svg(drawn, name=name, description=SCRIPT)


def test_colours_are_left_to_the_page():
    svg = figure(runs=range(NUM_COLOURS))
    assert {f"var(--run-{i})" for i in range(NUM_COLOURS)} == set(re.findall(r"var\(.*?\)", svg))
    assert "stroke: currentColor" in svg and "fill: currentColor" in svg
    # No colour of its own, and nothing that covers the page behind it.
    assert not re.search(r"#[0-9a-f]{6}", svg)
    assert "<style" not in svg and "<metadata" not in svg and "<?xml" not in svg


def test_text_is_text_and_never_markup_or_a_formula():
    svg = figure(title=SCRIPT)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == SCRIPT and root.get("role") == "img"
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert SCRIPT in texts and "iteration" in texts
    assert "<script" not in svg


def test_figures_of_one_page_share_no_ids_and_find_what_they_refer_to():
    ids = [set(re.findall(r'id="(.*?)"', figure(name))) for name in ("a", "b")]
    assert ids[0] and not ids[0] & ids[1]
    used = re.findall(r'(?:url\(|href=")#(.*?)["\)]', figure("a"))
    assert used and set(used) <= ids[0]


def test_pictures_within_a_figure_stay():
    with figure_style():
        drawn = Figure()
        drawn.subplots().imshow([[0.0, 1.0]])
        svg = to_svg(drawn, name="a", description="")
    assert 'href="data:image/png;base64,' in svg


def test_the_same_figure_is_the_same_text():
    assert figure() == figure()


@pytest.mark.parametrize("first", range(3))
def test_neighbouring_runs_differ_without_colours_and_many_runs_with_both(first):
    assert len({run_dashes(first + i) for i in range(5)}) == 5
    assert len({(run_colour(i), run_dashes(i)) for i in range(first, first + 40)}) == 40
