"""A report as Markdown, read by a parser that did not write it."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ssl_backbones.report.analysis.findings import ErrorSummary, Interval, TaskAnalysis
from ssl_backbones.report.content import Deviation, RecipeDifference, Report, RunContent, Verdict
from ssl_backbones.report.page.exports import escaped, format_markdown

EVIL = "<script>alert(1)</script> | a_b_ *x* [y](z) `c` & ~~d~~"
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def analysis():
    errors = {
        name: ErrorSummary(count, gain)
        for name, count, gain in (
            ("Cls", 1560, 12.96),
            ("Loc", 100, 1.24),
            ("Both", 3, 0.0),
            ("Dupe", 20, 0.15),
            ("Bkg", 0, 0.0),
            ("Miss", 8, 1.4),
        )
    }
    return TaskAnalysis([], {}, {}, [], errors, [], [], [], {})


def report(name="second"):
    first = RunContent(
        "first",
        "out/first",
        metrics={"bbox/AP": 53.86, "bbox/APl": None, "segm/AP": 47.0}
        | {"keypoints/AP": 61.5, "keypoints/AP50": None, "ema/bbox/AP": 60.0},
        verdicts={
            "bbox/AP": Verdict(53.86, Interval(53.86, 51.46, 56.79), word="the reference"),
        },
        analyses={"bbox": analysis()},
    )
    second = RunContent(
        name,
        "out/second",
        problems=[f"{EVIL} is missing."],
        metrics={"bbox/AP": 40.0},
        verdicts={
            "bbox/AP": Verdict(
                40.0,
                Interval(40.0, 38.0, 42.0),
                Interval(-13.86, -15.0, -12.5),
                0.0,
                "lower",
                38.0,
                "MMDetection",
                "not the same data",
            )
        },
        published_recipe="moco_1x",
        recipe_differences=[
            RecipeDifference("steps", "8 and 11", EVIL, "Detectron2 counts iterations")
        ],
        deviations=[Deviation("optimizer.lr", 0.02, EVIL)],
    )
    return Report([first, second], 0.5, 1000, 0, command_line=["report.py", "out/fir st"])


def shown(text):
    """What a reader sees of one line, if nothing in it is markup; None if something is."""
    (line,) = (token for token in PARSER.parse(text) if token.type == "inline")
    kinds = {token.type for token in line.children}
    return "".join(t.content for t in line.children) if kinds <= {"text", "text_special"} else None


def tables(text):
    """Rows of cells by the heading above them."""
    found, heading, cells = {}, "", None
    for token in PARSER.parse(text):
        if token.type in ("th_open", "td_open"):
            cells = found[heading][-1]
        elif token.type == "tr_open":
            found.setdefault(heading, []).append([])
        elif token.type in ("th_close", "td_close"):
            cells = None
        elif token.type == "inline":
            words = "".join(child.content for child in token.children)
            if cells is None:
                heading = words
            else:
                cells.append(words)
    return found


def test_the_tables():
    found = tables(format_markdown(report()))
    title = "Verdict, with intervals over images (1,000 resamples)"
    assert found[title] == [
        ["run", "metric", "AP", "95 % interval", "difference to first", "is", "published"],
        ["first", "box AP", "53.9", "51.5 to 56.8", "", "the reference", ""],
        [
            "second",
            "box AP",
            "40.0",
            "38.0 to 42.0",
            "−13.9 (−15.0 to −12.5)",
            "lower",
            "38.0; MMDetection; not the same data",
        ],
    ]
    assert found["Average precision"] == [
        ["run", "box AP", "box APl", "mask AP"],
        ["first", "53.9", "–", "47.0"],
        ["second", "40.0", "", ""],
    ]
    assert found["Errors: points of AP50 that mending them gains (how many there are)"][1] == [
        *("first", "box", "13.0 (1,560)", "1.2 (100)", "0.0 (3)", "0.1 (20)", "0.0 (0)", "1.4 (8)")
    ]
    assert found["Other metrics"] == [
        ["run", "keypoint AP", "keypoint AP50"],
        ["first", "61.5", "–"],
        ["second", "", ""],
    ]
    assert found["In what moco_1x is not what was published"] == [
        ["field", "published", "here", "why"],
        ["steps", "8 and 11", EVIL, "Detectron2 counts iterations"],
    ]
    assert found["Deviations of second from the packaged config moco_1x"][1] == [
        "optimizer.lr",
        "0.02",
        EVIL,
    ]


def test_text_of_a_run_is_text():
    text = format_markdown(report(name=EVIL))
    assert "<script" not in text
    rows = next(iter(tables(text).values()))
    assert rows[2][0] == EVIL and len({len(row) for row in rows}) == 1
    kinds = {c.type for token in PARSER.parse(text) for c in token.children or ()}
    assert kinds <= {"text", "text_special"}
    assert tables(text)["Problems"][1] == [EVIL, f"{EVIL} is missing."]
    assert text.endswith("Made by report.py 'out/fir st'\n")


def test_what_no_file_can_hold_is_spelled_out():
    text = format_markdown(report(name="half \ud800"))
    assert text.encode().decode() == text
    assert tables(text)["Average precision"][2][0] == "half \\ud800"


def test_one_run_is_not_compared_and_nothing_is_said_of_what_is_not_there():
    run = dataclasses.replace(report().runs[0], analyses={})
    (verdict, _, other) = tables(text := format_markdown(Report([run], 0.5, 1000, 0))).values()
    assert verdict[0] == ["run", "metric", "AP", "95 % interval", "published"]
    assert other == [["run", "keypoint AP", "keypoint AP50"], ["first", "61.5", "–"]]
    assert "Problems" not in text and "Deviations" not in text and "Errors" not in text
    empty = Report([RunContent("1. r", "r", ["It is empty."])], 0.5, 9, 0, problems=["No."])
    assert tables(format_markdown(empty)) == {
        "Problems": [["run", "problem"], ["", "No."], ["1. r", "It is empty."]]
    }


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])))
def test_any_text_is_shown_as_it_is(text):
    words = " ".join(text.split())
    # As everywhere, it does not begin the line: there "1." would be a list's number.
    assert shown(f"x{escaped(text)}") == f"x{words}"


def test_names_keep_their_underscores():
    assert escaped("moco_1x_seed_0") == "moco_1x_seed_0"
    assert shown(escaped("a _b_ __c__")) == "a _b_ __c__"
