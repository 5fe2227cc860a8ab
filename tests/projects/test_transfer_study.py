"""The transfer study: its pretrainings, its commands in miniature, and what is committed of it."""

import csv
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from page_commands import commands
from torch import nn
from torchvision.models import resnet18

from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.data.digits.digits_dataset import write_digits

CHECKOUT = Path(__file__).parents[2]
PRETRAIN = ["--iterations", "2", "--batch-size", "2", "--num-scenes", "4", "--crop-size", "32"]
BACKBONE = {name for name in resnet18().state_dict() if not name.startswith("fc.")}

ARMS = ("scratch", "moco", "swav", "supervised", "moco-shuffled", "moco-bgr")
EXPECTED = (
    "finetuned: moco > scratch",
    "finetuned: swav > scratch",
    "finetuned: supervised > scratch",
    "finetuned: supervised > moco",
    "finetuned: supervised > swav",
    "finetuned: moco > moco-shuffled",
    "finetuned: moco > moco-bgr",
    "frozen: supervised > moco",
    "frozen: supervised > swav",
    "frozen: moco > moco-shuffled",
    "frozen: swav > moco-shuffled",
    "frozen: moco > moco-bgr",
)
"""Written down on 25 November 2026, before the study; its README gives the reasons."""


@pytest.fixture(scope="module", autouse=True)
def checkout_on_the_path():
    """As the project's scripts have it when they run."""
    sys.path.insert(0, str(CHECKOUT))
    yield
    sys.path.remove(str(CHECKOUT))


def test_the_readme_gives_a_reason_for_everything_expected():
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    rows = re.findall(r"^\| (finetuned|frozen) \| (\S+ > \S+) \| .+ \|$", page, re.MULTILINE)
    assert tuple(f"{protocol}: {order}" for protocol, order in rows) == EXPECTED
    for arm in ARMS:
        assert f"| `{arm}` |" in page


@pytest.mark.parametrize("freeze_at", [1, 5])
def test_what_a_frozen_backbone_normalises_by_never_changes(freeze_at):
    config = LazyConfig.load(str(CHECKOUT / "projects/transfer_study/configs/resnet18_digits.py"))
    assert config.model.input_format == config.dataloader.train.mapper.image_format == "RGB"
    bottom_up = config.model.backbone.bottom_up
    stem, stages = bottom_up.stem, bottom_up.stages
    assert (stages.depth, bottom_up.freeze_at) == (18, 1)
    assert stem.norm == stages.norm == "SyncBN"
    stem.norm = stages.norm = "BN"
    bottom_up.freeze_at = freeze_at
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


# The commands of the page


def test_make_study_runs_the_first_commands_of_the_page():
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    first = commands(page[: page.index("`make study`")])
    makefile = (CHECKOUT / "Makefile").read_text()
    (recipe,) = re.findall(r"^study: setup\n((?:\t.+\n)+)", makefile, re.MULTILINE)
    lines = recipe.replace("\\\n", " ").replace("$(BIN)/", "").splitlines()
    # What pretrain.py has made is not made again.
    lines = [line.rpartition("||")[2] for line in lines]
    assert [line.split() for line in lines] == [line.split() for line in first]


SMALLER = {
    "make_dataset.py": {"--num-train 400": "--num-train 4", "--num-train 50": "--num-train 2"}
    | {"--num-test 200": "--num-test 2 --size 64"},
    "pretrain.py": {".pth": f".pth {' '.join(PRETRAIN)}"},
    # Of the fifty scenes one cell: they are the same command on another folder.
    "compare_backbones.py": {"--output": "--seeds 1 --jobs 2 train.max_iter=1 --output"}
    | {"scenes_50": "scenes_50 --only scratch_finetuned_2_0"},
    "compare_init.py": {},
}
"""What is replaced in a command of the page, by the script that it calls."""


