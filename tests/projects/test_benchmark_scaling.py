"""How cost grows: the powers, every point in small, and the model of an iteration by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
sys.path.append(str(CHECKOUT))

from projects.benchmarks import scaling, scaling_points  # noqa: E402
from projects.benchmarks.scaling_model import Parts, iteration  # noqa: E402

POINTS = [
    {"side": "ours", "size": 1, "seconds": [1.0, 9.0, 1.0], "mib": [10.0]},
    {"side": "stock", "size": 1, "seconds": [5.0], "mib": [50.0]},
    {"side": "ours", "size": 4, "seconds": [4.0], "mib": [40.0]},
    {"side": "ours", "size": 8, "seconds": [16.0], "mib": [80.0]},
]


def test_the_power_is_that_of_the_size():
    assert scaling.steepness(POINTS, "ours") == [pytest.approx(1), pytest.approx(2)]
    assert scaling.steepness(POINTS, "stock") == []


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (POINTS[:3], "Ours is at most linear (power 1.00 from the smallest to the largest)."),
        (
            POINTS,
            "Ours is steeper than linear (power 1.33 from the smallest to the largest): pairs.",
        ),
    ],
)
def test_growth_beyond_linear_is_said_with_its_reason(points, said):
    machine = {"processor": "P", "cores": 2, "memory_gib": 4, "system": "S"}
    series = {"what": "work", "size": "pieces", "reason": "pairs", "points": points}
    series |= {"date": "today", "commit": "abc", "load_before": 0}
    lines = list(scaling.report({"machine": machine, "series": {"name": series}}))
    assert said in lines and "| 4 | ours | 4 | 1.00 | 40 |" in lines


def test_a_side_that_would_not_fit_is_left_out(monkeypatch):
    monkeypatch.setattr(scaling, "_available_mib", lambda: 100.0)
    assert scaling._fits([], "ours", 100)
    # 80 MiB at 8 make 79 at 7.9, and 90 at 9.
    assert scaling._fits(POINTS, "ours", 7.9) and not scaling._fits(POINTS, "ours", 9)
    assert scaling._fits(POINTS, "stock", 1)


def test_a_size_whose_process_is_killed_is_left_out(monkeypatch, capsys):
    def run(name, side, size, folder):
        if size == 50 and side == "ours":
            raise subprocess.CalledProcessError(-9, "the point")
        return {"seconds": size, "mib": 1.0}

    monkeypatch.setattr(scaling, "_run", run)
    monkeypatch.setitem(scaling_points.INPUTS, "evaluation-detections", lambda folder, size: None)
    options = scaling.parse_arguments(["--repeats", "2"])
    points = scaling.measure("evaluation-detections", options)
    assert [(point["side"], point["size"]) for point in points] == [("stock", 25), ("ours", 25)]
    assert "left out: 50 detections an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("series", "size"),
    [
        ("annotations", 0.0003),
        ("annotations-first", 0.0003),
        ("annotations-second", 0.0003),
        ("evaluation-images", 12),
        ("evaluation-detections", 1),
    ],
)
def test_every_point_can_be_measured(tmp_path, monkeypatch, series, size):
    monkeypatch.setenv("SSL_BACKBONES_CACHE", "set back after the test")
    if series == "evaluation-detections":
        scaling_points.make_evaluation(tmp_path, 12, size)
    else:
        scaling_points.INPUTS[series](tmp_path, size)
    for side in scaling.SERIES[series].sizes:
        folder = tmp_path / side
        folder.mkdir()
        for file in tmp_path.glob("*.json"):
            (folder / file.name).write_bytes(file.read_bytes())
        told = scaling_points.point(series, side, folder)
        assert told["seconds"] > 0 and not told["whole"]


def test_a_run_with_no_time_to_spare_by_hand():
    parts = Parts(compute=0.2, images=2, parameters=10**8, norm_layers=50, mapper_ms=10, workers=1)
    one, eight, many = (iteration(parts, gpus) for gpus in (1, 8, 64))
    assert (one.waiting, one.all_reduce, one.norm, one.sent) == (0, 0, 0, 0)
    assert one.data == pytest.approx(0.02) and one.total == 0.2
    assert one.data_rate == pytest.approx(10) and one.bottleneck == "computation"
    # 2 * 7/8 of 400 MB at 100 GB/s take 7 ms, which the backward pass hides.
    assert eight.sent == pytest.approx(700e6) and eight.all_reduce == 0
    assert eight.waiting == pytest.approx(1.424 * 0.05 * 0.2)
    assert eight.norm == pytest.approx(100 * 30e-6)
    # 2 * 63/64 of 400 MB at 1 GB/s take 0.7875 s, of which 0.1 s are hidden.
    slow = iteration(Parts(compute=0.2, parameters=10**8, network_gb_s=1), 64)
    assert slow.all_reduce == pytest.approx(0.6875) and slow.bottleneck == "all-reduce"
    assert many.images_per_node == eight.images_per_node == 16


def test_data_that_come_too_slowly_are_the_bottleneck():
    parts = Parts(compute=0.05, mapper_ms=60, workers=1)
    eight = iteration(parts, 8)
    assert eight.total == eight.data == pytest.approx(0.12) and eight.bottleneck == "data"
    assert eight.data_rate == pytest.approx(16 / 0.12)


def test_the_page_shows_the_models_table():
    page = (CHECKOUT / "projects" / "benchmarks" / "SCALING.md").read_text()
    commands = [line for line in page.splitlines() if line.startswith("python projects/")]
    models = [line for line in commands if "scaling_model.py" in line]
    assert models
    for command in models:
        done = subprocess.run(
            [sys.executable, *command.split()[1:]], cwd=CHECKOUT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in page
