"""Which files are meant by what a user types."""

import os

import pytest

from ssl_backbones.prediction.inputs import find_sources


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/b.jpg",
        "photos/a.PNG",
        "photos/deep/c.jpeg",
        "photos/notes.txt",
        "photos/.hidden.jpg",
        "photos/.cache/d.jpg",
        "photos/film.mp4",
        "photos/out/old.jpg",
        "empty/readme.md",
        "strange[1].jpg",
        "strange1.jpg",
        "picture.without_ending",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*words):
    sources, faults = find_sources(words, outside="photos/out")
    return [source.path for source in sources], faults


ALL = ["photos/a.PNG", "photos/b.jpg", "photos/film.mp4", "photos/deep/c.jpeg"]


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        # a folder: sorted, with all below it, but no other files, hidden ones or earlier results
        (["photos"], ALL),
        (["photos/"], ALL),
        # a pattern that the shell left alone
        (["photos/*"], ["photos/a.PNG", "photos/b.jpg", "photos/film.mp4"]),
        (["photos/**/*.jp*g"], ["photos/b.jpg", "photos/deep/c.jpeg"]),
        # a file that is there is that file, whatever characters its name has
        (["strange[1].jpg"], ["strange[1].jpg"]),
        (["strange[12].jpg"], ["strange1.jpg"]),
        # a file may have any ending, and may be a result
        (["picture.without_ending"], ["picture.without_ending"]),
        (["photos/notes.txt"], ["photos/notes.txt"]),
        (["photos/out/old.jpg"], ["photos/out/old.jpg"]),
        # each once, in the order of the words
        (["photos/b.jpg", "photos/*.jpg", "./photos/a.PNG"], ["photos/b.jpg", "./photos/a.PNG"]),
    ],
)
def test_what_words_stand_for(photos, words, paths):
    assert found(*words) == (paths, [])


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("nowhere.jpg", "no such file"),
        ("nowhere/*.jpg", "matches no image"),
        ("empty", "no image or video is below"),
        ("empty/*", "matches no image"),
        ("pipe", "neither a file nor a folder"),
        ("photos/out", "no image or video is below"),
    ],
)
def test_what_stands_for_nothing_is_named_and_stops_nothing(photos, word, why):
    os.mkfifo("pipe")
    paths, (fault,) = found(word, "photos/b.jpg")
    assert paths == ["photos/b.jpg"]
    assert fault.startswith(f"{word}: ") and why in fault


def test_videos_are_told_by_their_ending(photos):
    sources, _ = find_sources(["photos"], outside="photos/out")
    assert [source.path for source in sources if source.is_video] == ["photos/film.mp4"]
