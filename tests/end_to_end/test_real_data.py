"""Real photographs, where they are: SSL_BACKBONES_REAL_DATA names a folder that holds them.

In it are coco_mini/, a part of COCO in Detectron2's layout with crowds and images without objects, and
pennfudan/, the Penn-Fudan pedestrians with train.json, val.json and masks in run lengths.
"""

import importlib.util
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from pycocotools.coco import COCO
from running import TINY, metrics, output

FOLDER = os.environ.get("SSL_BACKBONES_REAL_DATA", "")
TOOLS = Path(__file__).parents[2] / "tools"
CONFIGS = TOOLS.with_name("configs")

pytestmark = pytest.mark.skipif(not FOLDER, reason="SSL_BACKBONES_REAL_DATA names no folder")

SPLITS = {
    "coco_mini": ["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
    "pennfudan": ["train.json", "val.json"],
}


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def counts_of(coco: COCO) -> dict[str, str]:
    """The rows of the table that check_data prints, counted by pycocotools."""
    objects, crowds = (coco.loadAnns(coco.getAnnIds(iscrowd=flag)) for flag in (0, 1))
    masks = [type(one["segmentation"]) for one in objects]
    of_image = [len(coco.getAnnIds(imgIds=[id_], iscrowd=0)) for id_ in coco.getImgIds()]
    small = len(coco.getAnnIds(areaRng=[-1, 32**2], iscrowd=0))
    medium = len(coco.getAnnIds(areaRng=[32**2 - 1e-9, 96**2], iscrowd=0))
    rows = {
        "images": len(of_image),
        "images without an object": of_image.count(0),
        "classes": len(coco.getCatIds()),
        "objects": len(objects),
        "with a mask of polygons": masks.count(list),
        "with a mask of run lengths": masks.count(dict),
        "small, medium, large": f"{small}, {medium}, {len(objects) - small - medium}",
        "in an image: mean, most": f"{len(objects) / len(of_image):.1f}, {max(of_image)}",
        "crowds": len(crowds),
    }
    for category in coco.loadCats(coco.getCatIds()):
        rows[category["name"]] = len(coco.getAnnIds(catIds=[category["id"]], iscrowd=0))
    return {row: str(value) for row, value in rows.items()}


@pytest.mark.parametrize("name", SPLITS)
def test_the_counts_are_pycocotools_and_there_is_no_problem(name, capsys):
    assert tool("check_data")([os.path.join(FOLDER, name)]) == 0
    printed = capsys.readouterr().out
    assert "Problems:" not in printed
    columns = [counts_of(COCO(os.path.join(FOLDER, name, split))) for split in SPLITS[name]]
    table = {}
    for line in printed.splitlines():
        first, *cells = re.split(r"  +", line)
        table[first] = cells
    for row, value in columns[0].items():
        assert table[row] == [value, columns[1][row]], row


def test_pedestrians_are_trained_on_to_the_end(runs, tmp_path):
    folder = tmp_path / "run"
    small = [
        f"dataloader.{split}.mapper.augmentations.0.short_edge_length=128"
        for split in ("train", "test")
    ]
    words = ["train.max_iter=6", "train.eval_period=0", "optimizer.lr=0.002", *small]
    data = {"data": os.path.join(FOLDER, "pennfudan"), "classes": None, "init": None}
    assert runs.run(folder, *words, config_file=TINY, **data) == [0], output(folder)[-3000:]
    last = metrics(folder)[-1]
    assert last["iteration"] == 5
    assert 0 <= last["bbox/AP"] <= 100 and 0 <= last["segm/AP"] <= 100


@pytest.mark.parametrize(
    ("recipe", "iterations"),
    [
        ("moco_1x", "90,000"),
        ("moco_ms2x", "180,000"),
        ("swav_1x", "90,000"),
        ("swav_ms2x", "180,000"),
    ],
)
def test_the_recipes_start_on_coco_as_the_readme_has_it(
    recipe, iterations, run_tool, converted, tmp_path
):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "coco").symlink_to(os.path.abspath(os.path.join(FOLDER, "coco_mini")))
    words = ["train.device=cpu", "train.accumulate=16", f"train.init_checkpoint={converted}"]
    for split in ("train", "test"):
        # Small, for the sake of time alone.
        words.append(f"dataloader.{split}.mapper.augmentations.0.short_edge_length=64")
    words.append("dataloader.train.mapper.augmentations.0.sample_style=choice")
    result = run_tool(
        str(TOOLS / "train_net.py"),
        *("--config-file", str(CONFIGS / f"{recipe}.py"), "--dry-run", *words),
        cwd=tmp_path,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")},
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    said = " ".join(result.stdout.split())
    for sentence in (
        "coco_2017_train, tested on coco_2017_val",
        "2,945 in 343 images, and 29 crowds",
        "every backbone tensor",
        "16 images a step, as the reference, by 1 process x 16 micro-batches",
        f"{iterations} iterations of",
    ):
        assert sentence in said, sentence
    assert sorted(os.listdir(tmp_path)) == ["datasets"]


def test_pictures_of_coco_are_drawn(tmp_path, monkeypatch, capsys):
    # Its handlers would hold the streams that pytest captures in one test.
    monkeypatch.setattr("detectron2.utils.logger.setup_logger", lambda **_: None)
    words = ["--data", os.path.join(FOLDER, "coco_mini"), "--num-images", "4"]
    assert tool("browse_data")([*words, "--out", str(tmp_path / "browsed")]) == 0
    assert "images         4, of which 0 without an object" in capsys.readouterr().out
    pictures = sorted((tmp_path / "browsed").glob("000?_*.png"))
    assert len(pictures) == 4
    # As the recipe resizes: to a shorter side of up to 800 pixels.
    assert all(min(Image.open(picture).size) <= 800 for picture in pictures)
    assert all(len(set(Image.open(picture).convert("L").getdata())) > 50 for picture in pictures)
