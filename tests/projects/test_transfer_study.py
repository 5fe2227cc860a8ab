"""The transfer study: its pretrainings, its commands in miniature, and what is committed of it."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import FrozenBatchNorm2d
from page_commands import commands
from torch import nn

from ssl_backbones.conversion.reading import read_checkpoint

CHECKOUT = Path(__file__).parents[2]
PRETRAIN = ["--iterations", "2", "--batch-size", "2", "--num-crops", "4", "--crop-size", "32"]

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
    "pretrain.py": {"--iterations 400": " ".join(PRETRAIN)},
    # Of the fifty scenes one cell: they are the same command on another folder.
    "compare_backbones.py": {"--output": "--seeds 1 --jobs 2 train.max_iter=1 --output"}
    | {"scenes_50": "scenes_50 --only scratch_finetuned_2_0"},
    "compare_init.py": {},
}
"""What is replaced in a command of the page, by the script that it calls."""


@pytest.fixture(scope="module")
def followed(run_tool, module_folder):
    """Run every command of the page, smaller; the folder of the results."""
    for name in ("tools", "projects", "configs", "ssl_backbones"):
        (module_folder / name).symlink_to(CHECKOUT / name)
    for line in commands((CHECKOUT / "projects/transfer_study/README.md").read_text()):
        small = line
        (replaced,) = (SMALLER[script] for script in SMALLER if script in line)
        for old, new in replaced.items():
            small = small.replace(old, new)
        done = run_tool(*shlex.split(small)[1:], cwd=module_folder)
        assert done.returncode == 0, f"{small}\n{done.stdout}{done.stderr}"
    return module_folder / "output" / "transfer_study"


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_commands_of_the_page_compare_what_it_says(followed):
    folder = followed
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


def test_no_tensor_of_a_frozen_backbone_moves(followed):
    folder = followed
    frozen, trained = (rows_of(folder / name / "cells.csv") for name in ("frozen", "finetuned"))
    assert {(row["backbone_tensors"], row["backbone_tensors_moved"]) for row in frozen} == {
        ("100", "0")
    }
    # With random weights among the arms the stem is not frozen either.
    moved = {row["arm"]: row["backbone_tensors_moved"] for row in trained}
    assert moved == {"moco": "100", "swav": "100", "moco-shuffled": "100", "scratch": ""}


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


@pytest.mark.parametrize("name", ["finetuned", "frozen"])
def test_what_came_out_again_is_whole_and_the_page_says_it(name):
    page = (CHECKOUT / "projects/transfer_study/README.md").read_text()
    page = page[page.index("### Again") : page.index("## Hardware")]
    rows, pairs = (rows_of(RESULTS / name / f"{kind}.csv") for kind in ("cells", "pairs"))
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    assert [(row["arm"], row["seed"]) for row in rows] == [(a, s) for s in "012" for a in arms]
    assert {row["status"] for row in rows} == {"done"} and len(pairs) == 2 * 6
    assert {row["commit"][:7] for row in rows} == {"5de3ae9"}
    column = 1 if name == "finetuned" else 2
    for arm in arms:
        mean = np.mean([float(row["bbox/AP"]) for row in rows if row["arm"] == arm])
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{arm}` |")]
        assert line.split("|")[1 + column].strip() == f"{mean:.1f}"
    told = (RESULTS / name / "comparison.md").read_text()
    said = " ".join(page.split())
    for pair in pairs:
        is_told = pair["first_is"] != "not told apart"
        # A study of which no pair is told apart is said to be one.
        assert not is_told or name == "frozen"
        span = f"95 % interval {float(pair['low']):+.1f} to {float(pair['high']):+.1f}"
        words = f"({float(pair['difference']):+.1f} points, {span})"
        assert words in told
        if is_told and pair["metric"] == "bbox/AP":
            assert f"{pair['first']} is {pair['first_is']} than {pair['second']} {words}" in said


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
