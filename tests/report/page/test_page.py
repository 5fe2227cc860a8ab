"""The text of a report's page; what a browser makes of it is tested in tests/end_to_end."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from small_report import SCRIPT, small_report

from ssl_backbones.report.analysis.findings import Interval
from ssl_backbones.report.content import (
    Deviation,
    PublishedField,
    RecipeDifference,
    Report,
    RunContent,
    Verdict,
)
from ssl_backbones.report.page.html_page import MOST_BYTES, format_page, sentences, tracks
from ssl_backbones.report.page.page_tables import is_of_coco

VOID = {"meta", "link", "img", "input", "br", "hr"}
SECTIONS = (
    *("verdict", "curves", "recall", "sizes", "classes", "errors", "confusion", "counts"),
    *("pictures", "provenance"),
)


class Page(HTMLParser):
    """Elements with their attributes, in order, and the text of all but style and script."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.texts, self.unclosed = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            self.unclosed.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return small_report(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def html(report):
    return format_page(report, num_pictures=2)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_all_is_there_the_verdict_first(page):
    assert tuple(section["id"] for section in page.all("section")) == SECTIONS
    assert [link["href"] for link in page.all("a")] == ["#main", *(f"#{name}" for name in SECTIONS)]
    assert not page.unclosed and not page.open
    assert len({e["id"] for _, e in page.elements if "id" in e}) == sum(
        "id" in e for _, e in page.elements
    )
    for words in (
        "53.9",
        "51.4 to 56.3",
        "−0.8",
        "−1.9 to +0.4",
        "above in 20.0 % of the resamples",
    ):
        assert words in page.text
    for words in (
        "Proof of conversion",
        "two",
        "7.3e+04 times",
        "Deviations from the packaged config moco_1x",
        "90000",
    ):
        assert words in page.text
    assert page.text.count("log of <script>") == 2 + 1  # in both verdicts and with what was run


def test_names_from_everywhere_are_text(html, page):
    assert html.count("<script>") == 1 and SCRIPT not in html
    assert len(page.all("script")) == 1
    # Of a class, a run, a file, a command line, a host, a field and its values, a config.
    assert page.text.count(SCRIPT) > 25
    assert f"run {SCRIPT}" in page.text and f"model: {SCRIPT}" in page.text


def test_no_script_but_ours_may_run_and_nothing_may_be_loaded(html, page):
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    links = [e.get("src") or e.get("href") for t, e in page.elements if t in ("img", "link")]
    assert links and all(link.startswith("data:") for link in links)
    assert not [name for _, e in page.elements for name in e if name.startswith("on")]
    assert "url(http" not in html and "@import" not in html


def test_published_numbers_are_called_so_with_their_source(page):
    assert "38.0 published MMDetection. not the same data" in page.text


def test_a_run_of_which_nothing_is_left_is_told_so_everywhere(tmp_path):
    bare = RunContent("bare", "output/bare", problems=["There is no evaluation."])
    report = small_report(tmp_path, num_runs=1)
    page = Page(format_page(replace(report, runs=[*report.runs, bare]), num_pictures=1))
    for what in ("learning curves", "precision and recall", "AP by class", "confusion matrix"):
        assert f"bare has no {what}: why There is no evaluation." in page.text
    assert "bare has no box AP to compare." in page.text
    assert "No provenance is recorded" in page.text
    # What the other run has is there all the same.
    assert len(page.all("img")) >= 2 and "53.9" in page.text


def test_nothing_at_all_is_a_page_too():
    page = Page(format_page(Report([RunContent("bare", "bare")], 0.5, 1000, 0)))
    assert tuple(section["id"] for section in page.all("section")) == SECTIONS
    assert "bare has no learning curves" in page.text


def test_images_that_are_gone_are_said(tmp_path):
    report = small_report(tmp_path, num_runs=1)
    for path in report.test_images["small_test"].files.values():
        (tmp_path / path).unlink()
    page = Page(format_page(report))
    assert not page.all("img")
    assert "cannot be drawn: No such file or directory" in page.text


def test_three_runs_of_eighty_classes_and_large_pictures_keep_within_five_megabytes(tmp_path):
    names = [f"class {number}" for number in range(80)]
    report = small_report(tmp_path, num_runs=3, num_images=30, size=480, classes=names)
    html = format_page(report)
    assert MOST_BYTES / 2 < len(html.encode()) < MOST_BYTES
    page = Page(html)
    assert "the page would be too large otherwise" in page.text
    assert "class 79" in page.text and page.all("img")
    # A matrix of 81 rows is a figure, and its largest numbers are named.
    assert "matrix" not in [element.get("class") for element in page.all("table")]
    assert "Commonest confusions of classes" in page.text


