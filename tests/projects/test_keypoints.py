"""COCO key points: Detectron2's config with what the MoCo paper changes, and the README's command."""

import json

import pytest
from commands import project_config, run_training_command, training_commands
from detectron2 import model_zoo
from detectron2.modeling import build_model
from yaml_configs import assert_same_run

README = "projects/keypoints/README.md"
CONFIG = "projects/keypoints/configs/moco_keypoints_2x.py"


def test_it_is_detectron2s_keypoint_rcnn_with_what_the_paper_changes():
    # arXiv:1911.05722, section 4.2 and appendix A.2; input and stride as in MoCo's *_moco.yaml.
    published = model_zoo.get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml")
    published.MODEL.DEVICE = "cpu"
    published.MODEL.BACKBONE.FREEZE_AT = 0
    published.MODEL.RESNETS.NORM = published.MODEL.FPN.NORM = "SyncBN"
    published.MODEL.RESNETS.STRIDE_IN_1X1 = False
    published.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    published.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    published.INPUT.FORMAT = "RGB"
    published.SOLVER.STEPS, published.SOLVER.MAX_ITER = (120000, 160000), 180000
    published.TEST.PRECISE_BN.ENABLED = True
    config = project_config(CONFIG)
    assert_same_run(config, published, build_model(published))
    assert config.train.init_checkpoint == "ssl://moco_v2_800ep"


@pytest.mark.parametrize("line", training_commands(README))
def test_a_command_of_the_readme(line, runs, miniatures, converted, tmp_path):
    folder = tmp_path / "run"
    run_training_command(runs, line, folder, f"train.init_checkpoint={converted}")
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "keypoints_coco_2017_val"
    assert {"AP", "AP50", "AP75", "APm", "APl"} <= metrics["keypoints"].keys()
    lines = (folder / "metrics.json").read_text().splitlines()
    assert "loss_keypoint" in json.loads(lines[0])
