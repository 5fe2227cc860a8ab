"""Every config beside its fidelity.yaml, and the tables that the pages have of them."""

from pathlib import Path

import pytest
from commands import CHECKOUT
from fidelity_checking import ABSENT, check, check_fields, tree_of, value_of
from fidelity_files import FILES, config, read

from ssl_backbones import fidelity
from ssl_backbones.engine.recipe import compare, recipe

# Studies and measurements of this project, which repeat nobody's protocol.
NO_PROTOCOLS = {"benchmarks", "digits", "photographs", "transfer_study"}
CONFIGS = [(file, name) for file in FILES for name in read(file).configs]


def test_every_config_of_a_protocol_is_in_a_file():
    folders = [CHECKOUT / "configs", *(CHECKOUT / "projects").glob("*/configs")]
    there = {
        path
        for folder in folders
        if folder.parent.name not in NO_PROTOCOLS
        for path in folder.glob("*.py")
    }
    named = {path.resolve() for file in FILES for path in read(file).configs.values()}
    assert named == there and len(named) >= 17


@pytest.mark.parametrize(("file", "name"), CONFIGS, ids=[name for _, name in CONFIGS])
def test_the_config_is_what_the_file_says(file, name):
    assert check(config(file, name), read(file), name) == []


def test_every_config_says_what_its_norms_are():
    for file, name in CONFIGS:
        keys = {key for row in read(file).rows_of(name) for key in row.keys}
        assert {
            f"built.norm{part}" for part in ("s", "_settings.eps", "_settings.momentum")
        } <= keys


@pytest.mark.parametrize(("file", "name"), CONFIGS, ids=[name for _, name in CONFIGS])
def test_no_field_can_change_unseen(file, name):
    fields = recipe(config(file, name))
    for field in fields:
        if field == "slots":  # as many as processes: the command's matter
            continue
        other = {**fields, field: "something else"}
        assert any(field_named(field, p) for p in checked(other, file, name)), field
        gone = {key: value for key, value in fields.items() if key != field}
        if value_of(tree_of(gone), field) != fields[field]:  # else its default says the same
            assert checked(gone, file, name), field
    for new in ("model.roi_heads.box_predictor.loss_weight", "train.something", "other.0"):
        assert any(new in problem for problem in checked({**fields, new: 2}, file, name))


def checked(fields, file, name):
    return check_fields(fields, read(file), name)


def field_named(field, problem):
    """Whether a problem names the field, or what it is a part of."""
    parts = field.split(".")
    return any(f"{'.'.join(parts[:n])} " in f"{problem} " for n in range(len(parts), 0, -1))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_table_in_the_page_is_made_of_the_file(file):
    page = CHECKOUT / "docs" / ("recipes.md" if file.parts[0] == "configs" else "protocols.md")
    text = page.read_text(encoding="utf-8")
    assert fidelity.insert(text, fidelity.table(read(file)), file.parent.name) == text, (
        f"python tools/fidelity_table.py {file} --into {page.relative_to(CHECKOUT)}"
    )


def test_configs_of_a_file_differ_in_what_its_rows_tell_apart():
    """1x and 2x, MoCo and SwAV: nothing else."""
    for one, two, keys in (
        ("moco_1x", "swav_1x", {"weights"}),
        ("moco_ms2x", "swav_ms2x", {"weights"}),
        (
            "moco_1x",
            "moco_ms2x",
            {
                *("train.max_iter", "lr_multiplier.scheduler.num_updates"),
                *(f"lr_multiplier.scheduler.milestones.{n}" for n in (0, 1)),
                "dataloader.train.mapper.augmentations.0.sample_style",
                "dataloader.train.mapper.augmentations.0.short_edge_length",
                *(f"dataloader.train.mapper.augmentations.0.short_edge_length.{n}" for n in (0, 1)),
            },
        ),
    ):
        a, b = (recipe(config(Path("configs/fidelity.yaml"), name)) for name in (one, two))
        assert {key for key, _, _ in compare(a, b)} == keys
    assert ABSENT not in a.values()
