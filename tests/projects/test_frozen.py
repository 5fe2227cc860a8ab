"""The frozen protocol: nothing of the backbone moves in a real run, and all else is the 1x recipe."""

import json

import pytest
import torch
from commands import project_config, run_training_command, training_commands
from detectron2.config import instantiate
from detectron2.layers import FrozenBatchNorm2d

from ssl_backbones import get_config
from ssl_backbones.conversion.reading import read_checkpoint
from ssl_backbones.engine.recipe import compare, recipe

README = "projects/frozen/README.md"
CONFIG = "projects/frozen/configs/moco_frozen_1x.py"
RESNET = "model.backbone.bottom_up"


def test_it_is_the_1x_recipe_but_for_what_is_frozen():
    differing = compare(recipe(get_config("moco_1x")), recipe(project_config(CONFIG)))
    assert differing == [
        (f"{RESNET}.freeze_at", 1, 5),
        (f"{RESNET}.stages.norm", "SyncBN", "FrozenBN"),
        (f"{RESNET}.stem.norm", "SyncBN", "FrozenBN"),
    ]


def test_no_parameter_of_the_backbone_trains_and_no_norm_has_a_mode():
    model = instantiate(project_config(CONFIG).model)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"backbone", "proposal_generator", "roi_heads"}
    resnet = model.backbone.bottom_up
    assert not any(p.requires_grad for p in resnet.parameters())
    norms = [module for module in resnet.modules() if "Norm" in type(module).__name__]
    assert len(norms) == 53 and {type(norm) for norm in norms} == {FrozenBatchNorm2d}


@pytest.mark.parametrize("line", training_commands(README))
def test_a_command_of_the_readme_moves_no_tensor_of_the_backbone(
    line, runs, miniatures, converted, tmp_path
):
    folder = tmp_path / "run"
    # Precise BN is off in the recipe, and would have nothing to do.
    overrides = (f"train.init_checkpoint={converted}", "train.precise_bn.enabled=true")
    run_training_command(runs, line, folder, *overrides)
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "coco_2017_val" and metrics["images"] == 6 and "bbox" in metrics
    log = (folder / "log.txt").read_text()
    assert "53 FrozenBatchNorm2d" in log and "batch norms anew" not in log

    before = read_checkpoint(str(converted)).content["model"]
    after = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    prefix = "backbone.bottom_up."
    kept = {key.removeprefix(prefix): v for key, v in after.items() if key.startswith(prefix)}
    assert set(kept) == set(before) and len(kept) == 265
    for key, value in kept.items():
        assert torch.equal(value, torch.from_numpy(before[key].copy())), key
    # While the rest did: what it started from is random, so that the optimizer's momentum tells.
    momenta = torch.load(folder / "model_final.pth", weights_only=True)["trainer"]["optimizer"]
    assert all(state["momentum_buffer"].any() for state in momenta["state"].values())
