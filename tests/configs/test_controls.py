"""The controls are the recipes from other weights, and nothing else; and they train and evaluate."""

import json

import pytest
import torch
from commands import CHECKOUT, run_training_command
from detectron2.config import instantiate

from ssl_backbones import get_config
from ssl_backbones.conversion import convert
from ssl_backbones.engine.recipe import compare, recipe
from ssl_backbones.weights.resolution import NAMED_WEIGHTS

FREEZE = "model.backbone.bottom_up.freeze_at"
CONTROLS = {
    "supervised_1x": ("moco_1x", []),
    "supervised_ms2x": ("moco_ms2x", []),
    # Random weights must not be frozen.
    "scratch_ms2x": ("moco_ms2x", [(FREEZE, 1, 0)]),
}


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_the_recipe_from_other_weights(name):
    moco, more = CONTROLS[name]
    differing = compare(recipe(get_config(moco)), recipe(get_config(name)))
    started = "random" if name.startswith("scratch") else "ssl://supervised_imagenet"
    assert differing == [*more, ("weights", "ssl://moco_v2_800ep", started)]
    assert get_config(name).train.output_dir == f"./output/{name}"


def test_from_scratch_everything_trains():
    model = instantiate(get_config("scratch_ms2x").model)
    assert all(p.requires_grad for p in model.parameters())


def test_the_supervised_weights_are_torchvisions_first():
    from torchvision.models import ResNet50_Weights

    row = NAMED_WEIGHTS["supervised_imagenet"]
    assert row.origin == ResNet50_Weights.IMAGENET1K_V1.url
    # By torch.hub's convention a file's name ends in the beginning of its hash, which it checks so.
    assert row.published.algorithm == "sha256"
    assert row.origin.endswith(f"-{row.published.prefix}.pth")


def test_torchvisions_file_is_what_the_converter_takes_it_for(tmp_path):
    from torchvision.models import resnet50

    torch.save(resnet50().state_dict(), tmp_path / "resnet50-0676ba61.pth")
    method = NAMED_WEIGHTS["supervised_imagenet"].method
    report = convert(
        tmp_path / "resnet50-0676ba61.pth", tmp_path / "r50.pkl", selfsup=method, verify=False
    )
    assert len(report.kept) == 265 and set(report.dropped) == {"fc.weight", "fc.bias"} | {
        key for key in report.dropped if key.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize("name", CONTROLS)
def test_the_command_of_its_docstring(name, runs, miniatures, converted, tmp_path):
    text = (CHECKOUT / "configs" / f"{name}.py").read_text()
    (line,) = (line.strip() for line in text.splitlines() if "tools/train_net.py" in line)
    weights = () if name.startswith("scratch") else (f"train.init_checkpoint={converted}",)
    run_training_command(runs, f"python {line}", tmp_path / "run", *weights)
    metrics = json.loads((tmp_path / "run" / "inference" / "metrics.json").read_text())
    assert metrics["images"] == 6 and "AP" in metrics["bbox"]
