"""Pictures of the first batches in the run folders of real runs."""

import numpy as np
from PIL import Image
from running import checkpoint, difference, output

SHORT = ("train.max_iter=4", "train.eval_period=0", "train.checkpointer.period=4")


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("training_batch_*")}


def test_the_first_batches_are_drawn_and_change_nothing(runs, tmp_path):
    folders = [tmp_path / name for name in ("drawn", "not_drawn")]
    for folder, number in zip(folders, (2, 0), strict=True):
        assert runs.run(folder, *SHORT, f"train.draw_batches={number}") == [0], output(folder)
    assert difference(*map(checkpoint, folders)) is None
    assert not pictures(folders[1])
    assert sorted(pictures(folders[0])) == ["training_batch_0.jpg", "training_batch_1.jpg"]
    sheet = np.asarray(Image.open(folders[0] / "training_batch_0.jpg"))
    # Two images of a batch, each in a tile of 320 pixels with a line of 20 below.
    assert sheet.shape == (340, 640, 3)
    left, right = sheet[:320, :320].astype(int), sheet[:320, 320:].astype(int)
    # Photographs, not the sheet's white, and two different ones.
    assert (left < 250).mean() > 0.3 and (right < 250).mean() > 0.3
    assert np.abs(left - right).mean() > 5


def test_micro_batches_are_one_picture(runs, tmp_path):
    folder = tmp_path / "run"
    words = ("train.accumulate=2", "train.draw_batches=1")
    assert runs.run(folder, *SHORT, *words) == [0], output(folder)
    (content,) = pictures(folder)
    assert Image.open(folder / content).size == (640, 340)


def test_a_picture_that_cannot_be_written_costs_a_warning(runs, tmp_path):
    folder = tmp_path / "run"
    (folder / "training_batch_0.jpg").mkdir(parents=True)
    assert runs.run(folder, *SHORT) == [0], output(folder)
    assert output(folder).count("The training batches cannot be drawn") == 1
    assert sorted(path.name for path in folder.glob("training_batch_*")) == ["training_batch_0.jpg"]
