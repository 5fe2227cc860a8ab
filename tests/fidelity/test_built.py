"""What a config builds, as rows compare it, of a small detector that is known by heart."""

import pytest
from fidelity_built import Built
from fidelity_checking import check
from running import TINY

from ssl_backbones.engine.config import load_config
from ssl_backbones.errors import InputError
from ssl_backbones.fidelity import Fidelity, Row


@pytest.fixture
def cfg():
    # tests/tiny.py: ResNet-18 with BN; 12 iterations, warm-up of 4 from 0.001; SGD 0.02.
    return load_config(TINY)


def test_norms_and_what_is_frozen(cfg):
    stages = {name: "BatchNorm2d" for name in ("stem", "res2", "res3", "res4", "res5")}
    assert (Built(cfg).value("built.norms"), Built(cfg).value("built.frozen")) == (stages, [])
    cfg.model.backbone.bottom_up.freeze_at = 2
    cfg.model.backbone.norm = "GN"
    built = Built(cfg)
    assert built.value("built.norms") == stages | {
        **dict.fromkeys(("stem", "res2"), "FrozenBatchNorm2d"),
        "backbone (without the ResNet)": "GroupNorm",
    }
    assert built.value("built.frozen") == ["stem", "res2"]


def test_settings_of_the_norms(cfg):
    def settings(built):
        return [built.value(f"built.norm_settings.{name}") for name in ("eps", "momentum")]

    built = Built(cfg)
    assert settings(built) == [1e-5, 0.1]  # PyTorch's defaults
    built._model.backbone.bottom_up.stem.conv1.norm.eps = 0.001
    assert settings(built) == [[0.001, 1e-5], 0.1]
    cfg.model.backbone.bottom_up.freeze_at = 5
    assert settings(Built(cfg)) == [1e-5, None]  # FrozenBatchNorm2d updates nothing


def test_learning_rates_by_hand(cfg):
    built = Built(cfg)
    for iteration, rate in (
        (0, 0.00002),
        (2, 0.02 * (0.001 + 0.999 / 2)),
        (4, 0.02),
        (7, 0.02),  # the step is after 2/3
        (8, 0.002),
        (11, 0.0002),  # and after 8/9
    ):
        assert built.value(f"built.learning_rate.{iteration}") == pytest.approx(rate, rel=1e-9)


def test_weight_decays(cfg):
    cfg.optimizer.params.weight_decay_norm = 0.5
    built = Built(cfg)
    decays = {
        kind: built.value(f"built.weight_decay.{kind}") for kind in ("weight", "bias", "norm")
    }
    assert decays == {"weight": 1e-4, "bias": 1e-4, "norm": 0.5}
    cfg.model.backbone.bottom_up.freeze_at = 5
    assert Built(cfg).value("built.weight_decay.norm") is None


def test_a_row_of_what_is_built_is_checked(cfg):
    def problems(key, value):
        row = Row("built", (key,), value, "paper", value)
        found = check(cfg, Fidelity("", {}, {}, {}, (), [row]), "tiny")
        return [problem for problem in found if problem.startswith("built: ")]

    assert problems("built.learning_rate.4", 0.02) == []
    assert problems("built.learning_rate.4", 0.01) == [
        "built: built.learning_rate.4 is 0.02, and 0.01 in the fidelity file"
    ]
    for key in (
        "built.nothing",
        "built.norm_settings.affine",
        "built.learning_rate.first",
        "built.weight_decay.of",
    ):
        with pytest.raises(InputError, match=f"nothing is known of {key}"):
            problems(key, 1)
