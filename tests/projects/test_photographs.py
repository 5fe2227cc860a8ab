"""The study on photographs: what is committed of it, and that the page says what the rows do."""

import csv
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "projects/photographs/results"
ARMS, SEEDS = ("augnet", "scratch", "augnet-shuffled"), (0, 1, 2)
EXPECTED = ("augnet > scratch", "augnet > augnet-shuffled")
"""Written down on 30 November 2026, before the study; its README gives the reasons."""


@pytest.fixture(scope="module")
def committed():
    with open(RESULTS / "cells.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_no_cell_is_left_out(committed):
    assert [(row["arm"], row["seed"]) for row in committed] == [
        (arm, str(seed)) for seed in SEEDS for arm in ARMS
    ]
    assert {(row["status"], row["budget"]) for row in committed} == {("done", "120")}
    assert {row["iterations"] for row in committed} == {"500"}
    assert len({row["fingerprint"] for row in committed}) == len(committed)
    # Nothing of the machine that it ran on.
    for row in committed:
        words = row["command"].split()
        assert words[:3] == ["OMP_NUM_THREADS=1", "python", "tools/train_net.py"]
        assert not any(word.partition("=")[2].startswith("/") or word[0] == "/" for word in words)
    augnet = {row["weights"] for row in committed if row["arm"] == "augnet"}
    sha256 = (
        "c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add"  # of imgsim 0.1.2's file
    )
    assert augnet == {f"{sha256} augnet"}


def test_what_came_out_is_what_the_command_says_of_the_rows(run_tool, tmp_path):
    expected = [word for order in EXPECTED for word in ("--expect", f"finetuned: {order}")]
    done = run_tool(
        *("tools/compare_init.py", str(RESULTS / "cells.csv"), "--reference", "scratch"),
        *("--markdown", str(tmp_path / "tables.md"), *expected),
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "tables.md").read_text()
    assert tables == (RESULTS / "comparison.md").read_text()
    page = (CHECKOUT / "projects/photographs/README.md").read_text()
    told = re.findall(r"^\| (\S+ > \S+) \| (box|mask) AP \| (\S+) \| (.+?) \|$", page, re.MULTILINE)
    assert len(told) == 2 * len(EXPECTED) and {order for order, *_ in told} == set(EXPECTED)
    for order, task, difference, outcome in told:
        pattern = rf"^\| {order} +\| finetuned +\| 120 +\| {task} AP +\| (\S+) +\| (.+?) +\|$"
        assert re.findall(pattern, tables, re.MULTILINE) == [(difference, outcome)]


def test_the_figures_of_the_page_are_those_of_the_rows(committed):
    page = (CHECKOUT / "projects/photographs/README.md").read_text()
    readme = (CHECKOUT / "README.md").read_text()
    lines = dict(re.findall(r"^\| `(\S+)` \| ([\d.]+ \(.*) \|$", page, re.MULTILINE))
    assert set(lines) == set(ARMS)
    for arm, line in lines.items():
        cells = line.split(" | ")
        for task, cell in zip(("bbox", "segm"), cells, strict=True):
            values = [float(row[f"{task}/AP"]) for row in committed if row["arm"] == arm]
            each = ", ".join(f"{value:.1f}" for value in values)
            assert cell == f"{sum(values) / 3:.1f} ({each})"
            if task == "bbox":
                assert f"{sum(values) / 3:.1f}" in readme
