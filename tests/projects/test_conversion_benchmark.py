"""The benchmark's report and its check: made of numbers known beforehand."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision

from ssl_backbones.conversion.resnet import detectron2_name

FOLDER = Path(__file__).parents[2] / "projects" / "benchmarks"


def load(name: str):
    specification = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_report_compares_medians():
    benchmark = load("conversion")
    runs = {
        benchmark.BASELINE: {"seconds": [3.0, 1.0, 2.0], "peak_mib": [800.0, 900.0, 900.0]},
        benchmark.CONVERSION: {"seconds": [0.5, 0.4, 0.9], "peak_mib": [150.0, 150.0, 100.0]},
        benchmark.PROVED: {"seconds": [4.0, 4.0, 4.0], "peak_mib": [900.0, 1800.0, 1800.0]},
    }
    result = {"machine": benchmark.machine(), "repeats": 3, "formats": {"zip": runs}}
    rows = [line for line in benchmark.lines(result) if line.startswith("| zip")]
    assert rows == [
        "| zip | straightforward | 2.00 (1.00..3.00) | 1/1.0 | 900 (800..900) | 1/1.0 |",
        "| zip | ssl-convert --no-verify | 0.50 (0.40..0.90) | 1/4.0 | 150 (100..150) | 1/6.0 |",
        "| zip | ssl-convert | 4.00 (4.00..4.00) | 2.0 | 1800 (900..1800) | 2.0 |",
    ]


def test_the_straightforward_script_names_tensors_as_detectron2_does():
    name = load("straightforward").detectron2_name
    keys = [k for k in torchvision.models.resnet50().state_dict() if not k.startswith("fc.")]
    assert [name(key) for key in keys] == [detectron2_name(key) for key in keys]


def test_unequal_results_are_found(tmp_path):
    check = load("conversion").check_equal
    model = {f"tensor{n}": np.full(3, n, np.float32) for n in range(265)}
    one, other = tmp_path / "one.pkl", tmp_path / "other.pkl"
    one.write_bytes(pickle.dumps({"model": model | {"a.num_batches_tracked": np.zeros(())}}))
    other.write_bytes(pickle.dumps({"model": model}))
    check(one, other)
    model["tensor7"][1] += 1e-6
    other.write_bytes(pickle.dumps({"model": model}))
    with pytest.raises(AssertionError, match="Mismatched elements: 1 / 3"):
        check(one, other)
    del model["tensor7"]
    other.write_bytes(pickle.dumps({"model": model}))
    with pytest.raises(AssertionError, match="other names"):
        check(one, other)
