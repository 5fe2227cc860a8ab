"""The GPU check's parts in small on the CPU, and what it says when one of them goes wrong."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from pycocotools import mask as coco_mask

CHECKOUT = Path(__file__).parents[2]
# Last: nothing that is installed gets another meaning.
sys.path.append(str(CHECKOUT))

from projects.gpu_check import checks, gpu_check  # noqa: E402
from projects.gpu_check.shapes import HEIGHT, WIDTH, write_shapes  # noqa: E402

SCRIPT = "projects/gpu_check/gpu_check.py"


@pytest.fixture
def setting(tmp_path):
    return checks.Setting("cpu", True, tmp_path)


def test_shapes_are_what_pycocotools_makes_of_their_outlines(tmp_path):
    write_shapes(tmp_path, train=2, val=1)
    content = json.loads((tmp_path / "train.json").read_text())
    assert len(list((tmp_path / "train").iterdir())) == 2 and len(content["annotations"]) == 12
    for annotation in content["annotations"]:
        (rle,) = coco_mask.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
        assert annotation["area"] == pytest.approx(coco_mask.area(rle), rel=0.15)
        assert annotation["bbox"] == pytest.approx(coco_mask.toBbox(rle).tolist(), abs=1.5)


def test_the_stand_in_of_sync_bn_is_bn_for_equal_shapes_alone(setting, runs):
    """On the CPU it is Detectron2's naiveSyncBN, whose difference is known: the check must find it."""
    equal = [checks.SHAPES[0]] * 2
    assert checks.sync_bn(setting, equal, start_method="forkserver").verdict == "ok"
    found = checks.sync_bn(setting, start_method="forkserver")
    assert found.verdict.startswith("differs: gradients by ") and found.figures["features"] > 1e-3


def test_a_step(setting):
    assert checks.step("fp32", setting).verdict == "ok"
    half = checks.step("bf16", setting)
    assert half.verdict.startswith("not run") and half.figures["losses"][0] > 1


def test_memory_of_a_recipe(setting):
    outcome = checks.memory("moco_ms2x", setting)
    assert outcome.verdict == "ok"
    # The weights, their gradients and momentum, of 44 million parameters of four bytes.
    assert outcome.figures["peak_mib"] > 3 * 44 * 4


def test_kill_and_resume_and_evaluation(setting, runs, monkeypatch):
    """Of the tests' tiny detector, in forks: what is for the digits' recipe alone is left out."""

    class Process:
        def __init__(self, words, log):
            own = [
                word
                for word in words
                if word.startswith(("train.", "dataloader.")) and "augmentations" not in word
            ]
            data = words[words.index("--data") + 1]
            flags = {"data": data, "resume": "--resume" in words}
            flags["eval_only"] = "--eval-only" in words
            (self.process,) = runs.start(log.with_suffix(""), *own, **flags)
            self.kill = self.process.kill

        def poll(self):
            return self.process.exitcode

        def wait(self):
            self.process.join()
            return self.process.exitcode

    monkeypatch.setattr(checks, "start", Process)
    # Killed, gone on with, twice unbroken: on the CPU all have the same bits.
    outcome = checks.resume(setting)
    assert outcome.verdict == "ok", outcome
    assert outcome.figures["resumed"] == outcome.figures["unbroken_again"] == 0
    assert checks.distance(setting.folder / "unbroken", setting.folder / "killed") == 0
    outcome = checks.evaluation(setting)
    assert not outcome.verdict.startswith(("differs", "failed"))
    assert len(set(outcome.figures["bbox/AP"])) == 1


