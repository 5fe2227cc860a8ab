"""Initialisations compared over seeds: what is read, what is said."""

import json

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.metrics import write_metrics
from ssl_backbones.studies.initializations import (
    FINETUNED,
    FROZEN,
    Expectation,
    other_differences,
    parse_expectation,
    read_results,
    summarize,
    tables,
)

HEADER = "arm,protocol,budget,seed,status,bbox/AP,segm/AP\n"


@pytest.fixture
def study(tmp_path):
    """A CSV: `good` is 10 above `bad` and tied with `same`, at one budget; one run failed."""
    values = {"bad": (20, 21, 22), "good": (30, 31, 32), "same": (31, 32, 33)}
    rows = [
        f"{arm},finetuned,50,{seed},done,{value},{value / 2}\n"
        for arm, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    path = tmp_path / "cells.csv"
    path.write_text(HEADER + "".join(rows) + "bad,finetuned,400,0,exit status 1,,\n")
    return path


@pytest.fixture
def write_run(tmp_path):
    """A run folder as the trainer leaves it."""

    def write(name, recipe, ap):
        folder = tmp_path / name
        (folder / "inference").mkdir(parents=True)
        content = {"recipe": recipe, "environment": {}, "starts": []}
        (folder / "run.json").write_text(json.dumps(content))
        results = {"bbox": {"AP": ap, "AP50": 2 * ap, "AP-cat": ap}}
        write_metrics(results, str(folder / "inference" / "metrics.json"))
        return folder

    return write


def test_a_study_is_summed_up_by_condition_and_arm(study):
    summaries = summarize(read_results([study]), "bbox/AP")
    assert list(summaries) == [("finetuned", "50")]  # the failed run is the other's only one
    found = summaries["finetuned", "50"]
    assert {arm: (s.mean, s.range) for arm, s in found.items()} == {
        "bad": (21, 2),
        "good": (31, 2),
        "same": (32, 2),
    }


def test_budgets_are_in_the_order_of_their_size(tmp_path):
    path = tmp_path / "cells.csv"
    rows = (f"a,finetuned,{budget},0,done,1,1\n" for budget in (1000, 50, 400))
    path.write_text(HEADER + "".join(rows))
    summaries = summarize(read_results([path]), "bbox/AP")
    assert [budget for _, budget in summaries] == ["50", "400", "1000"]


def test_tables_say_means_ties_outcomes_and_what_failed(study):
    expectations = [parse_expectation(text) for text in ("good > bad", "bad>good", "same > good")]
    made = tables(
        read_results([study]), ["bbox/AP", "segm/AP"], reference="bad", expectations=expectations
    )
    box, mask, ties, outcomes, failures = (table.rows for table in made)
    assert box[0] == ("finetuned", "50", "bad", "3", "21.0", "20.0 to 22.0", "", "")
    assert box[1] == (
        *("finetuned", "50", "good", "3", "31.0", "30.0 to 32.0"),
        *("+10.0 to bad", "higher"),
    )
    assert mask[1][-2:] == ("+5.0 to bad", "higher")
    assert ties[0] == ("finetuned", "50", "box AP", "1 of 3", "good = same")
    assert [(row[0], row[3], row[4], row[5]) for row in outcomes[::2]] == [
        ("good > bad", "box AP", "+10.0", "came out"),
        ("bad > good", "box AP", "-10.0", "the other way"),
        ("same > good", "box AP", "+1.0", "tie"),
    ]
    assert failures == [("bad", "finetuned", "400", "0", "exit status 1")]
    assert "| good " in made[0].format_markdown(aligned=True)


def test_an_expectation_may_be_of_one_protocol(study):
    results = read_results([study])
    of_another = parse_expectation("frozen: good > bad")
    assert of_another == Expectation("good", "bad", "frozen")
    assert tables(results, ["bbox/AP"], expectations=[of_another])[2].rows == []
    of_this = parse_expectation("finetuned:good>bad")
    assert len(tables(results, ["bbox/AP"], expectations=[of_this])[2].rows) == 1


@pytest.mark.parametrize(("freeze_at", "protocol"), [(5, FINETUNED), (4 + 2, FROZEN)])
def test_a_vit_is_frozen_with_all_its_blocks_and_the_norm(write_run, freeze_at, protocol):
    recipe = {
        "model.backbone.bottom_up._target_": "ssl_backbones.modeling.vit.build_vit",
        "model.backbone.bottom_up.depth": 4,
        "model.backbone.bottom_up.freeze_at": freeze_at,
    }
    (result,) = read_results([write_run("a", recipe, 12.5)])
    assert result.protocol == protocol


def test_run_folders_are_told_apart_by_weights_labels_and_freezing(write_run):
    recipe = {
        "weights": "0123456789ab moco online",
        "train.seed": 3,
        "dataloader.train.dataset.names": "digits_train",
        "model.backbone.bottom_up.freeze_at": 5,
        "optimizer.lr": 0.1,
    }
    other = {**recipe, "weights": "random", "train.seed": 4}
    other |= {"model.backbone.bottom_up.freeze_at": 0, "optimizer.lr": 0.2}
    results = read_results([write_run("a", recipe, 12.5), write_run("b", other, float("nan"))])
    moco, scratch = results
    assert (moco.arm, moco.condition, moco.seed) == (
        "moco online 01234567",
        (FROZEN, "digits_train"),
        "3",
    )
    assert moco.metrics["bbox/AP"] == 12.5 and moco.metrics["bbox/AP50"] == 25
    # Nothing detected: no number in the file, an AP of 0.
    assert (scratch.arm, scratch.metrics["bbox/AP"]) == ("random", 0.0)
    # Weights, seed and freezing are what is compared; the learning rate is not.
    assert other_differences(results) == {"optimizer.lr": [0.1, 0.2]}
    table = tables(results, ["bbox/AP"])[-1]
    assert table.title.startswith("Not comparable")
    assert table.rows == [("optimizer.lr", "0.1, 0.2")]


def test_two_runs_of_one_seed_are_refused(study, tmp_path):
    twice = tmp_path / "twice.csv"
    twice.write_text(study.read_text())
    with pytest.raises(InputError, match="both of bad finetuned 50 0"):
        read_results([study, twice])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "no column arm"),
        (HEADER + "a,finetuned,50,0,done,much,1\n", "damaged"),
        (b"\xff\xfe\x00", "not CSV"),
        (None, "No such file"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, content, message):
    path = tmp_path / "cells.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_results([path])


def test_an_unknown_arm_or_metric_is_named(study):
    results = read_results([study])
    with pytest.raises(InputError, match=r"of the arm 'best'; there are bad, good, same"):
        tables(results, ["bbox/AP"], reference="best")
    with pytest.raises(InputError, match=r"holds no bbox/AR; there are bbox/AP, segm/AP"):
        tables(results, ["bbox/AR"])
    with pytest.raises(InputError, match="nothing to compare"):
        tables([result for result in results if result.status != "done"], ["bbox/AP"])
    with pytest.raises(InputError, match="write 'A > B'"):
        parse_expectation("a < b")
