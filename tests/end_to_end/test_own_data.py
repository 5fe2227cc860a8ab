"""Data of a user's own from its folder to a report: by path as by name, whatever form its files have."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.config import LazyConfig
from own_data import in_odd_forms, own_data, register, results, rewrite, same
from running import TINY, output

from ssl_backbones.errors import InputError
from ssl_backbones.report.reading.ground_truth import GroundTruths

FEW = ("train.max_iter=4", "train.eval_period=0", "train.draw_batches=0")
BY_NAME = ("dataloader.train.dataset.names=own_train", "dataloader.test.dataset.names=own_val")
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clean(digits, tmp_path_factory):
    return own_data(digits, tmp_path_factory.mktemp("clean") / "shapes")


@pytest.fixture(scope="module")
def by_hand(runs, clean, tmp_path_factory):
    """The results of a run whose datasets are registered in Python."""
    folder = tmp_path_factory.mktemp("by_hand") / "run"
    assert runs.run(folder, *FEW, *BY_NAME, fault=(register, str(clean))) == [0], output(folder)
    return results(folder)


def yaml_of(folder):
    return LazyConfig.load(str(folder / "config.yaml"))


def entries(folder):
    """Everything in a folder, with sizes and times."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def by_path(runs, clean, tmp_path_factory):
    """The folder of a run on the same files by --data, of the recipe's 80 classes."""
    folder = tmp_path_factory.mktemp("by_path") / "run"
    before = entries(clean)
    words = (*FEW, "train.checkpointer.period=2", "dataloader.train.total_batch_size=2")
    assert runs.run(folder, *words, data=str(clean)) == [0], output(folder)
    assert entries(clean) == before
    return folder


def test_a_path_trains_as_a_name_does(by_hand, by_path, clean):
    same(results(by_path), by_hand)
    record = json.loads((by_path / "run_data.json").read_text())
    (train,) = record["train"]
    assert train["annotations"] == str(clean / "train.json") and train["name"] == "shapes_train"
    assert [one["name"] for one in train["categories"]] == list("0123456789")
    said = output(by_path)
    assert f"{clean}: COCO files in shapes: train, val" in said
    content = json.loads((clean / "train.json").read_text())
    count, images = len(content["annotations"]), len(content["images"])
    log = (by_path / "log.txt").read_text()
    objects = f"{count} in {images} images, and 0 crowds; {count} with polygons, learnt as polygons"
    for row, words in {
        "data": str(clean),
        "classes": "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "objects": objects,
        "evaluated by": "COCOEvaluator",
    }.items():
        assert re.search(f"^{row} +{re.escape(words)}$", log, re.MULTILINE), row
    # Pages show names: the path of the data stands in the record alone.
    assert (
        json.loads((by_path / "inference" / "metrics.json").read_text())["dataset"] == "shapes_val"
    )


def test_odd_forms_give_the_clean_files_numbers(runs, digits, by_hand, tmp_path):
    """To the last digit, by path and by name, and as a report reads them."""
    root = own_data(digits, tmp_path / "odd", in_odd_forms)
    for name in ("train", "val"):
        path = root / f"{name}.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    words = (*FEW, "dataloader.train.total_batch_size=2")
    named, pathed = tmp_path / "named", tmp_path / "pathed"
    assert runs.run(pathed, *words, data=str(root)) == [0], output(pathed)
    assert runs.run(named, *FEW, *BY_NAME, fault=(register, str(root))) == [0], output(named)
    same(results(pathed), by_hand)
    same(results(named), by_hand)
    assert "iscrowd is" in output(named) and "byte order mark" in output(pathed)
    truths = GroundTruths()
    read = truths.of("odd_val", pathed).coco.dataset
    clean = json.loads((digits / "annotations" / "test.json").read_text())
    assert [one["area"] for one in read["annotations"]] == [
        one["area"] for one in clean["annotations"]
    ]
    assert [one["id"] for one in read["images"]] == [one["id"] for one in clean["images"]]


def test_the_same_data_elsewhere_is_the_same_recipe_and_other_data_is_not_gone_on_with(
    runs, by_path, clean, tmp_path
):
    """The data has moved: --data says where to, and the run goes on to the same bits."""
    moved, folder = tmp_path / "elsewhere", tmp_path / "run"
    shutil.copytree(clean, moved)
    shutil.copytree(by_path, folder)
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    config = str(folder / "config.yaml")
    options = {"config_file": config, "data": str(moved), "resume": True}
    words = ("dataloader.train.total_batch_size=2",)
    assert runs.run(folder, *words, **options) == [0], output(folder)
    same(results(folder), results(by_path))
    record = [json.loads((run / "run.json").read_text()) for run in (by_path, folder)]
    assert record[0]["fingerprint"] == record[1]["fingerprint"]
    assert not record[1]["starts"][-1]["changed"]

    rewrite(moved / "train.json", lambda content: content["annotations"].pop())
    assert runs.run(folder, *words, **options) == [2]
    assert "elsewhere/train.json is not what the run in" in output(folder).splitlines()[-1]
    rewrite(moved / "val.json", lambda content: content["annotations"].pop())
    again = tmp_path / "again"
    weights = f"train.init_checkpoint={by_path / 'model_final.pth'}"
    flags = {"config_file": config, "eval_only": True}
    assert runs.run(again, weights, data=str(moved), **flags) == [0], output(again)
    assert "elsewhere/val.json is not what the run in" in output(again)


