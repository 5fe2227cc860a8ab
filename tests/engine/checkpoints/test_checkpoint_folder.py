"""Which checkpoint a run goes on from, after what can happen to them."""

import logging
import subprocess

import pytest
import torch

from ssl_backbones.engine.checkpoints import checkpoint_folder
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, of iterations 9, 19 and 29, whose weight is the iteration."""
    model = torch.nn.Linear(1, 1)
    checkpointer = StrictCheckpointer(model, str(tmp_path))
    for iteration in (9, 19, 29):
        torch.nn.init.constant_(model.weight, iteration)
        checkpointer.save(f"model_{iteration:07d}")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """Detectron2's set-up of loggers, in other tests, keeps from pytest what they say."""
    monkeypatch.setattr(logging.getLogger("ssl_backbones"), "propagate", True)


def newest(folder):
    found = checkpoint_folder.newest(str(folder))
    return found and found.rpartition("/")[2]


def test_sha256sum_agrees(folder):
    words = ["sha256sum", "--check", *(f"{p.name}.sha256" for p in folder.glob("*.pth"))]
    result = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": OK") == 3


def test_the_newest_is_the_one_that_is_pointed_at(folder):
    assert newest(folder) == "model_0000029.pth"
    (folder / "last_checkpoint").write_text("model_0000019.pth")
    assert newest(folder) == "model_0000019.pth"


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint_folder.newest(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-1]), "its SHA-256 differs"),
        (lambda f: f.unlink(), "model_0000029.pth is missing"),
        (lambda f: f.with_name(f"{f.name}.sha256").unlink(), "0000029.pth.sha256 is missing"),
        (lambda f: f.with_name(f"{f.name}.sha256").write_text(""), "cannot be read"),
        (lambda f: f.with_name(f"{f.name}.sha256").write_bytes(b"\xff" * 64), "cannot be read"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_warning(folder, caplog, spoil, reason):
    spoil(folder / "model_0000029.pth")
    with caplog.at_level(logging.WARNING):
        assert newest(folder) == "model_0000019.pth"
    assert len(set(caplog.messages)) == 1 and reason in caplog.text


def test_all_damaged_is_refused(folder):
    for path in folder.glob("*.pth"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="every checkpoint in"):
        newest(folder)


def test_a_folder_of_detectron2_s_own_trainer_has_no_checksums(folder):
    for path in folder.glob("*.sha256"):
        path.unlink()
    assert newest(folder) == "model_0000029.pth"


def test_the_newest_are_kept(folder):
    StrictCheckpointer(torch.nn.Linear(1, 1), str(folder)).save("model_best", tag=False)
    checkpoint_folder.keep_newest(str(folder), 2, "model_0000029")
    kept = ["model_0000019.pth", "model_0000029.pth", "model_best.pth"]
    both = sorted([*kept, *(f"{name}.sha256" for name in kept), "last_checkpoint"])
    assert names(folder) == both
    assert newest(folder) == "model_0000029.pth"


def test_what_is_later_than_the_one_just_written_neither_counts_nor_goes(folder):
    """Somebody has gone back to iteration 9, by editing last_checkpoint."""
    checkpoint_folder.keep_newest(str(folder), 1, "model_0000009")
    assert sum(name.endswith(".pth") for name in names(folder)) == 3


def test_none_keeps_all(folder):
    checkpoint_folder.keep_newest(str(folder), None, "model_0000029")
    assert sum(name.endswith(".pth") for name in names(folder)) == 3


def test_without_a_pointer_the_newest_is_taken_with_a_warning(folder, caplog):
    (folder / "last_checkpoint").unlink()
    with caplog.at_level(logging.WARNING):
        assert newest(folder) == "model_0000029.pth"
    assert "no last_checkpoint" in caplog.text


def test_what_killed_writes_have_left_is_removed(folder):
    before = names(folder)
    for name in (
        ".model_0000039.pth.ab12_xyz",
        ".model_final.pth.sha256.ab12_xyz",
        ".last_checkpoint.q",
    ):
        (folder / name).touch()
    (folder / ".last_checkpoint.abcdefgh").touch()
    checkpoint_folder.remove_unfinished(str(folder))
    # The last of the three is not of the form that temporary files have.
    assert names(folder) == sorted([*before, ".last_checkpoint.q"])


def test_more_digits_are_newer(folder):
    StrictCheckpointer(torch.nn.Linear(1, 1), str(folder)).save("model_10000000")
    assert checkpoint_folder.numbered(str(folder))[-1].endswith("model_10000000.pth")


def test_a_copy_has_its_checksum(folder):
    checkpoint_folder.copy(str(folder), "model_0000019", "model_final")
    (folder / "last_checkpoint").write_text("model_final.pth")
    assert newest(folder) == "model_final.pth"
    assert torch.load(folder / "model_final.pth", weights_only=True)["model"]["weight"].item() == 19
