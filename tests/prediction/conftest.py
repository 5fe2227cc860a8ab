"""A small detector with random weights, which finds something in every image."""

from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate

TINY = str(Path(__file__).parents[1] / "tiny.py")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    """A checkpoint of the tiny config, as a run would leave it, with an average of other weights."""
    from ssl_backbones.engine.config import load_config

    cfg = load_config(TINY, ["model.backbone.bottom_up.norm=BN"])
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(instantiate(cfg.model).state_dict())
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": states[0], "ema": {"model": states[1], "updates": 9}}, path)
    return str(path)


@pytest.fixture
def scenes(digits, tmp_path):
    """Six scenes of 64 x 64 pixels as PNG files, which every decoder reads alike."""
    from PIL import Image

    paths = []
    for path in sorted((digits / "test").iterdir()):
        paths.append(tmp_path / f"{path.stem}.png")
        Image.open(path).save(paths[-1])
    return paths


@pytest.fixture(scope="session")
def detectors(weights):
    """Detectors by config, overrides and whether averaged, each made once."""
    from ssl_backbones.engine.config import load_config
    from ssl_backbones.prediction.detector import Detector

    made = {}

    def detector(config, overrides, averaged):
        key = (config, tuple(overrides), averaged)
        if key not in made:
            cfg = load_config(config, overrides)
            made[key] = Detector(cfg, weights, averaged=averaged), cfg
        return made[key]

    return detector


@pytest.fixture
def find(detectors, digits, tmp_path):
    """Predict on files; returns the results, whose files are in tmp_path / "out", and the summary."""
    from ssl_backbones.prediction.detector import predict
    from ssl_backbones.prediction.inputs import Source
    from ssl_backbones.prediction.output import Results, classes_of

    def find(*paths, overrides=(), config=TINY, averaged=False, pictures=False, **options):
        detector, cfg = detectors(config, overrides, averaged)
        with Results(tmp_path / "out", classes_of(cfg), pictures=pictures) as results:
            sources = [Source(str(path)) for path in paths]
            summary = predict(detector, sources, results, **{"threshold": 0.0, **options})
        return results, summary

    return find