@pytest.fixture(scope="module")
def followed(run_tool, module_folder):
    """Run every command of the page, smaller: the folder of the results, and what each line printed."""
    for name in ("tools", "projects", "configs", "ssl_backbones"):
        (module_folder / name).symlink_to(CHECKOUT / name)
    printed = {}
    for line in commands((CHECKOUT / "projects/transfer_study/README.md").read_text()):
        small = line
        (replaced,) = (SMALLER[script] for script in SMALLER if script in line)
        for old, new in replaced.items():
            small = small.replace(old, new)
        done = run_tool(*shlex.split(small)[1:], cwd=module_folder)
        assert done.returncode == 0, f"{small}\n{done.stdout}{done.stderr}"
        printed[line] = done.stdout
    return module_folder / "output" / "transfer_study", printed


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_commands_of_the_page_compare_what_it_says(followed):
    folder, printed = followed
    for name, budget, arms in (
        ("finetuned", "4", ["moco", "swav", "scratch", "moco-shuffled"]),
        ("finetuned_50", "2", ["scratch"]),
        ("frozen", "4", ["moco", "swav", "moco-shuffled", "moco-bgr"]),
    ):
        rows = rows_of(folder / name / "cells.csv")
        found = [(row["arm"], row["budget"], row["status"]) for row in rows]
        assert found == [(arm, budget, "done") for arm in arms]
        assert len({row["weights"] for row in rows}) == len(arms)
    for file in ("finetuned/comparison.html", "frozen/comparison.html", "ap_against_budget.png"):
        assert (folder / file).is_file()
    weights = folder / "finetuned" / "weights"
    before, after = (
        read_checkpoint(weights / f"{arm}.pkl").content["model"]
        for arm in ("moco", "moco-shuffled")
    )
    convolutions = [name for name, value in before.items() if value.ndim == 4]
    moved = [name for name in convolutions if not np.array_equal(before[name], after[name])]
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    assert f"{len(moved)} of {len(convolutions)} convolutions moved" in page
    # What pretrain.py names goes on from its file, once scenes are there.
    told = next(text for line, text in printed.items() if "pretrain.py swav" in line)
    assert "next: python tools/compare_backbones.py output/transfer_study/swav.pth scratch" in told


def test_no_tensor_of_a_frozen_backbone_moves(followed):
    folder, _ = followed
    frozen, trained = (rows_of(folder / name / "cells.csv") for name in ("frozen", "finetuned"))
    assert {(row["backbone_tensors"], row["backbone_tensors_moved"]) for row in frozen} == {
        ("100", "0")
    }
    # With random weights among the arms the stem is not frozen either.
    moved = {row["arm"]: row["backbone_tensors_moved"] for row in trained}
    assert moved == {"moco": "100", "swav": "100", "moco-shuffled": "100", "scratch": ""}


@pytest.mark.parametrize("there", [False, True])
def test_the_command_that_is_next_works(pretrained, run_tool, tmp_path, there):
    from projects.transfer_study import pretrain

    shutil.copy(pretrained / "moco.pth", tmp_path)
    if there:
        write_digits(tmp_path / "scenes", num_train=2, num_test=2, size=64, seed=0)
    *make, compare = pretrain._next(tmp_path / "moco.pth").split(" && ")
    assert bool(make) != there
    for line in make:
        line = line.replace("400", "2").replace("200", "2")
        assert run_tool(*shlex.split(line)[1:]).returncode == 0
    done = run_tool(*shlex.split(compare)[1:], "--plan")
    assert done.returncode == 0 and "moco_finetuned_2_0" in done.stdout, done.stderr


# The results that are committed

RESULTS = CHECKOUT / "projects/transfer_study/results"


def test_no_cell_is_left_out():
    rows = rows_of(RESULTS / "cells.csv")
    # Random weights are not frozen.
    assert [(row["seed"], row["protocol"], row["budget"], row["arm"]) for row in rows] == [
        (seed, protocol, budget, arm)
        for seed in "012"
        for protocol in ("finetuned", "frozen")
        for budget in ("50", "400")
        for arm in ARMS
        if (protocol, arm) != ("frozen", "scratch")
    ]
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    assert f"All {len(rows)} cells, none left out" in page
    assert {row["status"] for row in rows} == {"done"}
    (commit,) = {row["commit"] for row in rows}
    assert f"at commit {commit[:7]}" in page
    # The recipe of a cell is its own: protocol, budget, seed and weights are part of it.
    assert len({row["fingerprint"] for row in rows}) == len(rows)
    assert {row["backbone_tensors_moved"] for row in rows if row["protocol"] == "frozen"} == {"0"}
    assert all(row["command"].startswith("OMP_NUM_THREADS=1 python tools/") for row in rows)


def test_what_came_out_is_what_the_command_says_of_the_rows(run_tool, tmp_path):
    expected = [word for order in EXPECTED for word in ("--expect", order)]
    done = run_tool(
        *("tools/compare_init.py", str(RESULTS / "cells.csv"), "--reference", "scratch"),
        *("--markdown", str(tmp_path / "tables.md"), *expected),
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "tables.md").read_text()
    assert tables == (RESULTS / "comparison.md").read_text()
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    told = re.findall(r"^\| (\S+ > \S+) +\| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert len(told) == len(EXPECTED)
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
    rows = rows_of(RESULTS / "cells.csv")
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
