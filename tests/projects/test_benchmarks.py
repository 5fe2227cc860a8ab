"""The benchmarks: that they measure fairly, that a wrong result fails, and every row in small."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
# Last: nothing that is installed gets another meaning.
sys.path.append(str(CHECKOUT))

from projects.benchmarks import measuring, processes, results  # noqa: E402
from projects.benchmarks.machine import circumstances, file_stem, machine  # noqa: E402
from projects.benchmarks.row import Comparison, Disagreement, Row, all_rows, select  # noqa: E402

ROWS = """
import os
from projects.benchmarks.machine import circumstances, file_stem, machine  # noqa: E402
from projects.benchmarks.row import Comparison, Disagreement, Row

def equal(stock, ours):
    if stock != ours:
        raise Disagreement(f"{ours} instead of {stock}")

def comparison(ours):
    return lambda folder, small: Comparison(lambda: (1, 8.0), ours, equal, measured=True)

def row(name, ours, **more):
    return Row(name, f"what {name} is", "equal", 0.3, 0.5, comparison(ours), **more)

ROWS = [
    row("right", lambda: (1, 2.0)),
    row("right-too", lambda: (1, 3.0)),
    row("wrong", lambda: (2, 2.0)),
    row("raises", lambda: 1 / 0),
    row("dies", lambda: os._exit(3)),
    row("elsewhere", lambda: (1, 2.0), needs=lambda: "no GPU"),
]
"""


def row(prepare, **more) -> Row:
    defaults = {"name": "row", "what": "", "same": "", "goal": 0.5, "must": 0.8}
    return Row(**{**defaults, "prepare": prepare, **more})


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Runs a script of the benchmarks, copied to where the rows are `ROWS`."""
    root = tmp_path_factory.mktemp("checkout")
    folder = root / "projects" / "benchmarks"
    shutil.copytree(
        CHECKOUT / "projects" / "benchmarks",
        folder,
        ignore=shutil.ignore_patterns("rows", "results", "__pycache__"),
    )
    (folder / "rows").mkdir()
    (folder / "rows" / "some.py").write_text(ROWS)

    def run(script: str, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(folder / script), *words],
            capture_output=True,
            text=True,
            timeout=120,
        )

    run.results = folder / "results"
    return run


def test_a_row_with_a_wrong_result_fails_and_the_others_are_measured(copied):
    done = copied("benchmark.py", "--repeats", "2")
    assert done.returncode == 1, done.stderr
    (file,) = copied.results.glob("*.json")
    rows = json.loads(file.read_text())["rows"]
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "right": "met",
        "right-too": "must met",
        "wrong": "results differ",
        "raises": "failed",
        "dies": "failed",
        "elsewhere": "not run",
    }
    assert rows["right"]["ratio"] == 0.25 and rows["right"]["ours"] == [2.0, 2.0]
    assert rows["wrong"]["reason"] == "2 instead of 1" and "ratio" not in rows["wrong"]
    assert rows["dies"]["reason"] == "its process ended with status 3"
    assert "ZeroDivisionError" in done.stderr and "Traceback" in done.stderr
    for text in (done.stdout, file.with_suffix(".md").read_text()):
        assert "results differ: 2 instead of 1" in text and "not run: no GPU" in text


def test_one_row_replaces_itself_alone(copied):
    copied.results.mkdir(exist_ok=True)
    file = copied.results / f"{file_stem(machine())}.json"
    old = {"verdict": "old", "reason": "so", "what": "", "same": "", "goal": None, "must": None}
    old |= {"absolute": False, "unit": "s", **circumstances()}
    file.write_text(json.dumps({"rows": {"wrong": old, "right-too": old, "no row any more": old}}))
    done = copied("benchmark.py", "--row", "right", "--row", "elsew", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())["rows"]
    assert list(rows) == ["right", "right-too", "wrong", "elsewhere"]
    assert [row["verdict"] for row in rows.values()] == ["met", "old", "old", "not run"]


def test_small_runs_leave_the_results_alone(copied):
    before = sorted(copied.results.glob("*")) if copied.results.exists() else []
    done = copied("benchmark.py", "--row", "right-", "--small", "--repeats", "1")
    assert done.returncode == 0 and "must met" in done.stdout
    assert before == (sorted(copied.results.glob("*")) if copied.results.exists() else [])


