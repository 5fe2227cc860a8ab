"""Detectron2 v0.6 without its compiled extension: what works, and how clearly the rest fails."""

import os
import subprocess
import sys

import pytest

from ssl_backbones.installation import stand_in

# Each is run by the Detectron2 of the wheel, in a process of its own.
SCRIPT = """
import detectron2, detectron2._C
print(detectron2.__file__)
print(detectron2._C.__file__)

from detectron2 import model_zoo
print(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))

# Logged by Detectron2's default_setup before every training.
from detectron2.utils.collect_env import collect_env_info
print([line.split(None, 1)[1] for line in collect_env_info().splitlines() if "ompiler" in line][0])

from pycocotools.coco import COCO
from detectron2.evaluation.fast_eval_api import COCOeval_opt
truth = COCO()
truth.dataset = {
    "images": [{"id": 1, "height": 9, "width": 9}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}
    ],
}
truth.createIndex()
found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 0.9}])
try:
    COCOeval_opt(truth, found, "bbox").evaluate()
except ImportError as error:
    print("ImportError", error)
"""


@pytest.fixture(scope="module")
def printed(unpacked_wheel, tmp_path_factory) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": str(unpacked_wheel)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return [
        line for line in result.stdout.splitlines() if line.startswith(("/", "none", "ImportE"))
    ]


def test_it_stands_where_the_extension_would(printed, unpacked_wheel):
    assert printed[0] == str(unpacked_wheel / "detectron2" / "__init__.py")
    assert printed[1] == str(unpacked_wheel / "detectron2" / "_C.py")


def test_model_zoo_finds_its_configs(printed, unpacked_wheel):
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    assert printed[2] == str(unpacked_wheel / "detectron2/model_zoo/configs" / name)


def test_environment_can_be_logged(printed):
    assert printed[3] == "none (pure-Python build)"


def test_fast_coco_evaluation_names_the_mend(printed):
    assert "detectron2._C.InstanceAnnotation" in printed[4]
    assert "use_fast_impl=False" in printed[4]


@pytest.mark.parametrize("name", ["__path__", "__wrapped__", "__all__", "__deepcopy__"])
def test_python_may_ask_for_its_own_names(name):
    assert not hasattr(stand_in, name)


def test_compiled_names_cannot_be_imported():
    with pytest.raises(ImportError, match=r"detectron2\._C\.nms_rotated is compiled code"):
        from ssl_backbones.installation.stand_in import nms_rotated  # noqa: F401
