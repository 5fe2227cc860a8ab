"""What is known of the published recipes, against other places that say it, and what a run deviates in."""

import ast
import re
from pathlib import Path

import pytest

from ssl_backbones import config_file, get_config
from ssl_backbones.engine.config import apply_overrides
from ssl_backbones.engine.recipe import ABSENT
from ssl_backbones.engine.recipe import recipe as fields_of
from ssl_backbones.report.content import RunContent
from ssl_backbones.report.reading.published import (
    PROCESSES,
    RECIPES,
    TEST_IMAGES,
    deviations,
    published_fields,
    recipe_differences,
    recipe_of,
    value_of,
    why_not_comparable,
)

README = (Path(__file__).parents[3] / "README.md").read_text()
NAMES = ("moco_1x", "moco_ms2x", "swav_1x", "swav_ms2x")
MOCO = {"source": "moco_v2_800ep_pretrain.pth.tar", "source_sha256": "ab", "method": "moco"}
SWAV = {"source": "swav_800ep_pretrain.pth.tar", "source_sha256": "cd", "method": "swav"}


def record(name, *overrides, weights=None, slots=PROCESSES):
    """run.json of a run of a recipe; its seed was drawn."""
    cfg = get_config(name)
    apply_overrides(cfg, ["train.seed=41", *overrides])
    weights = (MOCO if name.startswith("moco") else SWAV) if weights is None else weights
    return {"recipe": fields_of(cfg, weights, slots), "weights": weights}


def run(name, *overrides, images=TEST_IMAGES, done=None, starts=(), **content):
    """A run of a recipe that came to the end of its schedule, if `done` does not say otherwise."""
    recorded = record(name, *overrides) | {"starts": list(starts)}
    last = recorded["recipe"]["train.max_iter"] if done is None else done
    return RunContent(
        **{"dataset": "coco_2017_val", "evaluation": "inference"} | content,
        name="run",
        folder="run",
        record=recorded,
        curves={"lr": [(19, 0.02), (last - 1, 0.02)]} if last else {},
        deviations=deviations(RECIPES[name], recorded, images),
    )


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


@pytest.mark.parametrize("name", NAMES)
def test_published_fields_stand_beside_those_of_a_run(name):
    found = {f.name: (f.published, f.here) for f in published_fields(RECIPES[name], record(name))}
    # By hand, from MMDetection's configs and from configs/common.
    assert found["learning rate"] == ("0.02", "0.02")
    assert found["batch"] == ("2 images on each of 8 GPUs", "16")
    assert found["frozen"] == ("frozen_stages=0: the stem and its norm", "1")
    assert found["IoU of NMS"] == ("0.5", "as Detectron2 has it")
    epochs, iterations = ("24", "180,000") if name.endswith("2x") else ("12", "90,000")
    assert found["iterations"][0].startswith(f"{epochs} epochs")
    assert found["iterations"][1] == iterations
    weights = MOCO if name.startswith("moco") else SWAV
    assert found["weights"][1] == f"{weights['source']} {weights['method']}"
    assert "early end" not in found


def test_what_a_run_has_otherwise_stands_there():
    changed = record("moco_1x", "optimizer.lr=0.01", weights={})
    found = {f.name: f.here for f in published_fields(RECIPES["moco_1x"], changed)}
    assert found["learning rate"] == "0.01"
    assert found["weights"] == "ssl://moco_v2_800ep"


def test_values_of_keys_that_hold_others():
    fields = {"a.0": 1, "a.1.x": 2, "a.1.y": 3, "b": None}
    assert value_of(fields, "a") == [1, {"x": 2, "y": 3}]
    assert value_of(fields, "b") is None
    assert value_of(fields, "c") == ABSENT


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_the_recipe_deviates_in_nothing(name):
    assert deviations(RECIPES[name], record(name), TEST_IMAGES) == []
    assert why_not_comparable(run(name)) == ""


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


@pytest.mark.parametrize(
    ("overrides", "content", "why"),
    [
        ([], {}, ""),
        (["train.eval_period=7"], {}, ""),
        (["optimizer.lr=0.01"], {}, "not the same recipe: 1 field differs"),
        (["optimizer.lr=0.01", "train.max_iter=9"], {}, "not the same recipe: 2 fields differ"),
        ([], {"images": 50}, "not the same data: tested on 50 instead of 5,000 images"),
        (
            [],
            {"dataset": "", "images": None},
            "not the same data: tested on an unknown dataset",
        ),
        (
            ["dataloader.train.dataset.names=digits_train", "optimizer.lr=0.01"],
            {"dataset": "digits_test", "images": None},
            "not the same data: tested on digits_test, trained on digits_train; not the same recipe: 1 field "
            "differs",
        ),
        ([], {"done": 80_000}, "not the same training: did 80,000 of 90,000 iterations"),
        ([], {"done": 0}, "not the same training: it is not known how many iterations it did"),
        (
            [],
            {"starts": [{"changed": []}, {"changed": [["optimizer.lr", 0.02, 0.01]]}]},
            "not the same training: resumed with other values of optimizer.lr",
        ),
        ([], {"starts": [{"changed": [["train.eval_period", 1, 2]]}]}, ""),
        ([], {"evaluation": "inference_ema"}, "not the same evaluation: of averaged weights"),
        ([], {"facts": {"test_time_augmentation": "none"}}, ""),
        (
            [],
            {"facts": {"test_time_augmentation": "shorter side 400"}},
            "not the same evaluation: with test-time augmentation (shorter side 400)",
        ),
        (
            [],
            {"evaluation": "inference_subset_ema_tta"},
            "not the same evaluation: of part of the images, of averaged weights, with test-time "
            "augmentation",
        ),
        ([], {"evaluation": "inference_mine"}, "not the same evaluation: of inference_mine"),
    ],
)
def test_why_a_number_is_not_of_the_same_thing(overrides, content, why):
    assert why_not_comparable(run("moco_1x", *overrides, **content)) == why


@pytest.mark.parametrize("name", NAMES)
def test_in_what_the_packaged_recipe_is_not_the_published_one(name):
    found = {d.name: d for d in recipe_differences(RECIPES[name])}
    # By hand, from MMDetection's schedules and heads, and from Detectron2's.
    epochs, iterations = ("24", "180,000") if name.endswith("2x") else ("12", "90,000")
    assert found["iterations"].published.startswith(f"{epochs} epochs")
    assert found["iterations"].here == iterations
    assert found["order of the images"].published == "shuffled every epoch"
    assert found["box head, an object claims its best proposal"].here == "no"
    assert all(d.reason and d.published != d.here for d in found.values())
    assert not {"learning rate", "batch", "weights"} & set(found)


def test_published_fields_name_the_keys_that_deviations_have():
    fields = {f.name: f for f in published_fields(RECIPES["moco_1x"], record("moco_1x"))}
    assert fields["learning rate"].keys == ("optimizer.lr",)
