"""The quickstart in miniature, every step of it, and how it judges."""

import hashlib
import importlib.util
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
from wheel_files import augnet_bytes, write_wheel

from ssl_backbones.weights import resolution
from ssl_backbones.weights.resolution import NamedWeights, PublishedHash
from ssl_backbones.weights.wheels import WheelFile
from tools import convert_checkpoint

CHECKOUT = Path(__file__).parents[2]
SCRIPT = "projects/digits/quickstart.py"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("digits_quickstart", CHECKOUT / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands_of_the_page(heading: str) -> list[str]:
    """The lines of the first block below a line of the project's README that begin with `python`."""
    page = (CHECKOUT / "projects" / "digits" / "README.md").read_text()
    block = page.partition(heading)[2].partition("```bash\n")[2].partition("```")[0]
    return re.findall(r"^python (.+)$", block, flags=re.MULTILINE)


def test_all_steps_in_miniature_without_augnet(run_tool, tmp_path, wheels):
    """In whose folder of wheels there is none."""
    done = run_tool(
        SCRIPT,
        *("--output", str(tmp_path / "out"), "--num-train", "4", "--num-test", "2"),
        *("--pretrain-iterations", "1", "--iterations", "2", "--min-ap50", "0"),
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    why = [line for line in done.stdout.splitlines() if line.startswith("without AugNet, MoCo v2")]
    assert len(why) == 1 and "cannot fetch imgsim/model.pth in the wheel of imgsim" in why[0]
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ python ")]
    first, *later = commands_of_the_page("It runs these")
    shown = [first, *commands_of_the_page("Where AugNet cannot be fetched"), *later[-2:]]
    assert [command.split()[2] for command in commands] == [line.split()[0] for line in shown]
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


def test_augnet_is_converted_with_proof_and_kept(quickstart, tmp_path, wheels, monkeypatch, capsys):
    """Out of a wheel as it is published, but for a smaller network; the steps around are only counted."""
    model = augnet_bytes()
    sha256 = hashlib.sha256(model).hexdigest()
    row = NamedWeights(
        "augnet_imagenet",
        WheelFile("imgsim", "0.1.2", "imgsim/model.pth", "MIT"),
        "augnet",
        "",
        PublishedHash("sha256", sha256, "RECORD in the wheel"),
    )
    monkeypatch.setattr(resolution, "NAMED_WEIGHTS", {row.name: row})
    write_wheel(wheels, model)
    called = []

    def step(title: str, *words: object) -> None:
        called.append([str(word) for word in words])
        if called[-1][0] == "tools/convert_checkpoint.py":
            assert convert_checkpoint.main(called[-1][1:]) == 0

    monkeypatch.setattr(quickstart, "step", step)
    arguments = quickstart.parse_arguments(["--output", str(tmp_path / "out")])
    run_folder = quickstart.run_steps(arguments)
    shown = commands_of_the_page("It runs these")
    assert [words[0] for words in called] == [line.split()[0] for line in shown]
    converted = tmp_path / "out" / "augnet_imagenet.pkl"
    assert f"train.init_checkpoint={converted}" in called[2]
    assert f"train.output_dir={run_folder}" in called[2]
    found = pickle.loads(converted.read_bytes())["provenance"]  # our own file
    assert found["source_sha256"] == sha256 and found["proof"]["margin"] > 1
    assert found["package"] == "imgsim 0.1.2: imgsim/model.pth" and found["license"] == "MIT"
    printed = " ".join(capsys.readouterr().out.split())
    assert f"sha256 {sha256} published in imgsim 0.1.2: imgsim/model.pth licence MIT" in printed
    assert "res5 in float64" in printed and "wrong on purpose: BGR statistics" in printed

    # What the cache has takes no lock, which a shared folder may not allow.
    (wheels / "imgsim-0.1.2-py3-none-any.whl").unlink()
    shutil.rmtree(tmp_path / "cache" / "locks")
    (tmp_path / "cache" / "locks").touch()
    assert convert_checkpoint.main([*called[1][1:], "--force"]) == 0
    capsys.readouterr()

    # Again, with nothing left to fetch it from.
    shutil.rmtree(tmp_path / "cache")
    before = converted.read_bytes()
    assert quickstart.run_steps(arguments) == run_folder
    assert called[4:] == [called[0], [*called[1][:1], "verify", str(converted)], *called[2:4]]
    assert converted.read_bytes() == before
    printed = " ".join(capsys.readouterr().out.split())
    assert f"made from imgsim-0.1.2-model.pth, sha256 {sha256}" in printed
    assert "published in imgsim 0.1.2" in printed and "res5 in float64" in printed


def test_a_failing_step_ends_it_with_its_status(run_tool, tmp_path):
    done = run_tool(
        *(SCRIPT, "--output", str(tmp_path), "--num-train", "0"),
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "num_train is 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert "2 of 4" not in done.stdout


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
