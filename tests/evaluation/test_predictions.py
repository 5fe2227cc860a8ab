"""Detections of an evaluation under way, in files that a kill may cut anywhere."""

import resource
import signal

import pytest

from ssl_backbones.errors import InputError
from ssl_backbones.evaluation.predictions import Predictions
from ssl_backbones.evaluation.test_set import evenly_spread


def found(index):
    """Some detections of an image, with numbers that only survive if they are written exactly."""
    return [{"image_id": index, "instances": [{"score": 0.1 + index / 3, "bbox": [1 / 3, 2.0]}]}]


@pytest.fixture
def written(tmp_path):
    """The bytes of a file that holds the images 0 to 3."""
    predictions = Predictions(tmp_path, "key")
    for index in range(4):
        predictions.append(index, found(index))
    predictions.close()
    return tmp_path / "key" / "rank_0.jsonl"


def test_what_was_appended_comes_back_in_the_order_asked_for(tmp_path):
    predictions = Predictions(tmp_path, "key")
    for index in (3, 0, 2, 1):
        predictions.append(index, found(index))
    assert predictions.gather([1, 2, 3]) == [found(1)[0], found(2)[0], found(3)[0]]


def test_cut_anywhere_the_whole_lines_count_and_the_rest_is_done_again(tmp_path, written):
    content = written.read_bytes()
    for size in range(len(content) + 1):
        written.write_bytes(content[:size])
        predictions = Predictions(tmp_path, "key")
        whole = content[:size].count(b"\n")
        assert predictions.done == set(range(whole))
        for index in range(whole, 4):
            predictions.append(index, found(index))
        assert predictions.gather(range(4)) == [found(index)[0] for index in range(4)]
        predictions.close()
        assert written.read_bytes() == content


def test_a_damaged_line_is_an_image_to_be_done_again(tmp_path, written):
    lines = written.read_bytes().splitlines(keepends=True)
    for damage in (b"\0" * 50 + b"\n", b"{}\n", b"[1]\n", b"7\n", b"\xff\n"):
        written.write_bytes(b"".join([lines[0], damage, *lines[2:]]))
        predictions = Predictions(tmp_path, "key")
        assert predictions.done == {0, 2, 3}
        predictions.close()


def test_files_of_more_processes_than_there_are_now_count(tmp_path, written):
    written.rename(written.with_name("rank_5.jsonl"))
    predictions = Predictions(tmp_path, "key")
    assert predictions.done == {0, 1, 2, 3}
    predictions.append(4, found(4))
    assert predictions.gather([4, 0]) == [found(4)[0], found(0)[0]]


def test_another_key_starts_anew_and_clears_up(tmp_path, written):
    assert Predictions(tmp_path, "other").done == set()
    assert not written.exists()


def test_nothing_stays_behind(tmp_path):
    Predictions(tmp_path / "unfinished", "key").remove()
    assert not (tmp_path / "unfinished").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot keep detections in .*file/key: Not a directory"):
        Predictions(tmp_path / "file", "key")


def test_a_full_disk_is_named_and_what_fitted_stays(tmp_path, written, forked):
    def fill(rank):
        # No file may grow beyond this; without a handler the signal would end the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (written.stat().st_size + 10,) * 2)
        predictions = Predictions(tmp_path, "key")
        try:
            predictions.append(4, found(4))
        except InputError as error:
            return str(error)
        finally:
            predictions.close()

    (message,) = forked(1, fill)
    assert message.startswith(f"cannot keep detections in {tmp_path / 'key'}: File too large; free")
    assert Predictions(tmp_path, "key").done == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "size, count, expected",
    [
        (6, 0, [0, 1, 2, 3, 4, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (6, 7, [0, 1, 2, 3, 4, 5]),
        (6, 3, [0, 2, 4]),
        (5, 3, [0, 1, 3]),
        (5000, 2, [0, 2500]),
        (6, 1, [0]),
    ],
)
def test_a_subset_is_evenly_spread(size, count, expected):
    assert evenly_spread(size, count) == expected
