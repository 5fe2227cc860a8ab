"""The protocols as data, beside the configs and the pages that say the same."""

import re
from pathlib import Path

import pytest

from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.fidelity.protocols import protocols, read_protocols

CHECKOUT = Path(__file__).parents[2]
PROTOCOLS = protocols()

# Detectron2's MODEL_ZOO.md, "train time (s/iter)": of R50-C4 on VOC, Mask R-CNN R50-C4 1x, Keypoint R-CNN
# R50-FPN 1x; and of Mask R-CNN R50-FPN 1x below. Nobody has published them of a ConvNeXt
# or a ViT.
SECONDS = {"voc_c4": 0.537, "coco_c4": 0.584, "keypoints": 0.315, "convnext": None, "vit": None}


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_a_protocol_is_its_config(protocol):
    cfg = load_config(str(protocol.config_path()))
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
            numbers = r" \| ".join(re.escape(str(value)) for value in one.metrics.values())
            # The pages' word for random weights is their sources'.
            of = re.escape(one.pretraining.replace("random weights", "none"))
            share = re.search(r"^low_shot_(\d+)$", protocol.name)
            cell = rf" {share[1]} % \|" if share else r"( 1x \|)?"
            line = rf"^\| {of} \|{cell} {numbers} \|$"
            assert re.search(line, page, re.MULTILINE), (protocol.name, one)
            found += 1
    assert found >= 16


def test_numbers_of_protocols_that_are_not_known_to_be_the_same_say_so():
    """The numbers of epochs and iterations are those of the recipes' table, field by field."""
    differing = {p.name: {one.differs for one in p.published} for p in PROTOCOLS.values()}
    few = ("low_shot_1", "low_shot_5", "low_shot_10")
    for name in ("coco_fpn_1x", "mmdet_1x", "mmdet_ms2x", "vit_base_mae_100ep", *few):
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


MINE = """
mine:
  title: Mine
  config: configs/mine.py
  metrics: [bbox/AP, segm/AP]
  iterations: 3
  published:
  - source: somebody
    numbers:
      MoCo: [38.0, 34.3]
"""


def test_a_folder_makes_a_protocol(tmp_path):
    path = tmp_path / "protocol.yaml"
    path.write_text(MINE)
    (protocol,) = read_protocols(path)
    assert (protocol.name, protocol.seconds, protocol.folds) == ("mine", None, ())
    (published,) = protocol.published
    assert published.metrics == {"bbox/AP": 38.0, "segm/AP": 34.3} and published.differs == ""
    path.write_text(MINE.replace("38.0, 34.3", "null, 34.3"))
    (without,) = read_protocols(path)
    assert without.published[0].metrics == {"segm/AP": 34.3}
    with pytest.raises(InputError, match=r"protocol mine needs .*configs/mine\.py, which only"):
        protocol.config_path()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").touch()
    assert protocol.config_path().resolve() == (tmp_path / "configs" / "mine.py").resolve()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (MINE, "- mine", "holds no protocols"),
        (MINE, "mine: [", "is no YAML"),
        ("mine:", "mine: {}\nother:", "mine has no `title`"),
        ("  iterations: 3\n", "", "mine has no `iterations`"),
        ("iterations: 3", "iterations: 3\n  epochs: 12", "may have .* and nothing else"),
        ("iterations: 3", "iterations: three", "`iterations` is 'three': give a int"),
        ("iterations: 3", "iterations: 3\n  seconds: 1", "`seconds` is 1: give a float"),
        ("iterations: 3", "iterations: 3\n  folds: [1]", r"`folds` is \[1\]: give words"),
        ("[bbox/AP, segm/AP]", "[bbox/AP]", "MoCo: give a number .* for each of bbox/AP$"),
        ("[38.0, 34.3]", "[38.0, '34.3']", "MoCo: give a number .* bbox/AP, segm/AP"),
        ("- source: somebody\n    n", "- n", "published has `source`, `numbers`"),
    ],
)
def test_what_is_no_protocol_is_refused(tmp_path, old, new, message):
    path = tmp_path / "protocol.yaml"
    assert old in MINE
    path.write_text(MINE.replace(old, new))
    with pytest.raises(InputError, match=rf"protocol\.yaml.*{message}"):
        list(read_protocols(path))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot read .*protocol\.yaml"):
        list(read_protocols(path))
