"""The command that draws what the training mapper feeds."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

TESTS = Path(__file__).parents[1]
TOOL = TESTS.parent / "tools" / "browse_data.py"
TINY = str(TESTS / "tiny.py")


@pytest.fixture
def main(monkeypatch):
    # Its handlers would hold the streams that pytest captures in one test.
    monkeypatch.setattr("detectron2.utils.logger.setup_logger", lambda **_: None)
    spec = importlib.util.spec_from_file_location("browse_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_it_draws_and_says_what_where_and_what_next(main, digits, tmp_path, capsys):
    words = ["--config-file", TINY, "--num-images", "3", f"train.output_dir={tmp_path}"]
    assert main(words) == 0
    folder = tmp_path / "browse_data"
    assert len(list(folder.glob("000?_*.png"))) == 3
    assert Image.open(folder / "overview.png").format == "PNG"
    printed = capsys.readouterr().out
    assert "images         3, of which 0 without an object" in printed
    assert f"All of them: {folder / 'overview.png'}" in printed
    assert f"tools/train_net.py --config-file {TINY} --dry-run" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-images", "0"], "--num-images 0"),
        (["train.sed=1"], "did you mean train.seed"),
        (["dataloader.train.dataset.names=nowhere"], "'nowhere' is not registered"),
        (["--out", "/dev/null/x"], "cannot make the folder /dev/null/x"),
    ],
)
def test_mistakes_are_one_line(main, digits, capsys, words, message):
    assert main(["--config-file", TINY, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['browse_data.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout


def test_a_run_may_lie_in_a_folder_with_an_equals_sign(main, digits, tmp_path, capsys):
    run = tmp_path / "lr=0.1" / "run"
    run.mkdir(parents=True)
    assert main([str(run)]) == 2
    assert f"{run} is not the folder of a run" in capsys.readouterr().err
