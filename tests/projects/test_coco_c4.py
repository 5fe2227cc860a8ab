"""COCO R50-C4: the configs against MoCo's own, and the README's commands."""

import json

import pytest
from commands import project_config, run_training_command, training_commands
from moco_c4 import build, moco_config
from yaml_configs import assert_same_run

README = "projects/coco_c4/README.md"
FOLDER = "projects/coco_c4/configs"


@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_it_is_mocos_own_run(schedule):
    published = moco_config("coco")
    if schedule == "1x":
        # Detectron2's Base-RCNN-C4.yaml.
        published.SOLVER.STEPS, published.SOLVER.MAX_ITER = (60000, 80000), 90000
    config = project_config(f"{FOLDER}/moco_c4_{schedule}.py")
    assert_same_run(config, published, build(published))
    assert config.train.init_checkpoint == "ssl://moco_v2_800ep"
    assert config.train.output_dir == f"./output/moco_c4_{schedule}"


@pytest.mark.parametrize("line", training_commands(README))
def test_a_command_of_the_readme(line, runs, miniatures, converted, tmp_path):
    folder = tmp_path / "run"
    run_training_command(runs, line, folder, f"train.init_checkpoint={converted}")
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "coco_2017_val"
    assert metrics["images"] == 6 and {"AP", "AP50", "AP75"} <= metrics["segm"].keys()
