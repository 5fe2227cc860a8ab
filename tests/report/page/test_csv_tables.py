"""Tables of runs and of entries, read again by Python's own reader."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_backbones.errors import InputError
from ssl_backbones.report.analysis.findings import Interval
from ssl_backbones.report.content import Report, RunContent, Verdict
from ssl_backbones.report.page.exports import format_csv, format_entries, write_results
from ssl_backbones.report.reading.runs import read_scalars


def rows(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def report():
    record = {
        "fingerprint": "f1",
        "seed": 3,
        "weights": {"source": "moco.pth", "source_sha256": "ab"},
        "command_line": ["train_net.py", "a b", '"'],
    }
    verdict = Verdict(
        40.125,
        Interval(40.125, 38, 42.5),
        Interval(-2, -3, 1),
        0.25,
        "no difference shown",
        38.0,
        published_note="other",
    )
    first = RunContent(
        'a,"b"\n',
        "out/a",
        dataset="digits_test",
        metrics={"bbox/AP": 1.5, "bbox/APl": None},
        verdicts={"bbox/AP": Verdict(1.5, word="other test images")},
    )
    second = RunContent(
        "second",
        "out/b",
        problems=["One.", "Two."],
        evaluation="inference_tta",
        metrics={"bbox/AP": 40.125, "ema/bbox/AP": 41.0},
        facts={"images": 150},
        record=record,
        verdicts={"bbox/AP": verdict},
        published_recipe="moco_1x",
    )
    return Report([first, second], 0.5, 1000, 0)


def test_a_row_a_run():
    first, second = rows(format_csv(report()))
    assert (first["run"], first["dataset"], first["bbox/AP"]) == ('a,"b"\n', "digits_test", "1.5")
    assert first["bbox/AP is"] == "not compared: other test images"
    assert first["bbox/APl"] == first["bbox/AP low"] == first["ema/bbox/AP"] == first["seed"] == ""
    expected = {
        "run": "second",
        "folder": "out/b",
        "images": "150",
        "evaluation": "inference_tta",
        "recipe": "moco_1x",
        "fingerprint": "f1",
        "seed": "3",
        "weights": "moco.pth",
        "weights_sha256": "ab",
        "command": "train_net.py 'a b' '\"'",
        "problems": "One. Two.",
        "bbox/AP": "40.125",
        "bbox/AP low": "38",
        "bbox/AP high": "42.5",
        "bbox/AP difference": "-2",
        "bbox/AP difference low": "-3",
        "bbox/AP difference high": "1",
        "bbox/AP share higher": "0.25",
        "bbox/AP is": "no difference shown",
        "bbox/AP published": "38.0",
        "bbox/AP published note": "other",
        "ema/bbox/AP": "41.0",
    }
    assert {name: second[name] for name in expected} == expected


SCALARS = st.dictionaries(
    st.sampled_from(["lr", "total_loss", "bbox/AP", 'odd "name",']),
    st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
)


@given(st.lists(SCALARS, min_size=1, max_size=6))
def test_a_row_an_entry(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("entries") / "metrics.json"
    lines = [{"iteration": 10 * place, **entry} for place, entry in enumerate(entries)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves, _ = read_scalars(path)
    found = rows(format_entries(RunContent("run", "run", curves=curves)))
    assert [
        {name: float(value) for name, value in row.items() if value != ""} for row in found
    ] == lines


def test_results_are_written_into_the_run_folder(tmp_path):
    run = RunContent("run", str(tmp_path), curves={"lr": [(0, 0.1), (5, 0.2)], "a": [(5, 1)]})
    assert write_results(run) == tmp_path / "results.csv"
    assert (tmp_path / "results.csv").read_text() == "iteration,a,lr\n0,,0.1\n5,1,0.2\n"
    with pytest.raises(InputError, match="cannot write"):
        write_results(RunContent("run", str(tmp_path / "missing")))


def test_what_no_file_can_hold_is_spelled_out(tmp_path):
    run = RunContent("half \ud800", str(tmp_path), curves={"lr \udcff": [(0, 0.1)]})
    (row,) = rows(format_csv(Report([run], 0.5, 1000, 0)))
    assert row["run"] == "half \\ud800"
    assert write_results(run).read_text().startswith("iteration,lr \\udcff\n")
