"""The study on photographs: its plan, its spoilt weights, a cell in miniature, and what is committed."""

import csv
import re
import sys
from pathlib import Path

import pytest
import torch
from own_data import own_data
from torchvision.models import resnet50

CHECKOUT = Path(__file__).parents[2]
STUDY = "projects/photographs/study.py"
RESULTS = CHECKOUT / "projects/photographs/results"


@pytest.fixture(scope="module", autouse=True)
def checkout_on_the_path():
    """As the project's scripts have it when they run."""
    sys.path.insert(0, str(CHECKOUT))
    yield
    sys.path.remove(str(CHECKOUT))


@pytest.fixture(scope="module")
def study():
    from projects.photographs import study

    return study


@pytest.fixture(scope="module")
def photographs(digits, module_folder):
    """COCO files with masks: 12 scenes to train on, 6 to test on."""
    return own_data(digits, module_folder / "photographs")


@pytest.fixture(scope="module")
def committed():
    with open(RESULTS / "cells.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_plan_has_every_arm_with_every_seed(study, photographs, tmp_path, capsys):
    output = tmp_path / "output"
    assert study.main(["--data", str(photographs), "--plan", "--output", str(output)]) == 0
    *cells, _, total, following = capsys.readouterr().out.splitlines()
    assert cells[:4] == [f"{arm}_finetuned_12_0" for arm in study.ARMS] + ["augnet_finetuned_12_1"]
    assert len(set(cells)) == 9 and re.match(r"9 cells, about \d+ minutes on ", total)
    assert following.startswith(f"next: python {STUDY} --data ")
    assert not output.exists()


def test_what_the_cells_wait_for(study, photographs, tmp_path, monkeypatch):
    """Published weights and a spoilt copy of them, each converted; only those that an arm needs."""
    done = []
    monkeypatch.setattr(
        study.PhotographStudy,
        "prepare",
        lambda self, title, steps: done.extend(step.words for step in steps),
    )
    arguments = study.parse_arguments(["--data", str(photographs), "--output", str(tmp_path)])
    it = study.PhotographStudy(arguments)
    weights = tmp_path / "weights"
    it.prepare_for(list(it.cells.values()))
    shuffled = str(weights / "augnet-shuffled.pth")
    assert done == [
        ("projects/transfer_study/shuffle_layers.py", "ssl://augnet_imagenet", shuffled),
        ("tools/convert_checkpoint.py", "ssl://augnet_imagenet", str(weights / "augnet.pkl")),
        ("tools/convert_checkpoint.py", shuffled, str(weights / "augnet-shuffled.pkl")),
    ]
    done.clear()
    it.prepare_for([cell for cell in it.cells.values() if cell.arm == "scratch"])
    assert done == []
    starts = {
        cell.arm: next(w for w in it.cell_step(cell).words if w.startswith("train.init_checkpoint"))
        for cell in it.cells.values()
    }
    assert starts == {
        "augnet": f"train.init_checkpoint={weights / 'augnet.pkl'}",
        "scratch": "train.init_checkpoint=",
        "augnet-shuffled": f"train.init_checkpoint={weights / 'augnet-shuffled.pkl'}",
    }


def test_layers_of_published_weights_are_spoilt(tmp_path, monkeypatch):
    """44 of 53: of each stage the 3x3 and last 1x1 convolutions, and the first 1x1 but its first block's."""
    from projects.transfer_study import shuffle_layers
    from ssl_backbones.weights import resolution

    torch.manual_seed(0)
    before = {f"module.pre.{name}": tensor for name, tensor in resnet50().state_dict().items()}
    source, path = tmp_path / "model.pth", tmp_path / "shuffled.pth"
    torch.save(before, source)
    monkeypatch.setattr(resolution, "fetch_original", {"ssl://augnet_imagenet": source}.get)
    assert shuffle_layers.main(["ssl://augnet_imagenet", str(path)]) == 0
    after = torch.load(path, weights_only=True)
    assert {name: tensor.shape for name, tensor in after.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    moved = [n for n in before if before[n].ndim == 4 and not torch.equal(before[n], after[n])]
    assert len(moved) == sum(3 * blocks - 1 for blocks in (3, 4, 6, 3)) == 44
    last, first = (f"module.pre.layer3.{block}.conv2.weight" for block in (5, 0))
    assert torch.equal(after[first], before[last])


def test_a_cell_is_a_row_with_its_result_and_its_command(photographs, run_tool, module_folder):
    """Of random weights: published ones would have to be fetched."""
    folder = module_folder / "study"
    cell = "scratch_finetuned_12_7"
    words = ("--iterations", "1", "--seeds", "7", "--only", cell, "--jobs", "1")
    command = (STUDY, "--data", str(photographs), "--output", str(folder), *words)
    done = run_tool(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "cells.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["cell"], row["status"], row["budget"], row["iterations"]) == (
        cell,
        "done",
        "12",
        "1",
    )
    assert row["command"].startswith(
        "OMP_NUM_THREADS=1 python tools/train_net.py --config-file "
        f"projects/photographs/configs/mask_rcnn_r50.py --data {photographs} --resume "
    )
    assert "1 of 1 cells are done" in done.stdout
    assert not list((folder / "cells" / cell).glob("model_*"))
    again = run_tool(*command)
    assert again.returncode == 0 and "== cells" not in again.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iterations", "0"], "--iterations 0: give at least 1"),
        (["--jobs", "0"], "--jobs 0: give at least 1"),
        (["--seeds", "-1"], "--seeds -1: give at least 0"),
        (["--only", "augnet_finetuned_12_3"], "no such cell; --plan lists all 9"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_one_line(study, photographs, tmp_path, capsys, words, message):
    data = ["--data", str(photographs), "--output", str(tmp_path / "study")]
    assert study.main([*data, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


# The results that are committed


def test_no_cell_is_left_out(study, committed):
    assert [(row["arm"], row["seed"]) for row in committed] == [
        (arm, str(seed)) for seed in study.SEEDS for arm in study.ARMS
    ]
    assert {(row["status"], row["budget"]) for row in committed} == {("done", "120")}
    assert {row["iterations"] for row in committed} == {str(study.ITERATIONS)}
    assert len({row["fingerprint"] for row in committed}) == len(committed)
    # Nothing of the machine that it ran on.
    for row in committed:
        words = row["command"].split()
        assert words[:3] == ["OMP_NUM_THREADS=1", "python", "tools/train_net.py"]
        assert not any(word.partition("=")[2].startswith("/") or word[0] == "/" for word in words)
    augnet = {row["weights"] for row in committed if row["arm"] == "augnet"}
    sha256 = (
        "c2cb3cac82642c5698721bd4c57702c3d2ffab077ee9fc277c60ef7359293add"  # of imgsim 0.1.2's file
    )
    assert augnet == {f"{sha256} augnet"}


def test_what_came_out_is_what_the_command_says_of_the_rows(study, run_tool, tmp_path):
    expected = [word for e in study.EXPECTED for word in ("--expect", str(e))]
    done = run_tool(
        *("tools/compare_init.py", str(RESULTS / "cells.csv"), "--reference", "scratch"),
        *("--markdown", str(tmp_path / "tables.md"), *expected),
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "tables.md").read_text()
    assert tables == (RESULTS / "comparison.md").read_text()
    page = (CHECKOUT / "projects/photographs/README.md").read_text()
    told = re.findall(r"^\| (\S+ > \S+) \| (box|mask) AP \| (\S+) \| (.+?) \|$", page, re.MULTILINE)
    assert len(told) == 2 * len(study.EXPECTED)
    for order, task, difference, outcome in told:
        pattern = rf"^\| {order} +\| finetuned +\| 120 +\| {task} AP +\| (\S+) +\| (.+?) +\|$"
        assert re.findall(pattern, tables, re.MULTILINE) == [(difference, outcome)]


def test_the_figures_of_the_page_are_those_of_the_rows(study, committed):
    page = (CHECKOUT / "projects/photographs/README.md").read_text()
    readme = (CHECKOUT / "README.md").read_text()
    lines = dict(re.findall(r"^\| `(\S+)` \| ([\d.]+ \(.*) \|$", page, re.MULTILINE))
    assert set(lines) == set(study.ARMS)
    for arm, line in lines.items():
        cells = line.split(" | ")
        for task, cell in zip(("bbox", "segm"), cells, strict=True):
            values = [float(row[f"{task}/AP"]) for row in committed if row["arm"] == arm]
            each = ", ".join(f"{value:.1f}" for value in values)
            assert cell == f"{sum(values) / 3:.1f} ({each})"
            if task == "bbox":
                assert f"{sum(values) / 3:.1f}" in readme
