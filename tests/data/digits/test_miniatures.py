"""The folders as a whole: the same bytes again, whole or not at all, and nothing else's place."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_backbones.data.digits import miniatures as package
from ssl_backbones.data.digits.miniatures import read_mark, write_miniatures
from ssl_backbones.errors import InputError

CHECKOUT = Path(__file__).parents[3]
SCRIPT = "projects/digits/make_miniatures.py"
SMALL = {"num_train": 3, "num_test": 2, "size": 32, "seed": 5}


def bytes_below(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("miniatures")
    made = write_miniatures(folder, **SMALL)
    assert made == [folder / name for name in ("VOC2007", "VOC2012", "coco")]
    return folder


def test_same_seed_same_bytes_and_they_take_the_place_of_others(root, tmp_path):
    write_miniatures(tmp_path, **SMALL | {"seed": 6})
    other = bytes_below(tmp_path)
    write_miniatures(tmp_path, **SMALL)
    again, first = bytes_below(tmp_path), bytes_below(root)
    assert again == first
    changed = [name for name in first if other.get(name) != first[name]]
    assert all(name.endswith(".txt") for name in set(first) - set(changed))


def test_a_picture_depends_on_its_place_alone(root, tmp_path):
    write_miniatures(tmp_path, ["coco"], **SMALL | {"num_train": 2, "num_test": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
    fewer, more = bytes_below(tmp_path), bytes_below(root)
    pictures = [name for name in fewer if name.endswith(".jpg")]
    assert len(pictures) == 3 and all(fewer[name] == more[name] for name in pictures)


@pytest.mark.parametrize("name", ["VOC2007", "VOC2012", "coco"])
def test_the_real_dataset_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine").write_text("")
    with pytest.raises(InputError, match=f"{name} holds something else than a miniature"):
        write_miniatures(tmp_path, **SMALL)
    assert bytes_below(tmp_path) == {f"{name}/mine": b""}


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    write_miniatures(tmp_path, ["coco"], **SMALL)
    before = bytes_below(tmp_path)
    monkeypatch.setattr(package, "write_coco", fail)
    with pytest.raises(InputError, match=r"cannot write .*coco: No space left on device"):
        write_miniatures(tmp_path, ["coco"], **SMALL | {"seed": 6})
    assert bytes_below(tmp_path) == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"size": 8}, "8 pixels"), ({"num_test": 0}, "num_test is 0"), ({"seed": -1}, "seed is -1")],
)
def test_bad_numbers_are_refused(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        write_miniatures(tmp_path, **SMALL | change)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_them_where_detectron2_looks(root, tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("make_miniatures", CHECKOUT / SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert module.main([*words, "--formats", "voc", "voc"]) == 0
    said = capsys.readouterr().out
    assert said.count(str(tmp_path / "VOC2012")) == 1  # what is given twice is made once
    expected = {name: data for name, data in bytes_below(root).items() if name[0] == "V"}
    assert bytes_below(tmp_path) == expected and read_mark(tmp_path / "VOC2007")["seed"] == 5


def test_the_commands_help_needs_no_torch():
    code = (
        "import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try:\n    runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
        "finally:\n    assert not {'torch', 'detectron2', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--formats" in done.stdout, done.stderr