def test_every_process_finds_the_data_and_a_run_keeps_its_batch(runs, clean, tmp_path):
    """Two images a process where nobody names a batch; whatever the number of processes that go on."""
    folder = tmp_path / "run"
    assert runs.run(folder, *FEW, processes=2, data=str(clean)) == [0, 0], output(folder)
    before = yaml_of(folder)
    assert before.dataloader.train.total_batch_size == before.train.reference_batch_size == 4
    assert before.optimizer.lr == 0.02 * 4 / 2  # tiny.py's is for two images
    words = ("train.max_iter=6", "train.eval_period=0")
    assert runs.run(folder, *words, data=str(clean), resume=True) == [0], output(folder)
    after = yaml_of(folder)
    assert after.dataloader.train.total_batch_size == 4 and after.optimizer.lr == 0.04


def test_classes_are_those_of_the_weights_by_name(runs, digits, by_path, tmp_path):
    """Of a test set that numbers its classes the other way round, and of one class that it never lists."""

    def turn(content):
        numbers = {one["id"]: 100 - one["id"] for one in content["categories"]}
        for one in content["categories"]:
            one["id"] = numbers[one["id"]]
        for one in content["annotations"]:
            one["category_id"] = numbers[one["category_id"]]

    root = own_data(digits, tmp_path / "turned", turn)
    folder = tmp_path / "run"
    weights = f"train.init_checkpoint={by_path / 'model_final.pth'}"
    assert runs.run(folder, weights, data=str(root), eval_only=True) == [0], output(folder)
    evaluated, first = (
        json.loads((run / "inference" / "metrics.json").read_text()) for run in (folder, by_path)
    )
    assert evaluated["bbox"] == first["bbox"] and evaluated["segm"] == first["segm"]
    assert "its classes are read by name" in output(folder)


def following(printed):
    """The commands that a tool says to run next."""
    lines = [line for line in printed.splitlines() if line.startswith(("Next", "The same"))]
    return [shlex.split(line.partition(": ")[2]) for line in lines]


def test_what_a_tool_says_to_run_next_works_from_another_folder(clean, digits, tmp_path):
    """Ids of its own in every result, and the data found by what follows."""

    def number_from_11(content):
        for one in content["categories"]:
            one["id"] += 10
        for one in content["annotations"]:
            one["category_id"] += 10

    root = own_data(digits, tmp_path / "shapes", number_from_11)
    run, found = tmp_path / "run", tmp_path / "found"

    def call(*words, cwd=tmp_path):
        words = words if words[0] == sys.executable else (sys.executable, *words)
        environment = {k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    train = call(
        *(CHECKOUT / "tools" / "train_net.py", "--config-file", TINY, "--data", "shapes"),
        *(f"train.output_dir={run.name}", *FEW),
    )
    report, again = following(train)
    assert "Box AP" in call(*report, cwd=elsewhere) and (run / "report.html").exists()
    before = json.loads((run / "inference" / "metrics.json").read_text())
    call(*again, cwd=elsewhere)
    assert json.loads((run / "inference" / "metrics.json").read_text()) == before
    predicted = call(
        *(CHECKOUT / "tools" / "predict.py", "--config-file", run / "config.yaml"),
        *("--weights", run / "model_final.pth", root / "val", "--out", found),
        *("--threshold", "0", "--no-pictures"),
        cwd=elsewhere,
    )
    (evaluate,) = following(predicted)
    call(*evaluate, cwd=elsewhere)
    detections = json.loads((found / "coco_instances_results.json").read_text())
    assert {one["category_id"] for one in detections} <= set(range(11, 21))
    categories = json.loads((found / "images.json").read_text())["categories"]
    assert categories == [{"id": 11 + digit, "name": str(digit)} for digit in range(10)]
    browsed = call(CHECKOUT / "tools" / "browse_data.py", run, "--num-images", "2", cwd=elsewhere)
    (dry_run,) = following(browsed)
    call(*dry_run, cwd=elsewhere)
    moved = root.rename(tmp_path / "moved")
    page = call(CHECKOUT / "tools" / "report.py", run, "--data", moved, cwd=elsewhere)
    assert "no longer" not in page and "95 % interval" in page
    with pytest.raises(InputError, match=f"no longer at {root / 'val.json'}"):
        GroundTruths().of("shapes_val", run)
