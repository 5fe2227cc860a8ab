"""The transfer study in miniature: its plan, its pretrainings, its controls, and its record."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torchvision.models import resnet18

CHECKOUT = Path(__file__).parents[2]
STUDY = "projects/transfer_study/study.py"
PRETRAIN = ["--iterations", "2", "--batch-size", "2", "--num-scenes", "4", "--crop-size", "32"]
BACKBONE = {name for name in resnet18().state_dict() if not name.startswith("fc.")}


@pytest.fixture(scope="module", autouse=True)
def checkout_on_the_path():
    """As the project's scripts have it when they run."""
    sys.path.insert(0, str(CHECKOUT))
    yield
    sys.path.remove(str(CHECKOUT))


@pytest.fixture(scope="module")
def cells():
    from projects.transfer_study import cells

    return cells


# The plan


def test_the_plan_has_every_arm_budget_seed_and_protocol_once(cells):
    plan = list(cells.cells())
    # 6 arms, 2 budgets, 3 seeds; random weights are not frozen.
    assert len({cell.name for cell in plan}) == len(plan) == 6 * 2 * 3 + 5 * 2 * 3
    frozen = {cell.arm: cells.freeze_at(cell) for cell in plan if cell.protocol == "frozen"}
    trained = {cell.arm: cells.freeze_at(cell) for cell in plan if cell.protocol == "finetuned"}
    assert set(frozen) == set(trained) - {"scratch"} and set(frozen.values()) == {5}
    assert trained == {arm: int(arm != "scratch") for arm in cells.ARMS}


def test_the_readme_gives_a_reason_for_everything_expected(cells):
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    rows = re.findall(r"^\| (finetuned|frozen) \| (\S+) > (\S+) \| .+ \|$", page, re.MULTILINE)
    assert rows == [(e.protocol, e.higher, e.lower) for e in cells.EXPECTED]
    assert all({e.higher, e.lower} <= set(cells.ARMS) for e in cells.EXPECTED)
    for arm in cells.ARMS:
        assert f"| `{arm}` |" in page
    assert f"trains {len(list(cells.cells()))} detectors" in page


@pytest.mark.parametrize("freeze_at", [1, 5])
def test_what_a_frozen_backbone_normalises_by_never_changes(freeze_at):
    config = LazyConfig.load(str(CHECKOUT / "projects/transfer_study/configs/resnet18_digits.py"))
    assert config.model.input_format == config.dataloader.train.mapper.image_format == "RGB"
    bottom_up = config.model.backbone.bottom_up
    assert (bottom_up.depth, bottom_up.norm, bottom_up.freeze_at) == (18, "SyncBN", 1)
    bottom_up.norm, bottom_up.freeze_at = "BN", freeze_at
    resnet = instantiate(bottom_up).train()
    frozen = [m for m in resnet.modules() if isinstance(m, FrozenBatchNorm2d)]
    training = [m for m in resnet.modules() if isinstance(m, nn.BatchNorm2d)]
    assert (len(frozen), len(training)) == ((20, 0) if freeze_at == 5 else (1, 19))
    assert any(p.requires_grad for p in resnet.parameters()) == (freeze_at != 5)