def test_weights_that_differ_are_measured(tmp_path):
    for name, value in (("one", 4.0), ("other", 5.0)):
        (tmp_path / name).mkdir()
        model = {"a": torch.tensor([3.0]), "b": torch.tensor([[value]])}
        torch.save({"model": model}, tmp_path / name / "model_final.pth")
    # (3, 4) has the length 5.
    assert checks.distance(tmp_path / "one", tmp_path / "other") == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ({"bbox/AP": 30.05, "segm/AP": 20.0}, "ok"),
        ({"bbox/AP": 30.0, "segm/AP": 20.5}, "differs: segm/AP by 0.50"),
        ({"bbox/AP": 30.0, "segm/AP": None}, "differs: segm/AP by 20.00"),
    ],
)
def test_metrics_are_judged(own, verdict):
    on_cpu = {"bbox/AP": 30.0, "segm/AP": 20.0, "bbox/APl": None}
    assert checks.judge_metrics(own, on_cpu).verdict == verdict
    nothing = dict.fromkeys(on_cpu, 0.0)
    assert checks.judge_metrics(nothing, nothing).verdict.startswith("not run: the detector finds")


# ---- the command


def _well(setting):
    return checks.Outcome("ok", {"a": 1})


def _badly(setting):
    raise ValueError("of this\nkind")


def _deadly(setting):
    os._exit(3)


def test_an_error_is_a_verdict_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(checks.PARTS, "norm", {"bad": _badly, "good": _well})
    assert checks.main(["norm", str(tmp_path), "--device", "cpu", "--small"]) == 0
    lines = map(json.loads, (tmp_path / "norm.jsonl").read_text().splitlines())
    found = {name: done["verdict"] for name, done in lines}
    assert found == {"bad": "failed: ValueError: of this kind", "good": "ok"}


def test_what_did_not_fit_and_what_died_are_said(tmp_path, monkeypatch):
    options = argparse.Namespace(device="cpu", small=True)
    found = gpu_check.run_part("step", options, tmp_path, 0.0)
    assert [one["verdict"] for one in found.values()] == [
        "not run: no time left, its part had 0 s"
    ] * 3
    # A part whose first check is done and whose process then ends.
    (tmp_path / "step.jsonl").write_text('["step-fp32", {"verdict": "ok", "figures": {}}]\n')
    options.device = "--no-such"
    one, *others = gpu_check.run_part("step", options, tmp_path, 60.0).values()
    assert one["verdict"] == "ok"
    assert others[0]["verdict"].startswith("failed: its process ended with status 2: ")


def test_the_file_is_written_after_each_part_and_badness_is_the_status(
    tmp_path, monkeypatch, capsys
):
    limits, seen, out = [], [], tmp_path / "made" / "out.json"

    def run_part(part, options, folder, limit):
        limits.append(limit)
        seen.append(len(json.loads(out.read_text())["checks"]) if out.exists() else 0)
        verdict = "differs: by 1" if part == "runs" else "ok"
        return {name: {"verdict": verdict} for name in checks.PARTS[part]}

    monkeypatch.setattr(gpu_check, "run_part", run_part)
    words = ["--device", "cpu", "--small", "--seconds", "530", "--out", str(out)]
    assert gpu_check.main(words) == 1
    assert seen == [0, 1, 4, 8] and list(gpu_check.SHARES) == list(checks.PARTS)
    # No part took any time: each could have taken all that those before it left.
    assert limits[0] < 61 and 520 < limits[-1] < 530 and sum(gpu_check.SHARES.values()) == 530
    content = json.loads(out.read_text())
    assert torch.__version__.startswith(content["versions"]["torch"])
    assert len(content["checks"]) == 10 and "differs: by 1" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_is_one_line(capsys):
    assert gpu_check.main([]) == 2
    assert "no usable GPU: --device cpu --small tries" in capsys.readouterr().err


def test_what_must_be_carried_is_named(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "NEEDED", ("torch", "no_such_module"))
    assert gpu_check.main(["--device", "cpu"]) == 2
    assert "not installed: no_such_module; projects/gpu_check/README.md" in capsys.readouterr().err


def test_help_has_examples(run_tool):
    done = run_tool(SCRIPT, "--help")
    assert done.returncode == 0 and "examples:" in done.stdout
