"""The runs of protocols, and how protocols are found."""

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.fidelity.protocols import protocols
from ssl_backbones.studies.protocol_runs import find, runs_of


def test_folds_are_runs_with_seeds_of_their_own():
    (run,) = runs_of(protocols()["voc_c4"], seed=3, folds=5)
    assert (run.name, run.seed, run.overrides) == ("voc_c4", 3, [])
    runs = list(runs_of(protocols()["low_shot_5"], seed=3, folds=2))
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
        (["voc"], "no protocol is called 'voc'.*mmdet_1x, mmdet_ms2x, coco_c4_1x.*, voc_c4$"),
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