# The weights


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Path of a tiny file of each method, made by the command."""
    from projects.transfer_study import pretrain

    folder = tmp_path_factory.mktemp("pretrained")
    for method in pretrain.METHOD_NAMES:
        assert pretrain.main([method, str(folder / f"{method}.pth"), *PRETRAIN]) == 0
    return folder


@pytest.mark.parametrize(
    ("method", "layout", "entries"),
    [
        # What main_moco.py, main_swav.py and references/classification/train.py save.
        ("moco", "moco", {"epoch", "arch", "state_dict", "optimizer"}),
        ("swav", "swav", {"epoch", "state_dict", "optimizer"}),
        ("supervised", "torchvision", {"model", "optimizer", "lr_scheduler", "epoch", "args"}),
    ],
)
def test_files_are_laid_out_as_the_projects_do_and_convert(
    pretrained, tmp_path, method, layout, entries
):
    from ssl_backbones.conversion import convert
    from ssl_backbones.conversion.reading import read_checkpoint

    path = pretrained / f"{method}.pth"
    content = read_checkpoint(path).content
    assert set(content) == entries
    report = convert(path, tmp_path / "converted.pkl")
    assert report.provenance["method"] == layout and report.proof is not None
    assert report.provenance["architecture"]["depth"] == 18
    assert len(report.kept) == 100 and not report.unknown
    # Each key of the backbone is there, and all of them have moved from where they began.
    prefix = {"moco": "module.encoder_q.", "swav": "module.", "supervised": ""}[method]
    state = content["model" if method == "supervised" else "state_dict"]
    assert {key.removeprefix(prefix) for key in report.kept} == {
        name for name in BACKBONE if not name.endswith("num_batches_tracked")
    }
    assert int(np.asarray(state[f"{prefix}bn1.num_batches_tracked"])) in (2, 4)


@pytest.mark.parametrize("method", ["moco", "swav", "supervised"])
def test_the_same_command_gives_the_same_file(pretrained, tmp_path, method):
    from projects.transfer_study import pretrain

    path = tmp_path / "again.pth"
    assert pretrain.main([method, str(path), *PRETRAIN]) == 0
    assert path.read_bytes() == (pretrained / f"{method}.pth").read_bytes()
    if method == "supervised":  # whose file is the smallest
        assert pretrain.main([method, str(path), *PRETRAIN, "--seed", "1", "--force"]) == 0
        assert path.read_bytes() != (pretrained / f"{method}.pth").read_bytes()


def test_swav_learns_prototypes_of_unit_length_after_a_while():
    from projects.transfer_study import methods

    torch.manual_seed(0)
    statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
    swav = methods.SwAV(32, statistics)
    views = [torch.randn(2, 3, size, size) for size in (32, 32, 16, 16)]
    for iteration, learns in ((0, False), (methods.FROZEN_PROTOTYPES, True)):
        swav.zero_grad()
        swav(views, torch.zeros(2), iteration).backward()
        weight = swav.network.prototypes.weight
        assert (weight.grad is not None) == learns
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(methods.PROTOTYPES))


def test_the_control_of_channels_sees_red_for_blue_with_statistics_to_match():
    from projects.transfer_study import methods, pretrain

    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 255
    assert methods.picture(image, "RGB").getpixel((0, 0)) == (255, 0, 0)
    assert methods.picture(image, "BGR").getpixel((0, 0)) == (0, 0, 255)
    # torchvision's, of red, green and blue.
    assert pretrain._statistics("RGB")["mean"] == [0.485, 0.456, 0.406]
    assert pretrain._statistics("BGR") == {
        "mean": [0.406, 0.456, 0.485],
        "std": [0.225, 0.224, 0.229],
    }


def test_the_supervised_control_sees_each_digit_with_its_class():
    from projects.transfer_study import methods
    from ssl_backbones.data.digits.digit_scenes import pretraining_scenes

    scenes = list(pretraining_scenes(3, size=96, seed=0))
    found = list(methods.examples(iter(scenes), "supervised"))
    assert [label for _, label in found] == [label for scene in scenes for label in scene.labels]
    for image, _ in found:
        assert image.shape[0] == image.shape[1] <= 96 and image.shape[2] == 3
    # By hand: 12 x 10 pixels in the lower right corner, 18 pixels with the context.
    picture = np.arange(40 * 40 * 3).reshape(40, 40, 3)
    mask = np.zeros((80, 80), bool)
    mask[2 * 28 : 2 * 40, 2 * 30 : 2 * 40] = True
    np.testing.assert_array_equal(methods._around(picture, mask), picture[22:40, 22:40])
    assert [label for _, label in methods.examples(iter(scenes), "moco")] == [-1, -1, -1]


def test_shuffled_layers_are_the_same_layers_elsewhere(pretrained, tmp_path, capsys):
    from projects.transfer_study import shuffle_layers

    source, path = pretrained / "moco.pth", tmp_path / "shuffled.pth"
    assert shuffle_layers.main([str(source), str(path)]) == 0
    before, after = (torch.load(p, weights_only=True)["state_dict"] for p in (source, path))
    assert list(before) == list(after)
    for network in ("module.encoder_q.", "module.encoder_k."):
        moved = [
            name
            for name in before
            if name.startswith(network)
            and before[name].ndim == 4
            and not torch.equal(before[name], after[name])
        ]
        # Four of 64 channels, three of each other width; what is alone of its shape stays.
        assert len(moved) == 4 + 3 + 3 + 3
        for name, origin in (
            ("layer1.0.conv1.weight", "layer1.1.conv2.weight"),
            ("layer1.0.bn1.running_var", "layer1.1.bn2.running_var"),
            ("layer1.0.conv2.weight", "layer1.0.conv1.weight"),
            ("layer3.0.conv2.weight", "layer3.1.conv2.weight"),
            ("layer3.0.conv1.weight", "layer3.0.conv1.weight"),
            ("conv1.weight", "conv1.weight"),
        ):
            assert torch.equal(after[network + name], before[network + origin])
    assert shuffle_layers.main([str(tmp_path / "none.pth"), str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iterations", "0"], "--iterations 0"),
        (["--batch-size", "1"], "--batch-size 1"),
        (["--batch-size", "9", "--num-scenes", "8"], "--batch-size 9"),
        (["--crop-size", "16"], "--crop-size 16"),
    ],
)
def test_bad_arguments_of_the_pretraining_are_refused(tmp_path, capsys, words, message):
    from projects.transfer_study import pretrain

    assert pretrain.main(["moco", str(tmp_path / "moco.pth"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# The whole


@pytest.fixture(scope="module")
def study(run_tool, tmp_path_factory):
    """Run the study in miniature: two cells, of one arm; returns the process and the rows by cell."""
    folder = tmp_path_factory.mktemp("study")
    words = ("--arms", "moco", "--budgets", "4", "--seeds", "7", "--num-test", "2")
    words += ("--iterations", "2", "--pretrain-iterations", "1", "--batch-size", "2")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(folder / "datasets")}

    def run(*more):
        done = run_tool(STUDY, "--output", str(folder), *words, *more, env=environment)
        with open(folder / "cells.csv", newline="") as file:
            return done, {row["cell"]: row for row in csv.DictReader(file)}

    run.folder = folder
    run.first = run("--keep-checkpoints")
    return run


TRAINED, FROZEN = "moco_finetuned_4_7", "moco_frozen_4_7"


def test_every_cell_is_a_row_with_its_result_recipe_and_command(study):
    done, rows = study.first
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(rows) == [TRAINED, FROZEN]
    for name, row in rows.items():
        run = json.loads((study.folder / "cells" / name / "run.json").read_text())
        metrics = json.loads(
            (study.folder / "cells" / name / "inference" / "metrics.json").read_text()
        )
        assert row["status"] == "done" and row["iterations"] == "2"
        assert row["fingerprint"] == run["fingerprint"]
        assert row["weights"].endswith(" moco online")
        assert float(row["bbox/AP"]) == metrics["bbox"]["AP"] or metrics["bbox"]["AP"] is None
        assert row["command"].startswith("OMP_NUM_THREADS=1 DETECTRON2_DATASETS=")
        words = row["command"].split(" python ")[1].split()
        assert words == run["command_line"]
    assert rows[TRAINED]["fingerprint"] != rows[FROZEN]["fingerprint"]
    for file in ("comparison.md", "ap_against_budget.png"):
        assert str(study.folder / file) in done.stdout and (study.folder / file).is_file()


def test_no_tensor_of_a_frozen_backbone_moves(study):
    _, rows = study.first
    assert (rows[FROZEN]["backbone_tensors_moved"], rows[FROZEN]["backbone_tensors"]) == (
        "0",
        "100",
    )
    # All but the stem's convolution and the four tensors of its norm.
    assert rows[TRAINED]["backbone_tensors_moved"] == "95"
    # The same, by torch and from the other end.
    converted = np.load(study.folder / "weights" / "moco.pkl", allow_pickle=True)["model"]
    held = torch.load(study.folder / "cells" / FROZEN / "model_final.pth", weights_only=False)
    backbone = {
        name.removeprefix("backbone.bottom_up."): value.numpy()
        for name, value in held["model"].items()
        if name.startswith("backbone.bottom_up.")
    }
    assert set(backbone) == set(converted)
    assert all(np.array_equal(backbone[name], converted[name]) for name in converted)


def test_it_goes_on_where_it_stopped_and_a_cell_comes_out_the_same(study):
    _, before = study.first
    folder = study.folder / "cells" / FROZEN
    for file in sorted(folder.rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    lines = (study.folder / "cells.csv").read_text().splitlines(keepends=True)
    (study.folder / "cells.csv").write_text(
        "".join(line for line in lines if not line.startswith(FROZEN))
    )
    done, after = study()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "== pretraining" not in done.stdout and "== conversion" not in done.stdout
    assert f"{FROZEN}: box AP" in done.stdout and f"{TRAINED}:" not in done.stdout
    measured = ("seconds", "cpu_seconds", "finished", "commit")  # others may commit meanwhile
    for name, row in after.items():
        assert {k: v for k, v in row.items() if k not in measured} == {
            k: v for k, v in before[name].items() if k not in measured
        }
    # Its checkpoints are gone, of which the record tells all that is needed.
    assert not list(folder.glob("model_*")) and (folder / "run.json").is_file()


def test_a_study_with_other_settings_is_refused(study):
    done, _ = study("--iterations", "3")
    assert done.returncode == 2
    assert "holds a study with iterations=2 and this one has 3" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "moco_finetuned_5_0"], "no such cell; --plan lists all 66"),
        (["--jobs", "0"], "--jobs 0"),
        (["--budgets", "0", "50"], "--budgets 0"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, capsys, words, message):
    from projects.transfer_study import study

    assert study.main(["--output", str(tmp_path / "study"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_plan_needs_no_torch_and_says_how_long_it_takes(run_tool):
    code = (
        f"import runpy, sys; sys.argv = [{STUDY!r}, '--plan', '--jobs', '2']\n"
        f"try:\n    runpy.run_path({STUDY!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    result = run_tool("-c", code)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "scratch_finetuned_50_0" and "moco-bgr_frozen_400_2" in lines
    assert re.fullmatch(r"66 cells, about \d+ minutes on 2 idle cores", lines[-2])


def test_a_failed_cell_is_a_row_too(cells, tmp_path):
    from projects.benchmarks.machine import machine
    from projects.transfer_study import study
    from ssl_backbones.studies.processes import Outcome

    arguments = study.parse_arguments(["--output", str(tmp_path)])
    it = study.TransferStudy(arguments)
    cell = next(iter(it.cells.values()))
    log = tmp_path / "log.txt"
    log.write_text("error: no disk\n\n")
    it.ended(cells.cell_step(tmp_path, cell, 1), Outcome(2, 3.4, 1.6, log))
    (row,) = it.record.read().values()
    assert (row["arm"], row["seed"], row["cores"]) == (
        cell.arm,
        str(cell.seed),
        str(machine()["cores"]),
    )
    assert (row["cell"], row["status"]) == (cell.name, "exit status 2: error: no disk")
    assert (row["bbox/AP"], row["seconds"], row["cpu_seconds"]) == ("", "3", "2")
    assert it.failed() == [cell.name] and cell.name in it.missing()


# The results that are committed

RESULTS = CHECKOUT / "projects/transfer_study/results"


def test_no_cell_is_left_out(cells):
    with open(RESULTS / "cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [cell.name for cell in cells.cells()]
    assert {row["status"] for row in rows} == {"done"}
    # The recipe of a cell is its own: protocol, budget, seed and weights are part of it.
    assert len({row["fingerprint"] for row in rows}) == len(rows)
    assert {row["backbone_tensors_moved"] for row in rows if row["protocol"] == "frozen"} == {"0"}
    assert all(row["command"].startswith("OMP_NUM_THREADS=1 python tools/") for row in rows)


def test_what_came_out_is_what_the_command_says_of_the_rows(cells, run_tool, tmp_path):
    expected = [word for e in cells.EXPECTED for word in ("--expect", str(e))]
    done = run_tool(
        *("tools/compare_init.py", str(RESULTS / "cells.csv"), "--reference", "scratch"),
        *("--markdown", str(tmp_path / "tables.md"), *expected),
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "tables.md").read_text()
    assert tables == (RESULTS / "comparison.md").read_text()
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    told = re.findall(r"^\| (\S+ > \S+) +\| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert len(told) == len(cells.EXPECTED)
    for order, protocol, outcome in told:
        pattern = rf"^\| {order} +\| {protocol} +\| (\d+) .*\| ([a-z ]+?) +\|$"
        found = {f"{budget}: {result}" for budget, result in re.findall(pattern, tables, re.M)}
        results = {line.partition(": ")[2] for line in found}
        if len(results) == 1:
            assert outcome == f"{results.pop()} in all four"
        else:
            assert found == {"50: tie", "400: the other way"}
            assert outcome == "tie with 50 scenes, the other way with 400"


def test_the_means_of_the_page_are_those_of_the_rows():
    with open(RESULTS / "cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    columns = [("finetuned", "50"), ("finetuned", "400"), ("frozen", "50"), ("frozen", "400")]
    lines = re.findall(r"^\| (\S+) \|((?: [\d.]* ?(?:\([\d.]+\))? ?\|){4})$", page, re.MULTILINE)
    assert len(lines) == 6
    for arm, line in lines:
        for cell, (protocol, budget) in zip(line.split("|"), columns, strict=False):
            own = [
                r for r in rows if (r["arm"], r["protocol"], r["budget"]) == (arm, protocol, budget)
            ]
            means = [
                np.mean([float(r[f"{task}/AP"]) for r in own]) for task in ("bbox", "segm") if own
            ]
            assert cell.strip() == ("{:.1f} ({:.1f})".format(*means) if means else "")
