"""AugNet's real file, by hand: SSL_BACKBONES_REAL_WEIGHTS=1 has pip, as it is set up, fetch its 93 MB.

What is expected is read from imgsim's own code in the wheel, which is never imported.
"""

import hashlib
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from ssl_backbones.weights.resolution import resolve

pytestmark = pytest.mark.skipif(
    not os.environ.get("SSL_BACKBONES_REAL_WEIGHTS"), reason="SSL_BACKBONES_REAL_WEIGHTS is not set"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
    words = [sys.executable, "-m", "pip", "download", *options, "imgsim==0.1.2"]
    subprocess.run(words, check=True)
    (path,) = folder.iterdir()
    return path


def test_augnet_by_name(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_BACKBONES_CACHE", str(tmp_path / "cache"))
    content = pickle.loads(Path(resolve("ssl://augnet_imagenet")).read_bytes())  # our own file
    with zipfile.ZipFile(wheel) as archive:
        code = archive.read("imgsim/imgsim.py").decode()
        sha256 = hashlib.sha256(archive.read("imgsim/model.pth")).hexdigest()
        metadata = archive.read("imgsim-0.1.2.dist-info/METADATA").decode()
        archive.extract("imgsim/model.pth", tmp_path)

    found = content["provenance"]
    assert found["source_sha256"] == sha256
    assert found["package"] == "imgsim 0.1.2: imgsim/model.pth"
    assert found["license"] == "MIT" and "License :: OSI Approved :: MIT License" in metadata
    # OpenCV's BGR is turned round and divided by 255 before mean and deviation: RGB.
    assert "[...,::-1]/255." in code and found["input"]["format"] == "RGB"
    for name in ("mean", "std"):
        numbers = re.search(rf"self\.{name} = \[(.*)\]", code)[1].split(",")
        expected = 255 * np.array(numbers, float)
        assert np.allclose(found["input"][f"pixel_{name}"], expected, rtol=0, atol=1e-9)

    # As imgsim loads it, strictly, into torchvision's ResNet-50 with an fc of 768.
    assert "self.pre = models.resnet50" in code and "nn.Linear(2048, 768)" in code
    state = torch.load(tmp_path / "imgsim" / "model.pth", "cpu", weights_only=True)
    network = torchvision.models.resnet50(num_classes=768)
    network.load_state_dict({key.removeprefix("module.pre."): t for key, t in state.items()})
    ours, theirs = content["model"], network.state_dict()
    assert len(ours) == 265
    assert np.array_equal(ours["stem.conv1.weight"], theirs["conv1.weight"])
    assert np.array_equal(ours["res4.5.conv3.norm.running_var"], theirs["layer3.5.bn3.running_var"])
    proof = found["proof"]
    assert max(proof["stages"]["float64"][stage]["relative"] for stage in ("res2", "res5")) < 1e-10
    assert proof["margin"] > 1000
