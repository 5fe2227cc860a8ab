"""The pretraining script writes what MoCo writes, and the converter takes it as such."""

import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet50

from ssl_backbones.conversion import convert

CHECKOUT = Path(__file__).parents[2]
TINY = ["--iterations", "2", "--batch-size", "4", "--crop-size", "32"]


@pytest.fixture(scope="module")
def pretrain():
    """As it is when it runs, with the checkout on the path."""
    sys.path.insert(0, str(CHECKOUT))
    from projects.digits import pretrain

    yield pretrain
    sys.path.remove(str(CHECKOUT))


@pytest.fixture(scope="module")
def checkpoint(pretrain, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pretrain") / "moco.pth.tar"
    assert pretrain.main([*TINY, "--output", str(path)]) == 0
    return path


def load(path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def test_layout_is_that_of_mocos_published_files(checkpoint):
    content = load(checkpoint)
    assert list(content) == ["epoch", "arch", "state_dict", "optimizer"]
    assert content["arch"] == "resnet50"
    encoder = {key for key in resnet50().state_dict() if not key.startswith("fc.")}
    encoder |= {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"}
    expected = {f"module.encoder_{branch}.{key}" for branch in "qk" for key in encoder}
    expected |= {"module.queue", "module.queue_ptr"}
    state = content["state_dict"]
    assert set(state) == expected
    assert state["module.encoder_q.fc.2.weight"].shape == (128, 2048)
    assert state["module.queue"].shape == (128, 1024)
    assert state["module.queue_ptr"].tolist() == [8]  # 2 iterations of 4 keys
    # Each key in the queue is a unit vector.
    torch.testing.assert_close(state["module.queue"].norm(dim=0), torch.ones(1024))


def test_both_encoders_learn_and_the_second_follows(checkpoint):
    from projects.digits.methods import MoCo

    state = load(checkpoint)["state_dict"]
    torch.manual_seed(0)
    start = MoCo(50, 32).encoder_q.state_dict()["layer4.2.conv3.weight"]
    moved = {
        branch: (state[f"module.encoder_{branch}.layer4.2.conv3.weight"] - start).norm()
        for branch in "qk"
    }
    # The queries' encoder takes two steps; the keys' takes a hundredth of the first before the second.
    assert moved["q"] > 10 * moved["k"] > 0


def test_it_converts_as_any_moco_file(checkpoint, tmp_path):
    report = convert(checkpoint, tmp_path / "moco.pkl")
    assert report.provenance["method"] == "moco"
    assert len(report.kept) == 265
    assert report.proof is not None


def test_swavs_file_is_laid_out_as_swavs_and_converts(pretrain, tmp_path):
    path = tmp_path / "swav.pth.tar"
    words = [*TINY, "--method", "swav", "--depth", "18", "--output", str(path)]
    assert pretrain.main(words) == 0
    content = load(path)
    # What main_swav.py saves.
    assert list(content) == ["epoch", "state_dict", "optimizer"]
    report = convert(path, tmp_path / "swav.pkl")
    assert report.provenance["method"] == "swav" and report.proof is not None
    assert report.provenance["architecture"]["depth"] == 18
    assert len(report.kept) == 100 and not report.unknown
    # Two views of each size go through the network in one batch: two steps are four, with the small ones.
    assert int(content["state_dict"]["module.bn1.num_batches_tracked"]) == 4


def test_swav_learns_prototypes_of_unit_length_after_a_while(pretrain):
    from projects.digits import methods

    torch.manual_seed(0)
    swav = methods.SwAV(18, 32)
    views = [torch.randn(2, 3, size, size) for size in (32, 32, 16, 16)]
    for iteration, learns in ((0, False), (methods.FROZEN_PROTOTYPES, True)):
        swav.zero_grad()
        swav(views, iteration).backward()
        weight = swav.network.prototypes.weight
        assert (weight.grad is not None) == learns
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(methods.PROTOTYPES))


def test_same_seed_same_weights(pretrain, checkpoint, tmp_path):
    again = tmp_path / "again.pth.tar"
    assert pretrain.main([*TINY, "--output", str(again)]) == 0
    first, second = load(checkpoint)["state_dict"], load(again)["state_dict"]
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--iterations", "0"], "--iterations 0"),
        (["--batch-size", "1"], "--batch-size 1"),
        (["--batch-size", "9", "--num-crops", "8"], "--batch-size 9"),
        (["--batch-size", "2000", "--num-crops", "2000"], "queue holds 1024"),
        (["--crop-size", "16"], "--crop-size 16"),
        (["--learning-rate", "0"], "--learning-rate 0"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_arguments_are_refused_at_once(pretrain, tmp_path, capsys, words, message):
    assert pretrain.main([*words, "--output", str(tmp_path / "moco.pth.tar")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(pretrain, checkpoint, capsys):
    before = checkpoint.stat().st_mtime_ns
    assert pretrain.main([*TINY, "--output", str(checkpoint)]) == 2
    assert "--force" in capsys.readouterr().err
    assert checkpoint.stat().st_mtime_ns == before
    assert pretrain.main([*TINY, "--output", str(checkpoint / "below.pth.tar")]) == 2
    assert "give another --output" in capsys.readouterr().err
