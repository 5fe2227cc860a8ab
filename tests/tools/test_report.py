"""The command that makes a report of runs, on run folders with the digits test scenes' own annotations."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from small_report import RECORD, write_run

TOOL = Path(__file__).parents[2] / "tools" / "report.py"
FILES = (
    *("results.csv", "results.png", "pr_curves_box.png", "pr_curves_mask.png"),
    *("confusion_matrix.png", "predictions_beside_labels.jpg"),
)


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("report", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def run(digits, tmp_path):
    """The folder of a run that found every object."""
    return write_run(tmp_path / "first", digits)


def test_a_page_beside_the_run_and_the_files_that_people_look_for(main, run, capsys):
    assert main([str(run), "--resamples", "50"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert f"In {run}: {', '.join(FILES)}" in lines
    assert "Box AP 100.0, 95 % interval 100.0 to 100.0." in lines
    assert f"Page: {run / 'report.html'} (open it in a browser)" in lines
    assert lines[-1] == f"Next, is another run better: tools/report.py {run} OTHER_RUN"
    # What is missing is said, and the page is made all the same.
    assert any(line.startswith("first: There is no config") for line in lines)
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "digits_test" in page
    assert page.count("data:image/jpeg;base64,") >= 12
    for name in FILES:
        assert (run / name).stat().st_size > 50
    with open(run / "results.csv") as file:
        assert [row["total_loss"] for row in csv.DictReader(file)] == ["3.0", "2.5", "2.0", "1.5"]
    assert Image.open(run / "results.png").format == "PNG"


def test_the_pictures_alone(main, run, capsys):
    assert main([str(run), "--pictures-only"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"In {run}: {', '.join(FILES)}" in lines
    assert lines[-1] == f"Next, the page with the intervals: tools/report.py {run}"
    assert not (run / "report.html").exists()
    for name in FILES:
        assert (run / name).stat().st_size > 50


def test_two_runs_with_tables_and_nothing_in_their_folders(main, run, digits, tmp_path, capsys):
    other = write_run(tmp_path / "other", digits, found=0.82)
    before = {path: sorted(path.iterdir()) for path in (run, other)}
    outputs = [tmp_path / name for name in ("page.html", "tables.md", "table.csv")]
    flags = ("--out", "--markdown", "--csv")
    options = [str(word) for pair in zip(flags, outputs, strict=True) for word in pair]
    words = [str(run), str(other), *options, "--no-run-files", "--num-pictures", "0"]
    assert main([*words, "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    # The tests' set has few images.
    doubt = "Too few images to say whether"
    assert f"{doubt} box AP of other and first differs: −30.0 points" in printed
    assert f"{doubt} mask AP of other and first differs: 0 points" in printed
    for path in outputs:
        assert str(path) in printed
    # Neither has a record in which fields could differ.
    assert "compare_runs" not in printed and "In " not in printed
    assert {path: sorted(path.iterdir()) for path in (run, other)} == before
    assert "data:image/jpeg" not in outputs[0].read_text()
    assert "−30.0" in outputs[1].read_text() or "-30.0" in outputs[1].read_text()
    with open(outputs[2]) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and {"first", "other"} <= {
        value for row in rows for value in row.values()
    }


def test_a_folder_with_nothing_in_it_is_a_page_that_says_so(main, tmp_path, capsys):
    (tmp_path / "crashed").mkdir()
    assert main([str(tmp_path / "crashed")]) == 0
    printed = capsys.readouterr().out
    assert "crashed: There is no evaluation" in printed
    page = (tmp_path / "crashed" / "report.html").read_text()
    assert "crashed</strong> has no learning curves" in page


def test_a_run_that_may_not_be_written_to_has_its_page_elsewhere(main, run, tmp_path, capsys):
    # A folder in the place of a file cannot be replaced, not even by root.
    (run / "results.png").mkdir()
    (run / "results.png" / "x").touch()
    out = tmp_path / "page.html"
    assert main([str(run), "--out", str(out), "--resamples", "20"]) == 0
    captured = capsys.readouterr()
    assert f"left out: cannot write {run / 'results.png'}" in captured.err
    assert out.exists() and str(out) in captured.out
    assert f"In {run}: results.csv\n" in captured.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["RUN", "--resamples", "0"], "--resamples 0"),
        (["RUN", "--min-score", "2"], "--min-score 2"),
        (["RUN", "--num-pictures", "-1"], "--num-pictures -1"),
        (["RUN", "--images", "x"], "--annotations and --images belong together"),
        (["RUN", "--out", "a", "--csv", "a"], "give different files"),
        (["RUN", "--out", "/dev/null/x"], "cannot write /dev/null/x"),
        (["RUN", "--out", "/tmp"], "cannot write /tmp: it is a folder"),
        (["RUN", "--markdown", "/tmp"], "cannot write /tmp: it is a folder"),
        (["RUN", "--csv", "/proc/x"], "cannot write /proc/x: "),
        (["RUN", "--csv", "RUN/report.html"], "give different files"),
        (["RUN", "--pictures-only", "--csv", "a.csv"], "--pictures-only writes into the runs"),
    ],
)
def test_mistakes_are_one_line(main, tmp_path, capsys, words, message):
    (tmp_path / "run").mkdir()
    words = [word.replace("RUN", str(tmp_path / "run")) for word in words]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1
    assert not list((tmp_path / "run").iterdir())


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['report.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy', 'jinja2'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout


def test_without_jinja2_one_line_says_what_brings_it(run_tool, run):
    blocked = (
        "import runpy, sys; sys.modules['jinja2'] = None\n"
        f"sys.argv = ['report.py', {str(run)!r}, '--resamples', '10']\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')"
    )
    result = run_tool("-c", blocked)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: the module jinja2 is not installed") and "[report]" in last
    shutil.rmtree(run)


def test_a_page_that_cannot_lie_in_the_run_folder_lies_here(
    main, run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    usual = run / "report.html"
    usual.mkdir()
    assert main([str(run), "--resamples", "10", "--num-pictures", "0", "--no-run-files"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = f"cannot write {usual}: it is a folder."
    assert f"The page is not in the folder of the run: {place}" in lines
    assert "Page: report.html (open it in a browser)" in lines
    assert (tmp_path / "report.html").is_file() and not list(usual.iterdir())


def test_runs_with_records_are_compared_next(main, run, digits, tmp_path, capsys):
    other = write_run(tmp_path / "other", digits)
    for folder in (run, other):
        (folder / "run.json").write_text(json.dumps({**RECORD, "recipe": {"train.max_iter": 20}}))
    words = [str(run), str(other), "--out", str(tmp_path / "page.html"), "--no-run-files"]
    assert main([*words, "--resamples", "10", "--num-pictures", "0"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"Next, in which fields do they differ: tools/compare_runs.py {run} {other}"


def test_the_page_tells_the_command_that_made_it(main, run):
    words = [str(run), "--resamples", "10", "--num-pictures", "0", "--no-run-files"]
    assert main(words) == 0
    page = (run / "report.html").read_text()
    assert f"<code>tools/report.py {' '.join(words)}</code>" in page


def test_names_that_utf_8_cannot_write(run_tool, run, tmp_path):
    odd = run.rename(tmp_path / "run \udc80")
    result = run_tool(str(TOOL), str(odd), "--resamples", "10", "--num-pictures", "1")
    assert result.returncode == 0, result.stderr
    assert "run \\udc80" in (odd / "report.html").read_text()
    assert "run \\udc80" in result.stdout
