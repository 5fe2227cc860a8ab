"""The command that predicts on images and videos."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from PIL import Image

TESTS = Path(__file__).parents[1]
TOOL = TESTS.parent / "tools" / "predict.py"
TINY = str(TESTS / "tiny.py")


@pytest.fixture
def main(monkeypatch):
    # Its handlers would hold the streams that pytest captures in one test.
    monkeypatch.setattr("detectron2.utils.logger.setup_logger", lambda **_: None)
    spec = importlib.util.spec_from_file_location("predict", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from ssl_backbones.engine.config import load_config

    torch.manual_seed(0)
    model = instantiate(load_config(TINY, ["model.backbone.bottom_up.norm=BN"]).model)
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": model.state_dict()}, path)
    return str(path)


@pytest.fixture
def photos(tmp_path, digits):
    (tmp_path / "photos").mkdir()
    for path in sorted((digits / "test").iterdir())[:3]:
        Image.open(path).save(tmp_path / "photos" / path.name)
    return tmp_path / "photos"


def words(weights, *inputs, out, config=TINY):
    return [
        *map(str, inputs),
        *("--config-file", config),
        *("--weights", weights),
        *("--out", str(out)),
        *("--threshold", "0"),
    ]


def test_it_predicts_and_says_what_where_and_what_next(main, weights, photos, tmp_path, capsys):
    out = photos / "found"
    assert main(words(weights, photos, out=out)) == 0
    printed = capsys.readouterr().out
    assert "3 images, 15 detections that score at least 0" in printed
    for name in ("coco_instances_results.json", "images.json", "pictures"):
        assert str(out / name) in printed
    assert f"--eval-only train.init_checkpoint={weights}" in printed
    assert len(list((out / "pictures").iterdir())) == 3
    # A second time its own pictures are no input.
    first = (out / "coco_instances_results.json").read_text()
    assert main(words(weights, photos, out=out)) == 0
    assert (out / "coco_instances_results.json").read_text() == first


def test_what_cannot_be_read_is_named_and_is_status_2(main, weights, photos, tmp_path, capsys):
    (photos / "spoilt\x1b[2J.jpg").write_bytes(b"no image")
    arguments = words(weights, "nowhere.jpg", photos, out=tmp_path / "out")
    assert main([*arguments, "--no-pictures", "--opts", "train.device=cpu"]) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if "Warning" not in line]
    assert errors[0].startswith("nowhere.jpg: there is no such file")
    assert any("spoilt\\x1b[2J.jpg cannot be used" in line for line in errors)
    assert errors[-1] == "error: inputs that could not be read: 2, named above; the others were"
    assert "3 images" in captured.out
    assert len(json.loads((tmp_path / "out" / "images.json").read_text())["images"]) == 3
    assert not (tmp_path / "out" / "pictures").exists()


def test_nothing_that_is_sure_enough(main, weights, photos, tmp_path, capsys):
    assert main([*words(weights, photos, out=tmp_path / "out"), "--threshold", "1"]) == 0
    printed = capsys.readouterr().out
    assert "0 detections" in printed and "The surest detection scores 0." in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--threshold", "1.5"], "--threshold 1.5"),
        (["--threshold", "nan"], "--threshold nan"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--weights", "nowhere.pth"], "no file at nowhere.pth"),
        (["--config-file", "nowhere.py"], "nowhere"),
        (["--ema"], "holds no averaged weights"),
        (["--out", "/dev/null/x"], "cannot make the folder /dev/null/x"),
        (["--opts", "model.input_format=BGR"], "channel order disagrees"),
        (["--opts", "model.roi_heads.num_classes=3"], "tensors do not come from the checkpoint"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    main, weights, photos, tmp_path, capsys, more, message
):
    assert main([*words(weights, photos, out=tmp_path / "out"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_file_at_all(main, weights, tmp_path, capsys):
    assert main(words(weights, "nowhere.jpg", out=tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "no such file" in error and error.count("\n") == 1
    (tmp_path / "spoilt.jpg").write_bytes(b"no image")
    assert main(words(weights, tmp_path / "spoilt.jpg", out=tmp_path / "out")) == 2
    assert "none of the inputs could be read" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "coco_instances_results.json").read_text()) == []


def test_results_may_lie_beside_the_images_and_replace_none(main, weights, photos, capsys):
    originals = {path.name: path.read_bytes() for path in photos.iterdir()}
    assert main(words(weights, photos, out=photos)) == 0
    assert main(words(weights, photos, out=photos)) == 0
    assert "3 images" in capsys.readouterr().out
    assert (
        originals.items()
        <= {path.name: path.read_bytes() for path in photos.iterdir() if path.is_file()}.items()
    )
    own = photos / "mine" / "pictures"
    own.mkdir(parents=True)
    (own / "000001.jpg").write_bytes(originals["000001.jpg"])
    assert main(words(weights, photos / "000001.jpg", out=own.parent)) == 2
    assert "holds files that no prediction made" in capsys.readouterr().err
    assert (own / "000001.jpg").read_bytes() == originals["000001.jpg"]


def test_help_needs_no_torch(run_tool):
    code = (
        "import runpy, sys; sys.argv = ['predict.py', '--help']\n"
        f"try:\n    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert "examples:" in result.stdout
