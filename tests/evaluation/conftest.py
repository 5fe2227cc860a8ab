"""The recipe that evaluations are made by."""

import pytest


@pytest.fixture
def cfg(annotation_file, tmp_path):
    """The MoCo recipe, its test set the digits."""
    from ssl_backbones.engine.config import load_config

    names = "dataloader.test.dataset.names=digits_test"
    return load_config(
        "moco_1x", [names, "dataloader.test.num_workers=0", f"train.output_dir={tmp_path}"]
    )
