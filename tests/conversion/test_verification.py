"""An existing file is proved again, whoever made it; and what is wrong with one is found."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from ssl_backbones.conversion import convert, verify
from ssl_backbones.errors import InputError
from ssl_backbones.modeling.architectures import Architecture, detectron2_name

NARROW = Architecture("narrow", 50, stem_channels=8, res2_channels=32, bottleneck_channels=8)


def pretrained(seed: int) -> dict[str, np.ndarray]:
    """A ResNet-50 with an eighth of the channels, under torchvision's names."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in NARROW.shapes.items():
        fan_in = np.prod(shape[1:], dtype=int)
        values = generator.standard_normal(shape) * (2 / fan_in) ** 0.5
        if len(shape) == 1:
            values = generator.uniform(0.5, 1.5, shape)
        tensors[name] = values.astype(np.float32)
    return tensors


@pytest.fixture
def source(tmp_path):
    """A MoCo file; its key encoder is another network."""
    state = {}
    for seed, encoder in enumerate(("encoder_q", "encoder_k")):
        state |= {
            f"module.{encoder}.{name}": torch.from_numpy(array)
            for name, array in pretrained(seed).items()
        }
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar"


@pytest.fixture
def write(tmp_path):
    """A .pkl as somebody else's script writes one."""

    def write(changes=(), **beside):
        model = {detectron2_name(name): array for name, array in pretrained(0).items()}
        model |= dict(changes)
        content = {"model": model, "__author__": "somebody", "matching_heuristics": True, **beside}
        path = tmp_path / "theirs.pkl"
        path.write_bytes(pickle.dumps(content))
        return path

    return write


def test_what_we_converted(source, tmp_path):
    convert(source, tmp_path / "ours.pkl", verify=False)
    found = verify(tmp_path / "ours.pkl", source)
    assert found.tensors == 265
    assert found.zero_variances == 0
    assert found.channels == 26560 // 8  # of a ResNet-50's 26,560
    assert found.same_file is True
    assert found.proof.other_branch > 1e-2
    assert found.provenance["method"] == "moco"
    assert found.to_dict()["proof"]["margin"] > 100


def test_the_recorded_branch_is_compared(source, tmp_path):
    """The provenance says that it is the key encoder; a reader need not."""
    convert(source, tmp_path / "ours.pkl", branch="momentum", verify=False)
    assert verify(tmp_path / "ours.pkl", source, proof=False).same_file is True


def test_somebody_elses_file(source, write):
    found = verify(write(), source)
    assert found.provenance == {}
    assert found.same_file is None
    assert max(d.relative for d in found.proof.stages["float32"].values()) < 1e-6


def test_zero_variances_are_counted(write):
    variance = np.ones(8, np.float32)
    variance[:3] = 0
    found = verify(write({"stem.conv1.norm.running_var": variance}), proof=False)
    assert found.zero_variances == 3


def spoilt(name: str, value: float, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: np.full(shape, value, np.float32)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (spoilt("res2.0.conv1.weight", np.nan, (8, 8, 1, 1)), "res2.0.conv1.weight holds NaN"),
        (spoilt("res3.0.conv1.norm.running_var", -1, (16,)), "holds negative variances"),
        (spoilt("res3.0.conv1.norm.bias", 0, (17,)), r"has shape \(17,\) instead of \(16,\)"),
        (
            {
                detectron2_name(name): np.full(shape, name.endswith("var"), np.float32)
                for name, shape in NARROW.shapes.items()
                if name.endswith(("running_mean", "running_var"))
            },
            "looks untrained",
        ),
        (
            spoilt("res2.0.conv1.weight", 1, (8, 8, 1, 1)),
            r"1 of 265 differ \(res2.0.conv1.weight\)",
        ),
        (
            {detectron2_name(name): array for name, array in pretrained(1).items()},
            "it is the source's other network: --branch",
        ),
        (
            {
                "stem.conv1.norm.bias": pretrained(0)["bn1.running_mean"],
                "stem.conv1.norm.running_mean": pretrained(0)["bn1.bias"],
            },
            "2 of 265 differ",
        ),
    ],
)
def test_what_is_wrong_is_found(source, write, changes, says):
    with pytest.raises(InputError, match=says) as refusal:
        verify(write(changes), source)
    assert "theirs.pkl" in str(refusal.value)


def test_an_altered_provenance_is_found(write):
    architecture = {"name": "resnet50", "depth": 50}
    with pytest.raises(InputError, match="its provenance says resnet50"):
        verify(write(provenance={"architecture": architecture}), proof=False)


def test_another_source_with_the_same_tensors_is_told(source, tmp_path):
    convert(source, tmp_path / "ours.pkl", verify=False)
    again = tmp_path / "again.pth.tar"
    torch.save(torch.load(source) | {"epoch": 2}, again)
    assert verify(tmp_path / "ours.pkl", again, proof=False).same_file is False
