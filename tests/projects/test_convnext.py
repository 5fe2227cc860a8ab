"""ConvNeXt's recipes: the README's commands, whose runs are tested again and gone on with, and the rates."""

import json
import shutil

import numpy as np
import pytest
import torch
from commands import CHECKOUT, project_config, run_training_command, training_commands
from detectron2.config import instantiate
from running import checkpoint, difference

from ssl_backbones.conversion.families.convnext import CONVNEXT, ConvNeXt
from ssl_backbones.conversion.writing import write_backbone
from ssl_backbones.engine.schedule import scale_to_batch

pytest.importorskip("timm")

FOLDER = "projects/convnext"
BOTTOM_UP = "model.backbone.bottom_up"
WAYS = "dataloader.train.mapper.augmentations.1.choices"
SMALL = (
    f"{BOTTOM_UP}.depths=[1,1,2,1]",
    f"{BOTTOM_UP}.dims=[8,16,32,64]",
    f"{WAYS}.0.0.short_edge_length=[48,64]",
    f"{WAYS}.1.0.short_edge_length=[64]",
    f"{WAYS}.1.1.crop_size=[32,48]",
    f"{WAYS}.1.2.short_edge_length=[48,64]",
    # A fully connected layer of a thirtieth.
    "model.roi_heads.box_head.conv_dims=[8]",
    # There is no GPU.
    "train.amp.enabled=false",
    "train.checkpointer.period=1",
)


def weights(path, version_2):
    """A file of the conversion, of the architecture that the config has."""
    network = ConvNeXt("small", (1, 1, 2, 1), (8, 16, 32, 64), version_2, not version_2)
    random = np.random.default_rng(0)
    tensors = {n: random.normal(0, 0.2, s).astype(np.float32) for n, s in network.shapes.items()}
    provenance = {"architecture": network.to_dict(), "source": "small.pth", "input": {}}
    write_backbone("detectron2", path, tensors, lambda: provenance, CONVNEXT)
    return path


@pytest.mark.parametrize("line", training_commands(f"{FOLDER}/README.md"))
def test_a_command_of_the_readme_and_again_from_its_middle(line, runs, miniatures, tmp_path):
    path = weights(tmp_path / "small.pkl", version_2="ssl" in line)
    words = (*SMALL, f"train.init_checkpoint={path}")
    options = {"without": "dataloader.train.mapper.augmentations."}
    whole, again = tmp_path / "whole", tmp_path / "again"
    run_training_command(runs, line, whole, *words, **options)
    metrics = json.loads((whole / "inference" / "metrics.json").read_text())
    assert metrics["images"] == 6 and "AP" in metrics["segm"]
    detector = (*words, f"train.init_checkpoint={whole / 'model_final.pth'}")
    run_training_command(runs, line, tmp_path / "tested", *detector, **options, eval_only=True)
    tested = json.loads((tmp_path / "tested" / "inference" / "metrics.json").read_text())
    assert [tested[task] for task in ("bbox", "segm")] == [metrics[t] for t in ("bbox", "segm")]

    shutil.copytree(whole, again)
    for file in ("model_final.pth", "model_0000001.pth"):
        (again / file).unlink(missing_ok=True)
    (again / "last_checkpoint").write_text("model_0000000.pth")
    run_training_command(runs, line, again, *words, **options, resume=True)
    ends = [checkpoint(folder) for folder in (whole, again)]
    assert difference(*ends) is None
    # 0.95 ** 5 in the stem: with two blocks in the third stage there are four layers, not six.
    groups = checkpoint(whole, "model_0000000")["trainer"]["optimizer"]["param_groups"]
    rates = sorted({group["initial_lr"] for group in groups})
    assert rates == pytest.approx([1e-4 * 0.95**n for n in range(5, -1, -1)])
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}


def test_the_rates_of_all_layers_follow_the_batch():
    config = project_config(f"{FOLDER}/configs/convnext_tiny_3x.py")
    config.dataloader.train.total_batch_size, config.train.scale_lr = 8, "linear"
    scale_to_batch(config)
    with torch.device("meta"):
        config.optimizer.params.model = instantiate(config.model)
    groups = instantiate(config.optimizer).param_groups
    # By hand: half of 1e-4, and of it 0.95 ** 7 in the stem.
    assert max(group["lr"] for group in groups) == 5e-5
    assert min(group["lr"] for group in groups) == pytest.approx(3.4916864804687e-5)
    assert (config.train.max_iter, config.train.warmup_iters) == (2 * 263_880, 1_000)


def test_it_is_the_published_detector_in_size():
    # 48M in the table of ConvNeXt's object_detection/README.md.
    with torch.device("meta"):
        model = instantiate(project_config(f"{FOLDER}/configs/convnext_tiny_3x.py").model)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 48


@pytest.mark.parametrize("name", ["convnext_tiny_3x", "convnext_tiny_ssl_3x"])
def test_a_config_is_short(name):
    text = (CHECKOUT / FOLDER / "configs" / f"{name}.py").read_text()
    code = text.rpartition('"""')[2].splitlines()
    assert len([line for line in code if line and not line.startswith("#")]) <= 15
    assert ("Nobody has published this recipe" in text) == ("ssl" in name)
