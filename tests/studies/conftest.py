import pytest

from ssl_backbones.fidelity.protocols import Protocol, Published


@pytest.fixture
def protocols(tmp_path):
    """One with a published number, and one of three folds; their config is the least that trains."""
    config = tmp_path / "config.py"
    config.write_text(
        'train = {"output_dir": "out", "init_checkpoint": "", "max_iter": 3}\n'
        'dataloader = {"train": {"dataset": {"names": "d0"}}, "test": {"dataset": {"names": "t"}}}\n'
    )
    return [
        Protocol(
            "boxes",
            "a title",
            str(config),
            ("bbox/AP", "bbox/AP50"),
            90_000,
            0.2,
            "somebody",
            (
                Published("A | B", {"bbox/AP": 40.0, "bbox/AP50": 60.25}, "one paper"),
                Published("C", {"bbox/AP": 41.0}, "another paper", "trained twice as long"),
            ),
        ),
        Protocol("few", "folds", str(config), ("segm/AP",), folds=("d0", "d1", "d2")),
    ]
