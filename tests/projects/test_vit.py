"""The README's commands for a plain ViT, whose runs are tested again and gone on with; what is frozen."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from commands import CHECKOUT, project_config, run_training_command, training_commands
from detectron2.config import LazyConfig, instantiate
from running import checkpoint, difference

from ssl_backbones.conversion.families import VIT
from ssl_backbones.conversion.families.vit import ViT
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine.recipe import compare, recipe
from ssl_backbones.modeling.convnext import ChannelNorm

pytest.importorskip("timm")

FOLDER = "projects/vit"
CONFIGS = ("vit_base_mae_100ep", "vit_small_dino_100ep", "vit_small_dino_frozen")
BOTTOM_UP = "model.backbone.bottom_up"
MAPPER = "dataloader.train.mapper.augmentations"
SMALL = (
    *(f"{BOTTOM_UP}.embed_dim=32", f"{BOTTOM_UP}.depth=2", f"{BOTTOM_UP}.num_heads=2"),
    *(f"{BOTTOM_UP}.mlp_dim=64", f"{BOTTOM_UP}.grid=3"),
    *(f"{MAPPER}.1.target_height=64", f"{MAPPER}.1.target_width=64", f"{MAPPER}.1.min_scale=0.7"),
    f"{MAPPER}.2.crop_size=[64,64]",
    # A fully connected layer of a thirtieth.
    "model.roi_heads.box_head.conv_dims=[8]",
    # Anchors of all levels.
    "model.proposal_generator.batch_size_per_image=256",
    # There is no GPU.
    "train.amp.enabled=false",
    "train.checkpointer.period=1",
)


def weights(path, offset):
    """A file of the conversion, of the architecture that the config has."""
    network = ViT(embed_dim=32, depth=2, num_heads=2, mlp_dim=64, grid=3, interpolate_offset=offset)
    random = np.random.default_rng(0)
    tensors = {n: random.normal(0, 0.2, s).astype(np.float32) for n, s in network.shapes.items()}
    provenance = {"architecture": network.to_dict(), "source": "small.pth", "input": {}}
    write_backbone("detectron2", path, tensors, lambda: provenance, VIT)
    return {f"backbone.bottom_up.vit.{name}": value for name, value in tensors.items()}


@pytest.mark.parametrize("line", training_commands(f"{FOLDER}/README.md"))
def test_a_command_of_the_readme_and_again_from_its_middle(line, runs, miniatures, tmp_path):
    before = weights(tmp_path / "small.pkl", offset=0.1 if "dino" in line else 0.0)
    words = (*SMALL, f"train.init_checkpoint={tmp_path / 'small.pkl'}")
    options = {"without": "dataloader.train.mapper.augmentations."}
    whole, again = tmp_path / "whole", tmp_path / "again"
    run_training_command(runs, line, whole, *words, **options)
    metrics = json.loads((whole / "inference" / "metrics.json").read_text())
    assert metrics["images"] == 6 and "AP" in metrics["segm"]
    end = checkpoint(whole)
    groups = end["trainer"]["optimizer"]["param_groups"]
    rates = sorted({group["initial_lr"] for group in groups})
    trained = {
        name: not np.array_equal(end["model"][name].numpy(), before[name]) for name in before
    }
    if "frozen" in line:
        assert not any(trained.values())
        assert rates == [1e-4]
        # What learns begins at random, so that the optimizer's averages tell that it has a gradient.
        state = end["trainer"]["optimizer"]["state"]
        assert len(state) == sum(len(group["params"]) for group in groups) > 50
        assert all(one["exp_avg"].any() for one in state.values())
        return  # all else is as in the run that is not frozen
    # 0.7 ** 3 in the embeddings: above them are two blocks and the norm.
    assert rates == pytest.approx([1e-4 * 0.7**n for n in range(3, -1, -1)])
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    assert all(trained.values()), trained

    # The norm of the heads, which has no name there, comes back out of config.yaml.
    written = LazyConfig.load(str(whole / "config.yaml"))
    heads = instantiate(written.model).roi_heads
    found = [type(m) for h in (heads.box_head, heads.mask_head) for m in h.modules()]
    assert found.count(ChannelNorm) == 1 + 4
    command = re.sub(r"--config-file \S+", f"--config-file {whole / 'config.yaml'}", line)
    detector = (*words, f"train.init_checkpoint={whole / 'model_final.pth'}")
    run_training_command(runs, command, tmp_path / "tested", *detector, **options, eval_only=True)
    one, two = (
        json.loads((folder / "inference" / "coco_instances_results.json").read_text())
        for folder in (whole, tmp_path / "tested")
    )
    assert one == two != []

    shutil.copytree(whole, again)
    for file in ("model_final.pth", "model_0000001.pth"):
        (again / file).unlink(missing_ok=True)
    (again / "last_checkpoint").write_text("model_0000000.pth")
    run_training_command(runs, line, again, *words, **options, resume=True)
    assert difference(end, checkpoint(again)) is None


def test_frozen_is_the_recipe_but_for_what_trains():
    tuned, frozen = (project_config(f"{FOLDER}/configs/{name}.py") for name in CONFIGS[1:])
    assert compare(recipe(tuned), recipe(frozen)) == [
        (f"{BOTTOM_UP}.drop_path", 0.1, 0),
        (f"{BOTTOM_UP}.freeze_at", 0, 14),
    ]
    with torch.device("meta"):
        model = instantiate(frozen.model)
    assert not any(p.requires_grad for p in model.backbone.bottom_up.parameters())
    around = [p for n, p in model.named_parameters() if ".bottom_up." not in n]
    assert around and all(p.requires_grad for p in around)


@pytest.mark.parametrize(("name", "millions"), [(CONFIGS[0], 86), (CONFIGS[1], 22)])
def test_the_network_is_of_the_published_size(name, millions):
    # ViT-B/16 and ViT-S/16 of 224 pixels without a classifier: 85.8M and 21.7M (timm's table of results).
    with torch.device("meta"):
        model = instantiate(project_config(f"{FOLDER}/configs/{name}.py").model)
    count = sum(p.numel() for p in model.backbone.bottom_up.parameters())
    assert round(count / 1e6) == millions


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_short(name):
    text = (CHECKOUT / FOLDER / "configs" / f"{name}.py").read_text()
    code = text.rpartition('"""')[2].splitlines()
    assert len([line for line in code if line and not line.startswith("#")]) <= 15
    assert ("Nobody has published this recipe" in text) == ("small" in name)
