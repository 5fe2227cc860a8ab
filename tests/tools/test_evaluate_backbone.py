"""The command, with real processes: three protocols on miniature data, killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import TINY_FPN, TINY_RUN
from running import checkpoint, difference

from tools import evaluate_backbone

TOOL = "tools/evaluate_backbone.py"
PROTOCOLS = ("voc_c4", "coco_fpn_1x", "low_shot_1")
RUNS = ("voc_c4", "coco_fpn_1x", "low_shot_1_fold0")
SMALL = (
    *(word for word in TINY_RUN if not word.startswith(("train.device=", "train.seed="))),
    *TINY_FPN,
    "train.checkpointer.period=1",
    "train.draw_batches=0",
)


@pytest.fixture(scope="module")
def start(moco_file, module_folder):
    """Start the command with an output folder, in a process group of its own."""
    from ssl_backbones.data.digits.miniatures import write_miniatures

    folder = module_folder
    # Lists of images are made by the command: not in the folder that other tests share.
    datasets = folder / "datasets"
    datasets.mkdir()
    write_miniatures(datasets, num_train=12, num_test=6, size=64, seed=0)
    variables = {"DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1"}
    words = (str(moco_file), "--protocols", ",".join(PROTOCOLS), "--device", "cpu", "--folds", "1")

    def start(output: Path) -> subprocess.Popen:
        with open(f"{output}.txt", "a") as file:
            return subprocess.Popen(
                [sys.executable, TOOL, *words, "--output", str(output), *SMALL],
                env={**os.environ, **variables},
                stdout=file,
                stderr=file,
            )

    start.folder = folder
    return start


def wait_for(condition, process, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_table(start):
    if not Path("/proc/self/task").exists():
        pytest.skip("finds the trainer to kill in /proc")
    whole, broken = start.folder / "whole", start.folder / "broken"
    killed = start(broken)
    wait_for((broken / "voc_c4" / "run.json").exists, killed)
    # What has been converted is not converted again, here to save the time.
    whole.mkdir()
    os.link(broken / "backbone.pkl", whole / "backbone.pkl")
    unbroken = start(whole)
    wait_for((broken / "coco_fpn_1x" / "last_checkpoint").exists, killed)
    (trainer,) = children_of(killed.pid)
    for pid in (killed.pid, trainer):
        os.kill(pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = json.loads((broken / "runs.json").read_text())
    assert {name: run["status"] for name, run in kept.items()} == {
        "voc_c4": "done",
        "coco_fpn_1x": "started",
    }
    assert not (broken / "table.md").exists()
    assert unbroken.wait(900) == 0, Path(f"{whole}.txt").read_text()[-3000:]

    voc = (broken / "voc_c4" / "run.json").read_bytes()
    assert start(broken).wait(900) == 0, Path(f"{broken}.txt").read_text()[-3000:]
    for name in ("table.md", "table.csv", "runs.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name
    # What was done was left alone, and what was not went on where it stood.
    assert (broken / "voc_c4" / "run.json").read_bytes() == voc
    starts = json.loads((broken / "coco_fpn_1x" / "run.json").read_text())["starts"]
    first, second = (each["iteration"] for each in starts)
    assert first == 0 and second in (1, 2)
    for name in RUNS:
        one, two = (checkpoint(folder / name) for folder in (broken, whole))
        assert difference(one["model"], two["model"]) is None, name

    table = (whole / "table.md").read_text()
    for name in RUNS:
        assert json.loads((whole / name / "run.json").read_text())["fingerprint"][:12] in table
    assert (
        "| *published*: MoCo v2, 800 epochs | 57.4 [1] | 82.5 [1] | 64.0 [1] | 40.4† [2] |" in table
    )
    published = "53.5 [1] | 81.3 [1] | 58.8 [1] | 39.7† [2] | 35.9† [2] | 10.0† [3] |  |"
    assert f"| *published*: ImageNet, supervised | {published}" in table
    assert "\\* Not the protocol's recipe" in table and "low_shot_1: 1 of 5 folds" in table
    said, said_first = (Path(f"{folder}.txt").read_text() for folder in (whole, broken))
    assert f"table: {whole / 'table.md'}" in said and "next: python tools/report.py" in said
    assert said_first.count("== conversion") == 1 and "== conversion" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocols", "voc"], "no protocol is called 'voc'"),
        (["--protocols", "voc_c4", "--folds", "0"], "--folds 0"),
        (["--protocols", "voc_c4", "--seed", "-1"], "--seed -1"),
        (["--protocols", "voc_c4", "--repeats", "0"], "--repeats 0"),
        (["--protocols", "voc_c4", "--num-gpus", "0"], "--num-gpus 0"),
        (["--protocols", "voc_c4", "--device", "cpu", "--num-processes", "0"], "--num-processes 0"),
        (["--protocols", "voc_c4", "--num-processes", "2"], "is of --device cpu"),
        (["--protocols", "voc_c4", "--num-gpus", "2", "--device", "cpu"], "use --num-processes"),
        (["--protocols", "voc_c4", "optimizer.lr"], "'optimizer.lr' is no override"),
        (["--protocols", "voc_c4", "train.seed=3"], "train.seed is set by --seed"),
        (["--protocols", "voc_c4", "train={seed: 3}"], "train.seed is set by --seed"),
        (["--protocols", "voc_c4", "train.init_checkpoint=a.pth"], "is set by CHECKPOINT"),
        (["--protocols", "voc_c4", "train.output_dir=a"], "is set by --output"),
        (["--protocols", "voc_c4", "train.device=cpu"], "is set by --device"),
        (
            ["--protocols", "low_shot_1", "dataloader.train.dataset.names=digits_train"],
            "is set by --folds, which low_shot_1 has",
        ),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, words, message):
    output = tmp_path / "out"
    for more in ([], ["--plan"]):
        given = ["ssl://moco_v2_800ep", "--output", str(output), *words, *more]
        assert evaluate_backbone.main(given) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not output.exists()


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("", "CHECKPOINT is empty"),
        (" ", "CHECKPOINT is empty"),
        ("ssl://moco", "no weights are named"),
    ],
)
def test_a_checkpoint_that_is_none_is_one_line(tmp_path, capsys, checkpoint, message):
    output = tmp_path / "out"
    for more in ([], ["--plan"]):
        words = [checkpoint, "--protocols", "voc_c4", "--output", str(output), *more]
        assert evaluate_backbone.main(words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not output.exists()
    assert evaluate_backbone.main([str(tmp_path / "none.pth"), "--protocols", "voc_c4"]) == 2
    assert "no file at" in capsys.readouterr().err


def test_the_plan_runs_nothing_and_needs_no_torch(run_tool, tmp_path):
    words = ["ssl://moco_v2_800ep", "--protocols", "voc_c4,low_shot_1", "--num-gpus", "8", "--plan"]
    code = (
        f"import runpy, sys; sys.argv = {[TOOL, *words, '--output', str(tmp_path / 'out')]!r}\n"
        f"try:\n    runpy.run_path({TOOL!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    # 24,000 x 0.537 s and 5 x 90,000 x 0.261 s.
    assert "1 run, 3.6 hours each" in result.stdout and "36 hours in all" in result.stdout
    assert result.stdout.count("$ python tools/train_net.py") == 6
