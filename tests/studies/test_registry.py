"""The protocols as data, beside the configs and the pages that say the same."""

import re
from pathlib import Path

import pytest

from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.studies.registry import FOLDS, PROTOCOLS, find
from ssl_backbones.studies.runs import config_of, runs_of

CHECKOUT = Path(__file__).parents[2]

# Detectron2's MODEL_ZOO.md, "train time (s/iter)": of R50-C4 on VOC, Mask R-CNN R50-C4 1x, Keypoint R-CNN
# R50-FPN 1x; and of Mask R-CNN R50-FPN 1x below.
SECONDS = {"voc_c4": 0.537, "coco_c4": 0.584, "keypoints": 0.315}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_a_protocol_is_its_config(protocol):
    cfg = load_config(str(config_of(protocol)))
    assert cfg.train.max_iter == protocol.iterations
    seconds = next((s for name, s in SECONDS.items() if protocol.name.startswith(name)), 0.261)
    assert protocol.seconds == seconds
    if protocol.folds:
        assert cfg.dataloader.train.dataset.names == protocol.folds[0]
    for one in protocol.published:
        assert set(one.metrics) <= set(protocol.metrics)


def test_every_protocol_of_the_projects_is_there():
    folders = (path.parent for path in (CHECKOUT / "projects").glob("*/fidelity.yaml"))
    configs = {path for folder in folders for path in folder.glob("configs/*.py")}
    assert configs == {
        CHECKOUT / p.config for p in PROTOCOLS.values() if p.config.startswith("projects/")
    }


def test_the_projects_pages_give_the_same_published_numbers():
    found = 0
    for protocol in PROTOCOLS.values():
        if not protocol.config.startswith("projects/"):
            continue
        page = (CHECKOUT / protocol.config).parents[1].joinpath("README.md").read_text()
        for one in protocol.published:
            numbers = r" \| ".join(re.escape(f"{value:.1f}") for value in one.metrics.values())
            # The pages' word for random weights is their sources'.
            of = re.escape(one.pretraining.replace("random weights", "none"))
            line = rf"^\| {of} \|( 1x \|)? {numbers} \|$"
            assert re.search(line, page, re.MULTILINE), (protocol.name, one)
            found += 1
    assert found >= 13


def test_numbers_of_protocols_that_are_not_known_to_be_the_same_say_so():
    """The numbers of epochs and iterations are those of the recipes' table, field by field."""
    differing = {p.name: {one.differs for one in p.published} for p in PROTOCOLS.values()}
    for name in ("coco_fpn_1x", "mmdet_1x", "mmdet_ms2x"):
        assert len(differing.pop(name) - {""}) == 1, name
    assert set().union(*differing.values()) == {""}
    (note,) = {one.differs for one in PROTOCOLS["coco_fpn_1x"].published}
    assert "does not state its box head" in note and "two fully connected layers" in note
    page = CHECKOUT.joinpath("docs/recipes.md").read_text()
    for name, epochs in (("mmdet_1x", 12), ("mmdet_ms2x", 24)):
        (note,) = {one.differs for one in PROTOCOLS[name].published}
        theirs, ours = re.findall(r"[\d,]+,\d{3}", note)
        assert ours == f"{PROTOCOLS[name].iterations:,}"
        assert f"for {epochs} epochs" in note
        assert re.search(rf"\| {epochs} epochs.*, {theirs} iterations \|.*\*\*{ours}\*\*", page)


def test_folds_are_runs_with_seeds_of_their_own():
    (run,) = runs_of(PROTOCOLS["voc_c4"], seed=3, folds=FOLDS)
    assert (run.name, run.seed, run.overrides) == ("voc_c4", 3, [])
    runs = list(runs_of(PROTOCOLS["low_shot_5"], seed=3, folds=2))
    assert [(run.name, run.seed) for run in runs] == [
        ("low_shot_5_fold0", 3),
        ("low_shot_5_fold1", 4),
    ]
    assert runs[1].overrides == ["dataloader.train.dataset.names=coco_low_shot_5_fold1_train"]


def test_protocols_are_found_by_name_and_configs_by_path(tmp_path):
    own = tmp_path / "mine.py"
    own.touch()
    names = [protocol.name for protocol in find([" voc_c4", f"{own} "])]
    assert names == ["voc_c4", "mine"]
    for bad, message in (
        (["voc"], "no protocol is called 'voc'.*voc_c4, coco_c4_1x"),
        ([str(tmp_path / "none.py")], "no protocol is called"),
        (["voc_c4", "voc_c4"], "named twice"),
        ([""], "no protocol is called ''"),
    ):
        with pytest.raises(InputError, match=message):
            find(bad)


@pytest.mark.parametrize(
    "stem",
    [
        "voc_c4",
        "low_shot_1_fold0",
        "voc_c4_repeat1",
        "logs",
        "conversion",
        "table.md",
        "backbone.pkl",
    ],
)
def test_a_config_is_not_called_as_something_else_of_an_evaluation(tmp_path, stem):
    own = tmp_path / f"{stem}.py"
    own.touch()
    with pytest.raises(InputError, match="rename the config"):
        find([str(own)])
