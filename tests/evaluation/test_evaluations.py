"""The evaluations of a checkpoint: its weights, and their average if it holds one."""

import json

import pytest
import torch

from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.engine.hooks.ema import WeightAverage
from ssl_backbones.evaluation.coco import evaluate_all, evaluate_weights


def test_a_checkpoints_averaged_weights_are_evaluated_beside_its_own(cfg, oracle, tmp_path):
    trained = oracle(shift=3.0)
    average = WeightAverage(trained, 0.5)
    trained.shift.fill_(0.0)
    StrictCheckpointer(trained, str(tmp_path), ema=average).save("model_final")

    model = oracle(shift=9.0)
    loaded = StrictCheckpointer(model).load(str(tmp_path / "model_final.pth"))
    average = WeightAverage(model, 0.5)
    average.load_state_dict(loaded["ema"])
    metrics = evaluate_all(cfg, model, average)
    assert metrics["bbox/AP"] == 100 > metrics["ema/bbox/AP"] > 0
    for folder, name in (("inference", "bbox/AP"), ("inference_ema", "ema/bbox/AP")):
        written = json.loads((tmp_path / folder / "metrics.json").read_text())
        assert written["bbox"]["AP"] == metrics[name]
    assert torch.equal(model.shift, torch.tensor(0.0))


@pytest.mark.parametrize(
    "subset, averaged, folders",
    [
        (0, False, {"inference"}),
        (2, False, {"inference_subset"}),
        (2, True, {"inference_subset", "inference_subset_ema"}),
    ],
)
def test_each_has_a_folder_of_its_own(cfg, oracle, tmp_path, subset, averaged, folders):
    model = oracle()
    evaluate_weights(cfg, model, WeightAverage(model, 0.5) if averaged else None, subset=subset)
    assert {path.name for path in tmp_path.iterdir()} == folders
