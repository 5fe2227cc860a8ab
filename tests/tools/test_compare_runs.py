"""The command that says in what two runs differ."""

import importlib.util
import json
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_runs.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("compare_runs", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def write(tmp_path):
    def write(name, recipe, torch="2.14.1"):
        folder = tmp_path / name
        folder.mkdir()
        content = {"recipe": recipe, "environment": {"versions": {"torch": torch}}, "starts": []}
        (folder / "run.json").write_text(json.dumps(content))
        return str(folder)

    return write


def test_what_affects_the_result_is_status_1(main, write, capsys):
    a = write("a", {"optimizer.lr": 0.02, "train.max_iter": 90000, "same": None})
    b = write("b", {"optimizer.lr": 0.01, "slots": 8, "train.max_iter": 90000, "same": None})
    assert main([a, b]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "2 differences affecting the result:"
    rows = {line.split()[0]: line.split()[1:] for line in printed[1:] if line.strip()}
    assert rows["optimizer.lr"] == ["0.02", "0.01"]
    assert rows["slots"] == ["(absent)", "8"]
    assert "same" not in rows and "train.max_iter" not in rows
    assert printed[-1] == "no differences of versions, machine and code"


def test_another_version_alone_is_told_and_is_status_0(main, write, capsys):
    assert main([write("a", {"x": 1}), write("b", {"x": 1}, torch="2.13.0")]) == 0
    printed = capsys.readouterr().out
    assert "no differences affecting the result" in printed
    assert "versions.torch  2.14.1" in printed and "2.13.0" in printed


def test_a_folder_without_a_record_is_one_line_and_status_2(main, write, tmp_path, capsys):
    assert main([write("a", {}), str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "run.json: No such file" in error


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['compare_runs.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout
