"""The quickstart in miniature, every step of it, and how it judges."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SCRIPT = "projects/digits/quickstart.py"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("digits_quickstart", CHECKOUT / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_steps_in_miniature(run_tool, tmp_path):
    done = run_tool(
        SCRIPT,
        *("--output", str(tmp_path / "out"), "--num-train", "4", "--num-test", "2"),
        *("--pretrain-iterations", "1", "--iterations", "2", "--min-ap50", "0"),
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ python ")]
    page = (CHECKOUT / "projects" / "digits" / "README.md").read_text()
    shown = re.findall(r"^python (\S+)", page, flags=re.MULTILINE)
    assert shown[0] == SCRIPT
    assert [command.split()[2] for command in commands] == shown[1:]
    assert len(commands) == 5
    run_folder = tmp_path / "out" / "moco_digits"
    for name in ("predictions_beside_labels.jpg", "results.png", "model_final.pth", "report.html"):
        assert (run_folder / name).stat().st_size > 1000
        assert str(run_folder / name) in done.stdout
    for evaluation in ("inference_start", "inference"):
        metrics = json.loads((run_folder / evaluation / "metrics.json").read_text())
        assert {"bbox", "segm"} <= set(metrics)
    assert "box AP50" in done.stdout and "mask AP50" in done.stdout
    assert str(run_folder / "report.html") in done.stdout.splitlines()[-1]


def test_a_failing_step_ends_it_with_its_status(run_tool, tmp_path):
    done = run_tool(
        *(SCRIPT, "--output", str(tmp_path), "--num-train", "0"),
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "num_train is 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 of 6" not in done.stdout


@pytest.mark.parametrize(
    ("box", "mask", "status"), [(25, 25, 0), (24.9, 60, 1), (60, 24.9, 1), (0, 0, 1)]
)
def test_both_ap50_must_reach_the_limit(quickstart, capsys, box, mask, status):
    after = {("bbox", "AP50"): box, ("segm", "AP50"): mask}
    assert quickstart.judge(after, min_ap50=25) == status
    assert len(capsys.readouterr().err.splitlines()) == status


def test_no_detection_at_all_is_an_ap_of_zero(quickstart, tmp_path):
    (tmp_path / "inference").mkdir()
    metrics = {"dataset": "digits_test", "bbox": {"AP": None, "AP50": None}}
    (tmp_path / "inference" / "metrics.json").write_text(json.dumps(metrics))
    assert set(quickstart.read_metrics(tmp_path, "inference").values()) == {0.0}
