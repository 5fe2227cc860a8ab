"""The command that says which initialisation is better."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "compare_init.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("compare_init", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "cells.csv"
    rows = [
        f"{arm},finetuned,{budget},{seed},done,{base + seed},{base + seed}"
        for arm, base in (("scratch", 10), ("moco", 20), ("swav", 21))
        for budget in (50, 400)
        for seed in range(3)
    ]
    path.write_text("\n".join(["arm,protocol,budget,seed,status,bbox/AP,segm/AP", *rows, ""]))
    return path


def test_tables_are_printed_and_files_are_named(main, study, tmp_path, capsys):
    page, figure = tmp_path / "tables.md", tmp_path / "curves.png"
    words = ["--markdown", str(page), "--figure", str(figure), "--expect", "moco > scratch"]
    assert main([str(study), *words, "--metric", "bbox/AP"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert [
        *("finetuned", "50", "moco", "3", "21.0", "20.0", "to", "22.0"),
        *("+10.0", "to", "scratch", "higher"),
    ] in lines
    assert ["finetuned", "400", "box", "AP", "1", "of", "3", "moco", "=", "swav"] in lines
    assert printed.count("came out") == 2 and "mask AP" not in printed
    assert f"tables: {page}\nfigure: {figure}\n" in printed
    assert "| moco > scratch |" in page.read_text()
    assert Image.open(figure).format == "PNG"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metric", "bbox/AR"], "holds no bbox/AR"),
        (["--reference", "best"], "no run is of the arm 'best'"),
        (["--expect", "moco"], "write 'A > B'"),
        (["nowhere"], "No such file"),
    ],
)
def test_mistakes_are_one_line(main, study, tmp_path, capsys, words, message):
    assert main([str(study), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['compare_init.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout
