"""What is known of the published recipes, against other places that say it, and what a run deviates in."""

import ast
import re
from pathlib import Path

import pytest

from ssl_backbones import config_file, get_config
from ssl_backbones.engine.config import apply_overrides
from ssl_backbones.engine.recipe import recipe as fields_of
from ssl_backbones.report.published import (
    FIELDS,
    PROCESSES,
    RECIPES,
    TEST_IMAGES,
    deviations,
    published_fields,
    recipe_of,
    value_of,
    why_not_comparable,
)

README = (Path(__file__).parents[2] / "README.md").read_text()
NAMES = ("moco_1x", "moco_ms2x", "swav_1x", "swav_ms2x")
MOCO = {"source": "moco_v2_800ep_pretrain.pth.tar", "source_sha256": "ab", "method": "moco"}
SWAV = {"source": "swav_800ep_pretrain.pth.tar", "source_sha256": "cd", "method": "swav"}


def record(name, *overrides, weights=None, slots=PROCESSES):
    """run.json of a run of a recipe; its seed was drawn."""
    cfg = get_config(name)
    apply_overrides(cfg, ["train.seed=41", *overrides])
    weights = (MOCO if name.startswith("moco") else SWAV) if weights is None else weights
    return {"recipe": fields_of(cfg, weights, slots), "weights": weights}


def rows_below(heading):
    """Cells of the README's next table, less their Markdown."""
    table = re.search(r"(?:^\|.*\n)+", README.split(f"{heading}\n")[1], re.MULTILINE)[0]
    lines = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [[re.sub(r"`|\*\*", "", cell).strip() for cell in line] for line in lines]


def test_the_recipes_are_the_packaged_ones():
    assert tuple(RECIPES) == NAMES
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert get_config(name).train.init_checkpoint == f"ssl://{recipe.weights}"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_and_source_are_those_of_the_config(name):
    words = ast.get_docstring(ast.parse(config_file(name).read_text()))
    box, mask, config = re.search(
        r"Published: ([\d.]+) box AP, ([\d.]+) mask AP \(MMDetection (\S+), COCO val2017\)", words
    ).groups()
    recipe = RECIPES[name]
    assert recipe.ap == {"bbox/AP": float(box), "segm/AP": float(mask)}
    assert recipe.config == config and config in recipe.source


def test_numbers_are_those_of_the_readme():
    rows = rows_below("## Results")
    for name, recipe in RECIPES.items():
        (row,) = (row for row in rows if any(f"configs/{name}.py" in cell for cell in row))
        assert {str(value) for value in recipe.ap.values()} <= set(row)


def test_fields_are_those_of_the_readme():
    rows = rows_below("### What the recipes mean, field by field")
    assert [(field.name, field.published) for field in FIELDS] == [tuple(r[:2]) for r in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_one_of_the_recipe(name):
    fields = record(name)["recipe"]
    schedule = "2x" if name.endswith("2x") else "1x"
    for field in FIELDS:
        if field.schedule in ("", schedule):
            assert any(value_of(fields, key) is not None for key in field.keys), field.name


def test_published_fields_stand_beside_those_of_a_run():
    found = {f.name: f for f in published_fields(RECIPES["moco_1x"], record("moco_1x"))}
    # By hand, from configs/common and MMDetection's schedule.
    assert found["batch, LR, momentum"].published == "16, 0.02, 0.9"
    assert found["batch, LR, momentum"].here == (
        "dataloader.train.total_batch_size = 16; optimizer.lr = 0.02; optimizer.momentum = 0.9"
    )
    assert found["1x"].here.endswith("lr_multiplier.scheduler.milestones = [60000, 80000]")
    assert found["weights"].here == "moco_v2_800ep_pretrain.pth.tar moco"
    assert "2x" not in found and "train scale, 2x" not in found
    changed = record("moco_1x", "optimizer.lr=0.01", weights={})
    found = {f.name: f for f in published_fields(RECIPES["moco_1x"], changed)}
    assert "optimizer.lr = 0.01" in found["batch, LR, momentum"].here
    assert found["weights"].here == "ssl://moco_v2_800ep"


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_the_recipe_deviates_in_nothing(name):
    assert deviations(RECIPES[name], record(name), TEST_IMAGES) == []
    assert why_not_comparable("coco_2017_val", []) == ""


def keys(name, record, images=None):
    return {d.key: (d.recipe, d.run) for d in deviations(RECIPES[name], record, images)}


def test_what_a_run_deviates_in():
    changed = record(
        "moco_1x",
        "optimizer.lr=0.01",
        "train.max_iter=1000",
        "dataloader.test.dataset.names=digits_test",
        "train.device=cpu",
        "train.output_dir=elsewhere",
        slots=1,
    )
    assert keys("moco_1x", changed, 150) == {
        "optimizer.lr": (0.02, 0.01),
        "train.max_iter": (90000, 1000),
        "dataloader.test.dataset.names": ("coco_2017_val", "digits_test"),
        "dataloader.evaluator.dataset_name": ("coco_2017_val", "digits_test"),
        "slots": (8, 1),
        "test images": (5000, 150),
    }


@pytest.mark.parametrize(
    "weights",
    [
        {"source": "mine.pth", "source_sha256": "ab", "method": "moco", "branch": "online"},
        MOCO | {"branch": "momentum"},
        MOCO | {"method": "byol"},
        SWAV,
    ],
)
def test_other_weights_are_a_deviation(weights):
    (found,) = deviations(RECIPES["moco_1x"], record("moco_1x", weights=weights))
    assert found.key == "weights" and found.recipe == "ssl://moco_v2_800ep"
    assert found.run.startswith(weights["source_sha256"])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (
            ["tools/train_net.py", "--config-file", "configs/moco_1x.py", "--num-gpus", "8"],
            "moco_1x",
        ),
        (["train_net.py", "train.seed=1", "--config-file=swav_ms2x"], "swav_ms2x"),
        (["t", "--config-file", "swav_1x.py"], "swav_1x"),
        (["t", "--config-file", "/home/me/checkout/configs/moco_ms2x.py"], "moco_ms2x"),
        (["t", "--config-file", "projects/digits/configs/moco_digits.py"], ""),
        (["t", "--config-file", "mine/moco_1x.py"], ""),
        (["t", "--config-file", "configs/moco_1x.yaml"], ""),
        (["t", "--config-file"], ""),
        (["t", "configs/moco_1x.py", 3, None], ""),
        ([], ""),
    ],
)
def test_the_recipe_of_a_command_line(command, name):
    found = recipe_of(command)
    assert (found.name if found else "") == name


def test_why_a_number_is_not_of_the_same_thing():
    def why(dataset, *overrides, images=TEST_IMAGES):
        found = deviations(RECIPES["moco_1x"], record("moco_1x", *overrides), images)
        return why_not_comparable(dataset, found)

    assert why("coco_2017_val") == ""
    assert why("coco_2017_val", "optimizer.lr=0.01") == "not the same recipe: 1 field differs"
    assert (
        why("coco_2017_val", "optimizer.lr=0.01", "train.max_iter=9")
        == "not the same recipe: 2 fields differ"
    )
    assert (
        why("coco_2017_val", images=50) == "not the same data: tested on 50 instead of 5,000 images"
    )
    assert why("", images=None) == "not the same data: tested on an unknown dataset"
    assert why("digits_test", "dataloader.train.dataset.names=digits_train", images=None) == (
        "not the same data: tested on digits_test, trained on digits_train"
    )