def of(value, difference=None, word="the reference"):
    return Verdict(value, Interval(value, value - 2, value + 2), difference, word=word)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (
            of(41, Interval(1.25, 0.5, 2), "higher"),
            "b has a higher box AP than a: +1.2 points, 95 % interval +0.5 to +2.0.",
        ),
        (
            of(39, Interval(-1, -2, -0.04), "lower"),
            "b has a lower box AP than a: −1.0 points, 95 % interval −2.0 to −0.0.",
        ),
        (
            of(40, Interval(0, 0, 0), "no difference shown"),
            "No difference in box AP between b and a is shown: 0 points, 95 % interval 0 to 0.",
        ),
        (
            of(40, None, "other test images"),
            "Box AP of b is not compared with a: other test images.",
        ),
        (
            of(42, Interval(2, 1, 3), "too few images to say"),
            "Too few images to say whether box AP of b and a differs: +2.0 points, 95 % interval +1.0 to "
            "+3.0.",
        ),
        (None, "b has no box AP to compare."),
    ],
)
def test_the_verdict_in_words(verdict, expected):
    verdicts = {} if verdict is None else {"bbox/AP": verdict}
    runs = [RunContent("a", "a", verdicts={"bbox/AP": of(40)}), RunContent("b", "b")]
    runs[1].verdicts = verdicts
    assert sentences(runs, "bbox", "box") == [expected]


def test_the_verdict_on_a_single_run():
    run = RunContent("a", "a", verdicts={"bbox/AP": of(40)})
    assert sentences([run], "bbox", "box") == ["Box AP 40.0, 95 % interval 38.0 to 42.0."]
    assert sentences([run], "segm", "mask") == ["There is no mask AP."]


def test_intervals_of_all_runs_lie_on_one_scale(report):
    first, second = tracks(report.runs, "bbox")
    # 51.4 to 56.3 and 50.6 to 55.5 on a scale from 50.6 - 0.456 to 56.3 + 0.456 (8 % of 5.7).
    assert second["ap"].low == pytest.approx(100 * 0.456 / 6.612, abs=0.01)
    assert first["ap"].high == pytest.approx(100 - 100 * 0.456 / 6.612, abs=0.01)
    assert first["ap"].low < first["ap"].value < first["ap"].high
    assert "difference" not in first and second["difference"].zero == 50
    assert second["difference"].value < 50 < second["difference"].high


def test_identical_runs_lie_on_zero():
    run = RunContent(
        "a", "a", verdicts={"bbox/AP": of(40, Interval(0, 0, 0), "no difference shown")}
    )
    (found,) = tracks([run], "bbox")
    assert found["difference"].low == found["difference"].high == 50


def rendered(*runs, **fields):
    return Page(format_page(Report(list(runs), 0.5, 1000, 0, **fields), num_pictures=0))


def of_coco(name, **metrics):
    """A run without detections, so that all numbers are those of its evaluation."""
    sizes = {"bbox/APs": 1.0, "bbox/APm": None, "bbox/APl": 3.0}
    return RunContent(
        name, name, metrics={"bbox/AP": 40.0, **sizes, **metrics}, verdicts={"bbox/AP": of(40.0)}
    )


def test_what_no_run_measured_is_no_dash():
    page = rendered(of_coco("a"), RunContent("b", "b"))
    # AP50 and AP75 of the first run were not told either; it has no medium object.
    assert "a 40.0 not measured not measured 1.0 – 3.0" in page.text
    assert "b" + 6 * " not measured" in page.text


def test_ap_is_called_coco_s_only_if_it_is():
    voc = RunContent(
        "voc",
        "voc",
        metrics={"bbox/AP": 50.0, "bbox/AP50": 80.0, "bbox/AP75": 55.0},
        verdicts={"bbox/AP": of(50.0)},
    )
    caption = "COCO, IoU 0.50 to 0.95"
    assert caption in rendered(of_coco("a")).text and caption not in rendered(voc).text
    assert not is_of_coco([of_coco("a"), voc], "bbox") and not is_of_coco([], "bbox")


def test_metrics_of_other_tasks_have_a_table():
    numbers = {"keypoints/AP": 64.04, "keypoints/AP50": None}
    page = rendered(of_coco("a", **numbers), RunContent("b", "b"))
    assert "Other metrics of the evaluations metric a b" in page.text
    assert "keypoint AP 64.0 not measured" in page.text
    assert "keypoint AP50 – not measured" in page.text
    assert "Other metrics" not in rendered(of_coco("a")).text


