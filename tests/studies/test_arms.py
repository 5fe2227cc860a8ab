"""Controls: backbones that are wrong on purpose, with nothing in names and shapes to betray them."""

import numpy as np
import pytest
import torch

from ssl_backbones.conversion.reading import provenance_of, read_checkpoint
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.resnet import build_resnet
from ssl_backbones.studies.arms import SPOILT, spoil


def model_of(path):
    return {name: np.asarray(v) for name, v in read_checkpoint(path).content["model"].items()}


@pytest.mark.parametrize("how", SPOILT)
def test_names_and_shapes_stay_and_the_provenance_says_it(converted, tmp_path, how):
    spoil(converted, tmp_path / "spoilt.pkl", how)
    before, after = model_of(converted), model_of(tmp_path / "spoilt.pkl")
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in after.items()}
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    origin, told = (provenance_of(read_checkpoint(p)) for p in (converted, tmp_path / "spoilt.pkl"))
    assert told["method"] == f"{origin['method']}, {how}"
    assert told["source_sha256"] != origin["source_sha256"]  # no run of it is one of the original
    assert (told["spoilt"], told["proof"]) == (SPOILT[how], None)
    assert told["architecture"] == origin["architecture"]


def test_shuffled_layers_are_the_same_layers_elsewhere(converted, tmp_path):
    spoil(converted, tmp_path / "spoilt.pkl", "shuffled")
    before, after = model_of(converted), model_of(tmp_path / "spoilt.pkl")
    moved = [n for n in before if before[n].ndim == 4 and not np.array_equal(before[n], after[n])]
    # Of a ResNet-50's 53, by hand: the second and third of every block, the first but of each first block.
    assert len(moved) == sum(3 * blocks - 1 for blocks in (3, 4, 6, 3))
    for to, origin in (
        ("res4.0.conv2", "res4.5.conv2"),
        ("res4.1.conv1", "res4.5.conv1"),
        ("res2.2.conv3", "res2.1.conv3"),
        ("res3.0.conv1", "res3.0.conv1"),
        ("res3.0.shortcut", "res3.0.shortcut"),
        ("stem.conv1", "stem.conv1"),
    ):
        for part in ("weight", "norm.weight", "norm.running_var"):
            assert np.array_equal(after[f"{to}.{part}"], before[f"{origin}.{part}"])


def test_for_bgr_it_computes_of_rgb_what_it_did_of_bgr(converted, tmp_path):
    spoil(converted, tmp_path / "spoilt.pkl", "bgr")
    widths = provenance_of(read_checkpoint(converted))["architecture"]
    widths = {name: value for name, value in widths.items() if name != "name"}
    images = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    found = []
    for path, shown in ((converted, images.flip(1)), (tmp_path / "spoilt.pkl", images)):
        network = build_resnet(**widths).double().eval()
        state = {name: torch.from_numpy(v.copy()) for name, v in model_of(path).items()}
        network.load_state_dict(state, strict=False)
        with torch.no_grad():
            found.append(network(shown)["res5"])
    torch.testing.assert_close(*found)


def test_what_is_no_converted_backbone_is_refused(moco_file, tmp_path):
    with pytest.raises(InputError, match="is no converted backbone"):
        spoil(moco_file, tmp_path / "spoilt.pkl", "shuffled")
    assert not (tmp_path / "spoilt.pkl").exists()
