"""The command that draws a run folder."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "draw_run.py"


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("draw_run", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_it_draws_both_pictures_and_says_where(main, digits, tmp_path, capsys):
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "metrics.json").write_text('{"dataset": "digits_test"}')
    (tmp_path / "inference" / "coco_instances_results.json").write_text("[]")
    (tmp_path / "metrics.json").write_text(json.dumps({"iteration": 0, "total_loss": 3.0}))
    assert main([str(tmp_path), "--num-images", "2"]) == 0
    printed = capsys.readouterr().out
    for name in ("predictions.png", "losses.png"):
        assert str(tmp_path / name) in printed
        assert Image.open(tmp_path / name).format == "PNG"
    assert "the first 2 images of digits_test" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "no evaluation in"), (["--num-images", "0"], "--num-images 0")],
)
def test_mistakes_are_one_line(main, tmp_path, capsys, words, message):
    assert main([str(tmp_path), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
