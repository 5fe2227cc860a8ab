"""The whole flow on files as MoCo and SwAV write them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from datetime import datetime

import numpy as np
import pytest
import torch

from ssl_backbones import __version__
from ssl_backbones.conversion import convert
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import detectron2_name

FILES = {
    "moco_v1_file": ("moco", "moco", "torch-zip"),
    "moco_v2_file": ("moco", "moco", "torch-legacy"),
    "swav_file": ("swav", "swav", "torch-legacy"),
    "swav_training_file": ("swav", "swav-training", "torch-zip"),
}


@pytest.mark.parametrize("name", FILES)
def test_conversion_with_proof(request, tmp_path, name, source_tensors):
    method, layout, container = FILES[name]
    source, destination = request.getfixturevalue(name), tmp_path / "model.pkl"
    report = convert(source, destination)
    content = pickle.loads(destination.read_bytes(), encoding="latin1")
    destination.unlink()

    # Made by this suite: the safe mode of torch refuses the numpy number in SwAV's optimizer.
    state = torch.load(source, weights_only=False)
    state = state.get("state_dict", state)
    prefix = "module.encoder_q." if method == "moco" else "module."
    for key in source_tensors:
        np.testing.assert_array_equal(
            content["model"][detectron2_name(key)], state[prefix + key].numpy(), strict=True
        )
    assert len(content["model"]) == len(report.kept) == 265

    provenance = content["provenance"]
    assert provenance == report.provenance
    assert provenance["source"] == source.name
    assert provenance["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (provenance["method"], provenance["layout"]) == (method, layout)
    assert provenance["architecture"] == {
        "name": "resnet50",
        "depth": 50,
        "stem_channels": 64,
        "res2_channels": 256,
        "bottleneck_channels": 64,
        "groups": 1,
    }
    assert provenance["input"] == {
        "format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
        "stride_in_1x1": False,
    }
    assert provenance["tool"] == f"ssl-backbones {__version__}"
    assert datetime.fromisoformat(provenance["date"]).utcoffset().total_seconds() == 0
    assert provenance["branch"] == ("online" if method == "moco" else None)
    for precision, largest in (("float32", 1e-6), ("float64", 1e-11)):
        stages = provenance["proof"]["stages"][precision]
        assert max(stage["relative"] for stage in stages.values()) <= largest
    assert provenance["proof"]["margin"] > 1000
    # The key encoder of MoCo's files is another network.
    other = provenance["proof"]["other_branch"]
    assert other > 1e-2 if method == "moco" else other is None

    assert report.container == container
    assert report.unknown == report.foreign == ()
    assert report.destination == str(destination)
    assert report.seconds > 0
    assert report.peak_memory_bytes > 100 << 20
    json.dumps(report.to_dict())


def test_every_key_of_a_moco_file_is_accounted_for(moco_v2_file, tmp_path):
    """The counts follow from moco/builder.py: 322 tensors an encoder with the MLP head of v2."""
    report = convert(moco_v2_file, tmp_path / "model.pkl", verify=False, dry_run=True)
    reasons = sorted(report.dropped.values())
    assert len(report.kept) == 265
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "counter of training steps, of no use after it": 53,
        "the momentum network, which --branch momentum takes": 322,
        "projection head of the pretraining": 4,
        "queue of negatives": 2,
        "state of the training": 3,
    }
    assert report.kept["module.encoder_q.layer2.0.downsample.1.bias"] == "res3.0.shortcut.norm.bias"


def test_a_dry_run_writes_nothing(swav_file, tmp_path):
    report = convert(swav_file, tmp_path / "model.pkl", verify=False, dry_run=True)
    assert os.listdir(tmp_path) == []
    assert report.destination is None
    assert report.proof is None
    assert report.provenance["proof"] is None


def test_the_steps_are_told(swav_file, tmp_path):
    steps = []
    convert(swav_file, tmp_path / "m.pkl", verify=False, progress=steps.append)
    assert steps == ["reading", "checking every tensor", "writing"]


def test_the_destination_is_checked_before_anything_is_read(tmp_path):
    """The source does not even exist."""
    source, old = tmp_path / "missing.pth", tmp_path / "old.pkl"
    old.write_bytes(b"old")
    (tmp_path / "link.pkl").symlink_to(old)
    (tmp_path / "folder.pkl").mkdir()
    for destination, says in (
        (tmp_path / "model.pth", "must end in .pkl"),
        (old, "--force"),
        (tmp_path / "link.pkl", "symbolic link"),
        (tmp_path / "folder.pkl", "is a folder"),
        (old / "model.pkl", "old.pkl is not a folder"),
        (old / "folder" / "model.pkl", "old.pkl is not a folder"),
    ):
        with pytest.raises(InputError, match=says):
            convert(source, destination)
    for destination in (old, tmp_path / "new.pkl", tmp_path / "new" / "new.pkl"):
        with pytest.raises(InputError, match="No such file"):
            convert(source, destination, force=True)
    assert old.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["folder.pkl", "link.pkl", "old.pkl"]


def test_folders_that_are_not_there_are_made_with_the_file(swav_file, tmp_path):
    destination = tmp_path / "output" / "quickstart" / "model.pkl"
    convert(swav_file, destination, verify=False, dry_run=True)
    assert os.listdir(tmp_path) == []
    convert(swav_file, destination, verify=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["output", "quickstart", "model.pkl"]


def test_the_source_is_never_written_over(tmp_path):
    path, link = tmp_path / "weights.pkl", tmp_path / "link.pth"
    path.write_bytes(b"weights")
    link.symlink_to(path)
    for source in (path, link, tmp_path / "." / "weights.pkl"):
        with pytest.raises(InputError, match="is the source itself"):
            convert(source, path, force=True)
    assert path.read_bytes() == b"weights"
