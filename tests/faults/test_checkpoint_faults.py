"""Checkpoints that cannot be written, and checkpoints that came to harm."""

import errno
import os
import pickle
import random
import shutil
import subprocess

import pytest
import torch
from running import (
    checkpoint,
    difference,
    fail_once,
    limit_file_size,
    metrics,
    no_waiting,
    output,
    remove_at,
)

from ssl_backbones.engine.checkpoints import checkpoint_folder
from ssl_backbones.engine.checkpoints.checkpointer import StrictCheckpointer
from ssl_backbones.hashing import why_unusable

FLIPS = 100


@pytest.fixture
def two(tmp_path):
    """A folder with two small checkpoints; the newer one, and its content."""
    model = torch.nn.Linear(64, 64)
    checkpointer = StrictCheckpointer(model, str(tmp_path))
    for iteration in (9, 19):
        checkpointer.save(f"model_{iteration:07d}")
    newer = tmp_path / "model_0000019.pth"
    return newer, newer.read_bytes()


def is_passed_over(newer) -> bool:
    assert why_unusable(str(newer))
    return checkpoint_folder.newest(str(newer.parent)).endswith("model_0000009.pth")


def test_truncated(two, stated):
    stated(
        "the newest checkpoint truncated at every 1/16", "all 16 detected, the one before is used"
    )
    newer, content = two
    for part in range(16):
        newer.write_bytes(content[: len(content) * part // 16])
        assert is_passed_over(newer)
    newer.write_bytes(content)
    assert why_unusable(str(newer)) is None


def test_flipped_bits(two, stated):
    stated(f"one bit of the newest checkpoint flipped, {FLIPS} times", f"all {FLIPS} detected")
    newer, content = two
    draw = random.Random(0)
    for _ in range(FLIPS):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << bit
        newer.write_bytes(spoilt)
        assert is_passed_over(newer), (place, bit)


def test_a_run_goes_on_from_the_one_before(runs, whole, tmp_path, stated):
    stated(
        "the newest checkpoint of a run truncated",
        "resumed from the one before, equal to the last bit",
    )
    folder = tmp_path / "run"
    shutil.copytree(whole(1), folder)
    (folder / "last_checkpoint").write_text("model_0000007.pth")
    newest = folder / "model_0000007.pth"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert runs.run(folder, resume=True) == [0], output(folder)
    assert "model_0000007.pth is passed over: its content is not what was written" in output(folder)
    assert "model_0000005.pth at iteration 6" in " ".join(output(folder).split())
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("way", ["resumed", "given as weights"])
def test_a_hostile_checkpoint(runs, whole, tmp_path, stated, way):
    stated(f"a hostile pickle as a checkpoint, {way}", "refused in one line, nothing in it runs")
    folder, marker = tmp_path / "run", tmp_path / "ran"
    folder.mkdir()
    path = folder / "model_final.pth"
    torch.save({"model": Hostile(marker)}, path)
    if way == "resumed":
        digest = subprocess.check_output(["sha256sum", path.name], cwd=folder)
        (folder / f"{path.name}.sha256").write_bytes(digest)
        (folder / "last_checkpoint").write_text(path.name)
        status = runs.run(folder, resume=True)
    else:
        status = runs.run(folder, f"train.init_checkpoint={path}")
    assert status == [2]
    assert not marker.exists()
    assert output(folder).splitlines()[-1].startswith("error: ")
    assert "system" in output(folder).splitlines()[-1]
    # The same file harms one who loads it without care.
    pickle.loads(pickle.dumps(Hostile(marker)))
    assert marker.exists()


def test_a_transient_failure(runs, whole, tmp_path, stated):
    stated("a checkpoint's rename fails once (ENOSPC)", "tried again; equal to the last bit")
    folder = tmp_path / "run"
    assert runs.run(folder, fault=(fail_once, errno.ENOSPC)) == [0], output(folder)
    assert "No space left on device" in output(folder)
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None
    assert difference(metrics(folder), metrics(whole(1))) is None


def test_a_full_disk(runs, whole, tmp_path, stated):
    stated(
        "the disk is full from iteration 6 on",
        "said; training goes on; the good checkpoint stays; status 2",
    )
    folder = tmp_path / "run"
    shutil.copytree(whole(1), folder)
    (folder / "last_checkpoint").write_text("model_0000005.pth")
    kept = checkpoint(folder, "model_0000005")
    for name in ("model_0000007.pth", "model_final.pth"):
        (folder / name).unlink()
    status = runs.run(folder, resume=True, fault=(limit_file_size, 1 << 20))
    assert status == [2], output(folder)
    assert "no checkpoint of iteration 7: cannot write" in output(folder)
    assert "iter: 10" in output(folder)
    assert output(folder).splitlines()[-1].startswith("error: cannot write")
    assert difference(checkpoint(folder, "model_0000005"), kept) is None
    assert (folder / "last_checkpoint").read_text() == "model_0000005.pth"
    assert not [name for name in os.listdir(folder) if name.startswith(".model")]
    assert runs.run(folder, resume=True) == [0], output(folder)
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 MiB, on which two checkpoints fit; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    made = subprocess.run(words, capture_output=True)
    if made.returncode:
        pytest.skip("file systems cannot be mounted here; RLIMIT_FSIZE stands for it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.many
def test_a_small_file_system(runs, whole, small_disk, stated):
    stated(
        "a tmpfs of 200 MiB that fills up",
        "said; the last good checkpoint stays and is resumed elsewhere",
    )
    folder = small_disk / "run"
    status = runs.run(folder, "train.checkpointer.max_to_keep=5", fault=(no_waiting,))
    assert status == [2], output(folder)
    assert "No space left on device" in output(folder)
    elsewhere = small_disk.parent / "elsewhere"
    shutil.copytree(folder, elsewhere)
    assert runs.run(elsewhere, resume=True) == [0], output(elsewhere)
    assert difference(checkpoint(elsewhere), checkpoint(whole(1))) is None


@pytest.mark.many
def test_a_file_system_that_becomes_read_only(runs, whole, tmp_path, small_disk, stated):
    stated("a run folder on a read-only file system", "refused before the first iteration")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    folder = small_disk / "run"
    status = runs.run(folder)
    assert status == [2]


@pytest.mark.many
def test_a_removed_folder(runs, whole, tmp_path, stated):
    stated("the run folder removed at iteration 2", "said; goes on, and writes again once it can")
    folder = tmp_path / "run"
    assert runs.run(folder, fault=(remove_at, 2, str(folder))) == [0], output(folder)
    assert "no checkpoint of iteration 3: cannot write" in output(folder)
    assert "metrics.json cannot be written" in output(folder)
    # The evaluation after iteration 5 makes it again.
    assert difference(checkpoint(folder), checkpoint(whole(1))) is None
    # What was told before it was removed is gone.
    assert difference(metrics(folder), metrics(whole(1))[2:]) is None