def test_what_intervals_cover_is_told_as_it_was_measured(page):
    assert "of differences held the truth in 95 % of the test sets, and those of an AP" in page.text
    assert "in about 90 %" in page.text


def test_where_the_packaged_config_is_not_what_was_published():
    run = RunContent("a", "a", published_recipe="moco_1x")
    run.published_fields = [
        PublishedField("batch", "16", "4", ("dataloader.train.total_batch_size",)),
        PublishedField("steps", "2", "3", ("lr_multiplier.scheduler.milestones",)),
        PublishedField("frozen", "0", "1", ("model.backbone.bottom_up.freeze_at",)),
        PublishedField("classes", "80", "80", ("model.roi_heads.num_classes",)),
        PublishedField("rate", "0.03", "0.01", ("optimizer.lr",)),
    ]
    run.recipe_differences = [
        RecipeDifference("frozen", "0", "1", "stock has no such stage"),
        RecipeDifference("rate", "0.03", "0.02", "a smaller batch"),
    ]
    run.deviations = [
        Deviation("dataloader.train.total_batch_size", 16, 4),
        Deviation("lr_multiplier.scheduler.milestones.0", 2, 3),
        Deviation("model.roi_heads.num_classes_of_mask", 1, 2),
        Deviation("optimizer.lr", 0.02, 0.01),
    ]
    page = rendered(run)
    assert "Where the packaged config moco_1x is not what was published" in page.text
    assert "frozen 0 1 stock has no such stage" in page.text
    for words in ("batch differs in this run 16 4", "steps differs in this run 2 3"):
        assert words in page.text
    assert "frozen differs in the packaged config 0 1" in page.text
    assert "rate differs in the packaged config and in this run 0.03 0.01" in page.text
    assert "classes 80 80" in page.text


def test_a_run_of_the_packaged_config_is_said_to_be_that_and_no_more():
    page = rendered(RunContent("a", "a", published_recipe="moco_1x"))
    assert "No field differs from the packaged config moco_1x." in page.text
    assert "Where the packaged config" not in page.text


def test_names_that_utf_8_cannot_write_are_escaped(tmp_path):
    report = small_report(tmp_path, classes=("se\udc80ven", "two"))
    report.runs[0].name = "run \ud83d"
    html = format_page(report, num_pictures=1)
    html.encode()
    assert "se\\udc80ven" in Page(html).text and "run \\ud83d" in Page(html).text
    assert Page(html).all("img")


def test_a_page_whose_text_alone_is_too_large_says_so():
    run = RunContent("a", "a", config="x" * MOST_BYTES)
    page = Page(format_page(Report([run], 0.5, 1000, 0)))
    assert "The text alone of this page is 5.0 MB, more than the 5 MB" in page.text
    assert "The text alone" not in rendered(RunContent("a", "a")).text


def test_what_scrolls_is_a_group_with_a_name_of_its_own_and_no_landmark(page):
    assert not [e for _, e in page.elements if e.get("role") == "region"]
    groups = [e for _, e in page.elements if e.get("role") == "group"]
    assert len(groups) > 20 and all(e["aria-label"] for e in groups)
    assert {"config, run 0", "installed packages, run 0", "The run, run 0"} <= {
        e["aria-label"] for e in groups
    }
    assert all(e.get("aria-label") for e in page.all("pre"))


def test_a_page_tells_problems_and_not_what_to_give_a_command():
    known = (
        "What was run is not known: cannot read run.json: No such file; give the folder of a run.",
        "It is not known on which dataset; give its annotations by --annotations and --images.",
        "The annotations are not at datasets/x; set DETECTRON2_DATASETS, or give --annotations.",
    )
    page = rendered(RunContent("a", "a", problems=list(known)), problems=[known[1]])
    for words in ("give", "--annotations", "DETECTRON2_DATASETS"):
        assert words not in page.text
    for problem in known:
        assert f"{problem.partition(';')[0]}." in page.text
    whole = "a was tested on 3 images; b on 5: they are not compared."
    assert whole in rendered(RunContent("a", "a", problems=[whole])).text


def test_the_head_tells_the_images_of_each_run():
    runs = [RunContent(name, name, facts={"images": n}) for name, n in (("a", 8), ("b", 5))]
    assert "images of a 8 images of b 5" in rendered(*runs).text