def test_an_unknown_row_is_named(copied):
    done = copied("benchmark.py", "--row", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no row is called 'nothing'; there are right, right-too")


def test_the_profile_shows_where_the_time_goes(copied):
    done = copied("profile.py", "right", "--side", "stock")
    assert done.returncode == 0, done.stderr
    assert "== right, stock: what right is" in done.stdout and "<lambda>" in done.stdout


@pytest.mark.parametrize(
    ("stock", "ours", "more", "verdict"),
    [
        ([2.0, 1.0, 9.0], [1.0, 1.0, 30.0], {}, "met"),  # medians: 1 of 2
        ([2.0], [1.01], {}, "must met"),
        ([2.0], [1.6], {}, "must met"),
        ([2.0], [1.61], {}, "falls short"),
        ([2.0], [1.01], {"must": None}, "falls short"),
        ([2.0], [1.6], {"goal": None}, "must met"),
        ([2.0], [9.0], {"goal": None, "must": None}, "no goal"),
        # The bounds are seconds: half of stock's 1.2 is not asked.
        ([1.2], [0.7], {"absolute": True}, "must met"),
        ([0.1], [0.5], {"absolute": True}, "met"),
    ],
)
def test_a_verdict_follows_from_the_medians(stock, ours, more, verdict):
    assert measuring.judge(row(None, **more), {"stock": stock, "ours": ours}) == verdict


@pytest.mark.parametrize(
    ("long", "calls"),
    [
        # The warm-up, then three repeats in which the sides change places.
        (False, "so so os so"),
        (True, "so"),
    ],
)
def test_the_sides_take_turns(tmp_path, long, calls):
    order = []
    checks = []
    comparison = Comparison(
        lambda: order.append("s"), lambda: order.append("o"), lambda *both: checks.append(both)
    )
    result = measuring.measure(row(lambda *_: comparison, long=long), tmp_path, repeats=3)
    assert "".join(order) == calls.replace(" ", "")
    assert len(result["ours"]) == len(result["stock"]) == (1 if long else 3)
    assert len(checks) == (1 if long else 2)


def test_a_result_that_goes_wrong_only_later_is_found(tmp_path):
    given = iter([1, 1, 2])

    def check(stock, ours):
        if stock != ours:
            raise Disagreement("later")

    comparison = Comparison(lambda: 1, lambda: next(given), check)
    result = measuring.measure(row(lambda *_: comparison), tmp_path, repeats=2)
    assert result == {"verdict": "results differ", "reason": "later"}


def test_the_report_gives_medians_spread_and_limit():
    measured = {
        "verdict": "must met",
        "opponent": "a script",
        "stock": [3.0, 1.0, 2.0],
        "ours": [0.9, 0.4, 0.5],
        "ratio": 0.25,
        "limit": ("reading alone", 0.25),
        "notes": ["A note."],
    }
    asked = row(None, name="read", what="reading", same="equal", goal=0.2, must=0.3)
    around = {"date": "today", "commit": "abc", "versions": {"python": "3"}, "load_before": 0.1}
    content = {
        "machine": {"processor": "P", "cores": 2, "memory_gib": 4, "system": "S", "gpu": None},
        "rows": {"read": results.record(asked, measured, around)},
    }
    report = list(results.report(content))
    assert (
        "| read | 2 (1..3) s | 0.5 (0.4..0.9) s | 0.250 (1/4.0) | ≤ 0.2 (0.3) | must met |"
        in report
    )
    assert report[-7:] == [
        "- Measured: reading.",
        "- The same result: equal.",
        "- Against: a script.",
        "- Ratios of the 3 repeats: 0.250 to 0.400.",
        "- Limit: reading alone: 0.25 s, 50% of ours.",
        "- A note.",
        "- today, commit abc, load before 0.1; python 3.",
    ]


def test_a_process_is_measured_without_the_memory_of_the_one_that_starts_it():
    ballast = bytearray(400 * 2**20)
    ballast[::4096] = b"x" * len(ballast[::4096])  # touched, so it is resident
    grown = processes.run([sys.executable, "-c", "x = b'x' * (100 * 2**20); print('done')"])
    assert grown.output == "done\n"
    assert 100 < grown.peak_mib < 300
    assert grown.seconds > 0
    with pytest.raises(subprocess.CalledProcessError) as failure:
        processes.run([sys.executable, "-c", "print('half'); raise SystemExit(4)"])
    assert failure.value.returncode == 4 and failure.value.output == "half\n"


@pytest.mark.parametrize("name", [row.name for row in all_rows() if not row.long])
def test_both_sides_of_every_row_agree(name, tmp_path):
    (row,) = select([name], all_rows())
    result = measuring.measure(row, tmp_path, repeats=1, small=True)
    assert result["verdict"] not in measuring.BAD, result
