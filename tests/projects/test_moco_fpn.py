"""The MoCo paper's FPN recipe: Detectron2's with what the paper changes, and the README's commands."""

import json

import pytest
from commands import project_config, run_training_command, training_commands
from detectron2 import model_zoo
from detectron2.modeling import build_model
from yaml_configs import assert_same_run

README = "projects/moco_fpn/README.md"
FOLDER = "projects/moco_fpn/configs"


def papers_config(file, steps, max_iter):
    """A config of Detectron2's model zoo with what arXiv:1911.05722 says in sections 4.2 and 4.2.2.

    Input and stride as in MoCo's detection/configs/*_moco.yaml (commit 7397dfe).
    """
    cfg = model_zoo.get_config(file)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = cfg.MODEL.ROI_MASK_HEAD.NORM = "SyncBN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (640, 672, 704, 736, 768, 800)
    cfg.SOLVER.STEPS, cfg.SOLVER.MAX_ITER = steps, max_iter
    cfg.TEST.PRECISE_BN.ENABLED = True
    return cfg


@pytest.mark.parametrize("times", [1, 2])
def test_it_is_detectron2s_mask_rcnn_with_what_the_paper_changes(times):
    steps, max_iter = (60000 * times, 80000 * times), 90000 * times
    published = papers_config(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", steps, max_iter
    )
    config = project_config(f"{FOLDER}/moco_paper_{times}x.py")
    assert_same_run(config, published, build_model(published))
    assert config.train.init_checkpoint == "ssl://moco_v2_800ep"
    assert config.train.output_dir == f"./output/moco_paper_{times}x"


@pytest.mark.parametrize("line", training_commands(README))
def test_a_command_of_the_readme(line, runs, miniatures, converted, tmp_path):
    folder = tmp_path / "run"
    run_training_command(runs, line, folder, f"train.init_checkpoint={converted}")
    metrics = json.loads((folder / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "coco_2017_val"
    assert metrics["images"] == 6 and {"AP", "AP50", "AP75"} <= metrics["segm"].keys()
    # A ResNet's 53, two for each level of FPN, the mask head's 4; and 4 in the box head of InfoMin.
    count = 53 + 8 + 4 + (4 if "conv_dims" in line else 0)
    assert f"Running statistics of {count} batch norms anew" in (folder / "log.txt").read_text()
