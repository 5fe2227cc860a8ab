"""Where the source comes from: the pinned archive by its sha256, a checkout, a git repository."""

import subprocess
from pathlib import Path

import pytest

from ssl_backbones.errors import InputError, InstallationError
from ssl_backbones.installation.sources import read_location, read_pinned

# The layout of upstream's repository, in small.
CHECKOUT = {
    "LICENSE": "a licence",
    "setup.py": "raise SystemExit('setup.py is never run')",
    "configs/Base-RCNN-FPN.yaml": "VERSION: 2",
    "configs/common/models/fpn.py": "model = 1",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/layers/csrc/vision.cpp": "// compiled",
    "detectron2/model_zoo/model_zoo.py": "x = 1",
    "projects/PointRend/point_rend/config.py": "y = 1",
    "projects/PointRend/train_net.py": "z = 1",
    "tests/test_nothing.py": "w = 1",
}
# And what upstream's setup.py makes of it.
PACKAGED = {
    "detectron2/__init__.py": "detectron2/__init__.py",
    "detectron2/model_zoo/model_zoo.py": "detectron2/model_zoo/model_zoo.py",
    "detectron2/model_zoo/configs/Base-RCNN-FPN.yaml": "configs/Base-RCNN-FPN.yaml",
    "detectron2/model_zoo/configs/common/models/fpn.py": "configs/common/models/fpn.py",
    "detectron2/projects/point_rend/config.py": "projects/PointRend/point_rend/config.py",
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "upstream"
    for path, text in CHECKOUT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    # As an in-place build of upstream leaves it.
    (folder / "detectron2/model_zoo/configs").symlink_to(folder / "configs")
    return folder


@pytest.fixture
def repository(checkout) -> Path:
    """The checkout's git repository, bare, its files tagged v0.6, then one more commit."""
    (checkout / "detectron2/model_zoo/configs").unlink()
    bare = checkout.parent / "repository"
    git(checkout, "init", "--quiet")
    commit(checkout)
    git(checkout, "tag", "v0.6")
    (checkout / "detectron2/__init__.py").write_text('__version__ = "0.7"\n')
    commit(checkout)
    git(checkout, "clone", "--quiet", "--bare", str(checkout), str(bare))
    return bare


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a")


def contents(folder: Path) -> dict[str, bytes]:
    return {new: (folder / old).read_bytes() for new, old in PACKAGED.items()}


def test_folder(checkout):
    source = read_location(str(checkout))
    assert source.files == contents(checkout)
    assert source.license == b"a licence"
    assert not source.pinned


def test_a_folder_version_follows_its_content(checkout):
    before = read_location(str(checkout)).version
    assert before.startswith("0.6+pure.local")
    assert read_location(str(checkout)).version == before
    (checkout / "detectron2/model_zoo/model_zoo.py").write_text("x = 2")
    assert read_location(str(checkout)).version != before


def test_repository_at_its_head(repository, checkout):
    source = read_location(str(repository))
    assert source.files == contents(checkout)
    assert source.version == "0.7+pure.g" + git(repository, "rev-parse", "--short=7", "HEAD")


@pytest.mark.parametrize(
    "spelling", ["{path}@{ref}", "file://{path}@{ref}", "git+file://{path}@{ref}"]
)
def test_repository_at_a_ref(repository, spelling):
    tagged = git(repository, "rev-parse", "--short=7", "v0.6")
    for ref in ("v0.6", tagged, git(repository, "rev-parse", "v0.6")):
        source = read_location(spelling.format(path=repository, ref=ref))
        assert source.version == f"0.6+pure.g{tagged}"


def test_unknown_ref(repository):
    with pytest.raises(InputError, match="no commit, branch or tag 'nosuch'"):
        read_location(f"{repository}@nosuch")


@pytest.mark.parametrize("location", ["", "nowhere", "nowhere@main"])
def test_nothing_there(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no Detectron2 in"):
        read_location(location)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "detectron2").mkdir()
    with pytest.raises(InputError, match=r"detectron2/__init__\.py is missing"):
        read_location(str(tmp_path))


def test_a_repository_of_something_else(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "README").touch()
    commit(tmp_path)
    with pytest.raises(InputError, match=r"detectron2/__init__\.py is missing"):
        read_location(str(tmp_path))


def test_a_repository_that_cannot_be_fetched():
    # Nothing listens on the discard port.
    with pytest.raises(InstallationError, match="git cannot read the repository: fatal"):
        read_location("http://127.0.0.1:9/detectron2.git")


def test_no_version(checkout):
    (checkout / "detectron2/__init__.py").write_text("")
    with pytest.raises(InputError, match="states no __version__"):
        _ = read_location(str(checkout)).version


def test_one_wrong_byte_in_the_pinned_archive(sdist, tmp_path):
    content = bytearray(sdist.read_bytes())
    content[1000] ^= 1
    archive = tmp_path / sdist.name
    archive.write_bytes(content)
    with pytest.raises(InstallationError, match=r"has sha256 [0-9a-f]{64} where 5d2e9e51"):
        read_pinned(archive)
    assert read_pinned(sdist).version == "0.6+pure"
