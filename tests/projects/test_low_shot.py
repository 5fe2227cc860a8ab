"""Low-shot COCO: lists that are the same everywhere, and the recipe on fewer images."""

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_training_command, training_commands
from detectron2.config import LazyConfig
from detectron2.data import DatasetCatalog, MetadataCatalog
from page_commands import commands

from ssl_backbones.data.dividing import labelled_share
from ssl_backbones.engine.config import load_config
from ssl_backbones.engine.recipe import compare, recipe
from ssl_backbones.errors import InputError

CHECKOUT = Path(__file__).parents[2]
README = "projects/low_shot/README.md"
COCO_TRAIN = 118_287  # images in instances_train2017.json


@pytest.fixture(scope="module", autouse=True)
def checkout_on_the_path():
    """As the project's scripts have it when they run."""
    sys.path.insert(0, str(CHECKOUT))
    yield
    sys.path.remove(str(CHECKOUT))


@pytest.fixture(scope="module")
def lists():
    return importlib.import_module("projects.low_shot.lists")


@pytest.fixture(scope="module")
def written(lists, miniatures):
    """The folder of the lists of COCO in miniature."""
    lists.write_lists(miniatures)
    return miniatures / "coco_low_shot"


# The lists


def test_the_readme_says_how_many_of_coco_they_are(lists):
    numbers = [len(labelled_share(range(COCO_TRAIN), share, 0)) for share in lists.SHARES]
    assert numbers == [1183, 2366, 5914, 11829]  # of 1182.87, 2365.74, 5914.35 and 11828.7
    assert "1,183, 2,366, 5,914 and 11,829" in (CHECKOUT / README).read_text()


def test_a_list_is_the_part_of_coco_that_has_its_images(lists, written, miniatures):
    whole = json.loads((miniatures / lists.SOURCE).read_text())
    ids = [image["id"] for image in whole["images"]]
    for share in lists.SHARES:
        for fold in lists.FOLDS:
            chosen = labelled_share(ids, share, fold)
            part = json.loads((written / f"{share}_fold{fold}.json").read_text())
            assert part["categories"] == whole["categories"]
            for key, of in (("images", "id"), ("annotations", "image_id")):
                assert part[key] == [one for one in whole[key] if one[of] in chosen]
            text = (written / f"{share}_fold{fold}.txt").read_text()
            assert text == "".join(f"{id_}\n" for id_ in chosen)


def test_detectron2_reads_it_by_its_name(lists, written):
    lists.register()
    lists.register()
    ours = DatasetCatalog.get("coco_low_shot_10_fold2_train")
    ids = [record["image_id"] for record in ours]
    whole = DatasetCatalog.get("coco_2017_train")
    assert ours == [record for record in whole if record["image_id"] in ids] and len(ours) == 1
    metadata = MetadataCatalog.get("coco_low_shot_10_fold2_train")
    assert metadata.thing_classes == MetadataCatalog.get("coco_2017_val").thing_classes
    assert metadata.made_by == "python projects/low_shot/lists.py"


@pytest.fixture()
def coco(miniatures, tmp_path):
    """A copy of COCO in miniature, with nothing but the annotations."""
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    shutil.copy(miniatures / "coco/annotations/instances_train2017.json", folder)
    return tmp_path


def test_the_command_makes_the_same_bytes_and_leaves_them_there(lists, written, coco, capsys):
    assert lists.main(["--root", str(coco)]) == 0
    first, _ = capsys.readouterr()
    assert first.endswith(f"\nnext: {lists.PLAN}\n")
    made = coco / "coco_low_shot"
    assert len(list(made.iterdir())) == 41
    for path in made.iterdir():
        assert path.read_bytes() == (written / path.name).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert lists.main(["--root", str(coco)]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_lists_of_another_file_are_made_anew(lists, written, coco):
    lists.write_lists(coco)
    source = coco / lists.SOURCE
    content = json.loads(source.read_text())
    content["images"] = content["images"][:3]
    source.write_text(json.dumps(content))
    lists.write_lists(coco)
    ids = {image["id"] for image in content["images"]}
    found = json.loads((coco / "coco_low_shot" / "10_fold1.json").read_text())["images"]
    assert {image["id"] for image in found} < ids


@pytest.mark.parametrize("name", ["10_fold1.json", "1_fold4.txt"])
@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("[]")])
def test_a_list_that_is_missing_or_another_is_written_again(lists, written, coco, name, change):
    lists.write_lists(coco)
    change(coco / "coco_low_shot" / name)
    lists.write_lists(coco)
    assert (coco / "coco_low_shot" / name).read_bytes() == (written / name).read_bytes()


def test_the_digest_is_of_what_training_reads(lists, coco):
    lists.write_lists(coco)
    path = coco / "coco_low_shot" / "10_fold1.json"
    number, sha256 = lists.read_list(coco, 10, 1)
    sha256sum = subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout
    assert number == len(json.loads(path.read_text())["images"]) and sha256sum.split()[0] == sha256
    path.write_text(path.read_text().replace("bbox", "box"))
    assert lists.read_list(coco, 10, 1) != (number, sha256)
    for text in ("[", "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"10_fold1.json cannot be read.*lists.py makes it"):
            lists.read_list(coco, 10, 1)


def test_what_the_lists_cannot_be_made_of_is_refused(lists, coco, tmp_path):
    source = coco / lists.SOURCE
    text = source.read_text()
    (coco / "coco_low_shot").mkdir()
    with pytest.raises(InputError, match="coco_low_shot holds something else"):
        lists.write_lists(coco)
    (coco / "coco_low_shot").rmdir()
    for broken in (text[:-40], "[]", '{"images": [{}]}'):
        source.write_text(broken)
        with pytest.raises(InputError, match=r"instances_train2017.json is not in COCO's format"):
            lists.write_lists(coco)
    source.unlink()
    with pytest.raises(InputError, match=r"instances_train2017.json is not there: put COCO below"):
        lists.write_lists(coco)
    assert not (coco / "coco_low_shot").exists()


# The configs


@pytest.mark.parametrize("share", [1, 2, 5, 10])
def test_a_config_is_the_recipe_on_fewer_images(share):
    path = CHECKOUT / f"projects/low_shot/configs/low_shot_{share}.py"
    differences = compare(recipe(load_config("moco_1x")), recipe(load_config(str(path))))
    assert differences == [
        (
            "dataloader.train.dataset.names",
            "coco_2017_train",
            f"coco_low_shot_{share}_fold0_train",
        ),
        ("train.best_metric", "bbox/AP", None),
        ("train.eval_period", 5000, 0),
    ]
    cfg = LazyConfig.load(str(path))
    assert f"low_shot_{share}" in cfg.train.output_dir


def test_the_schedule_is_that_of_the_sources_by_the_linear_rule():
    """Soft Teacher's configs/baseline/base.py, of 8 images, lr 0.01."""
    cfg = LazyConfig.load(str(CHECKOUT / "projects/low_shot/configs/low_shot_1.py"))
    assert cfg.dataloader.train.total_batch_size == 2 * 8
    assert cfg.optimizer.lr == 2 * 0.01
    assert 2 * cfg.train.max_iter == 180_000
    assert [2 * step for step in cfg.lr_multiplier.scheduler.milestones] == [120_000, 160_000]


@pytest.mark.parametrize("line", training_commands(README))
def test_a_training_command_of_the_readme(line, runs, written, converted, tmp_path):
    run_training_command(runs, line, tmp_path / "run", f"train.init_checkpoint={converted}")
    metrics = json.loads((tmp_path / "run" / "inference" / "metrics.json").read_text())
    assert metrics["dataset"] == "coco_2017_val" and {"bbox", "segm"} <= set(metrics)


# The commands


def test_every_command_of_the_readme_is_run_here(lists):
    """The lists' and the plan by tests of their own; the runs by those of the evaluation."""
    lines = set(commands((CHECKOUT / README).read_text())) - set(training_commands(README))
    assert lines == {lists.PLAN, lists.PLAN.removesuffix(" --plan"), lists.COMMAND}


def test_the_plan_that_the_lists_lead_to_has_all_folds_of_all_shares(lists, run_tool, tmp_path):
    """90,000 iterations of 0.261 s are 6.5 hours, twenty times."""
    result = run_tool(*shlex.split(lists.PLAN)[1:], "--output", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    assert "$ python projects/low_shot/lists.py\n" in result.stdout
    for share in lists.SHARES:
        for fold in lists.FOLDS:
            name = f"low_shot_{share}_fold{fold} train.seed={fold}\n"
            assert f"names=coco_low_shot_{share}_fold{fold}_train " in result.stdout
            assert result.stdout.count(name) == 1
    assert result.stdout.count("tools/train_net.py") == 20
    assert result.stdout.count("5 runs, 6.5 hours each") == 4
    assert "\n130 hours in all" in result.stdout and not list(tmp_path.iterdir())
