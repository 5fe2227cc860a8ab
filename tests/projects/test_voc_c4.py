"""VOC R50-C4: the config against MoCo's own, and the README's commands."""

import json

import pytest
import torch
from commands import project_config, run_training_command, training_commands
from moco_c4 import build, moco_config
from omegaconf import OmegaConf
from running import output
from yaml_configs import differences, parts, parts_of_yaml

README = "projects/voc_c4/README.md"
CONFIG = "projects/voc_c4/configs/moco_voc_c4_24k.py"


@pytest.fixture
def config():
    return project_config(CONFIG)


@pytest.fixture(scope="module")
def published():
    cfg = moco_config("voc")
    return parts_of_yaml(cfg, build(cfg))


def test_it_is_mocos_own_run(config, published):
    assert differences(parts(config), published) == {}
    assert config.train.init_checkpoint == "ssl://moco_v2_800ep"


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("model.backbone.freeze_at", 2, "module backbone.stem.conv1.norm"),
        ("model.roi_heads.norm", "BN", "module roi_heads.res5.norm"),
        ("model.proposal_generator.pre_nms_topk", [12000, 1000], "settings proposal_generator"),
        ("dataloader.train.mapper.augmentations.0.max_size", 1000, "train augmentations"),
        ("optimizer.params.weight_decay_norm", 1e-4, "groups"),
        ("train.warmup_iters", 1000, "rates"),
        ("train.precise_bn.enabled", False, "precise_bn"),
    ],
)
def test_the_comparison_sees_each_part(config, published, key, value, part):
    """A control: what differs in one field is not taken for MoCo's run."""
    OmegaConf.update(config, key, value)
    assert part in differences(parts(config), published)


@pytest.mark.parametrize("line", training_commands(README))
def test_a_command_of_the_readme(line, runs, miniatures, converted, tmp_path):
    folder = tmp_path / "run"
    run_training_command(runs, line, folder, f"train.init_checkpoint={converted}")
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "voc_2007_test"
    assert {"AP", "AP50", "AP75"} <= metrics["bbox"].keys()
    # What Detectron2's evaluator of VOC does not write is not announced.
    assert "Metrics:" in output(folder) and "Detections:" not in output(folder)
    # Those of a ResNet-50, and the one after res5.
    assert "Running statistics of 54 batch norms anew" in (folder / "log.txt").read_text()
    found = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert found["roi_heads.res5.norm.num_batches_tracked"] > 0
