"""The command line: what it does, what it leaves alone, and one line for whatever goes wrong."""

import importlib.util
import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

INSTALLER = str(Path(__file__).parents[2] / "tools" / "install_detectron2.py")
# Nothing listens on the discard port.
NO_NETWORK = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_RETRIES": "0",
}


def assert_one_line(result: subprocess.CompletedProcess, status: int, *words: str) -> None:
    assert result.returncode == status, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_help_imports_nothing_heavy(run_tool):
    result = run_tool("-X", "importtime", INSTALLER, "--help")
    assert result.returncode == 0
    assert "examples:" in result.stdout and "--wheel-dir" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "numpy", "detectron2", "rich"}


def test_a_detectron2_that_works_is_left_alone(install):
    # No network: anything but leaving it alone would fail.
    result = install(**NO_NETWORK)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("nothing to do: detectron2 ")
    assert str(Path(importlib.util.find_spec("detectron2").origin).parent) in result.stdout


def test_a_detectron2_that_does_not_import_is_not_replaced_unasked(install, tmp_path):
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN2at')")
    result = install(PYTHONPATH=str(tmp_path), **NO_NETWORK)
    assert_one_line(result, 2, str(package), "ImportError: undefined symbol: _ZN2at", "remove it")


def test_missing_torch(run_tool):
    # -S leaves site-packages out, so this Python has nothing but itself.
    assert_one_line(run_tool("-S", INSTALLER), 2, "torch and torchvision", "pip install torch")


def test_no_network(install, tmp_path):
    result = install("--wheel-dir", str(tmp_path), **NO_NETWORK)
    assert_one_line(
        result, 1, "cannot fetch pb1-detectron2 0.6", "check the network", "--wheel-dir"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_hash_is_refused_and_nothing_of_it_runs(install, sdist, tmp_path):
    marker = tmp_path / "marker"
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    add_to_setup_py(sdist, mirror / sdist.name, f"open({str(marker)!r}, 'w')")
    result = install("--wheel-dir", str(tmp_path / "wheels"), mirror=mirror)
    assert_one_line(result, 1, "has sha256", "5d2e9e51e523ec72", "nothing of it was used")
    assert not marker.exists()
    assert list((tmp_path / "wheels").iterdir()) == []


def test_the_payload_of_the_test_above_would_have_run(sdist, tmp_path):
    marker = tmp_path / "marker"
    archive = tmp_path / sdist.name
    add_to_setup_py(sdist, archive, f"open({str(marker)!r}, 'w')")
    with tarfile.open(archive) as tar:
        setup_py = tar.extractfile("pb1-detectron2-0.6/setup.py").read()
    subprocess.run([sys.executable, "-c", setup_py], capture_output=True, cwd=tmp_path)
    assert marker.exists()


def add_to_setup_py(archive: Path, target: Path, line: str) -> None:
    """Copy a source archive, with a line of code in front of its setup.py."""
    with tarfile.open(archive) as old, tarfile.open(target, "w:gz") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else b""
            if member.name == "pb1-detectron2-0.6/setup.py":
                content = f"{line}\n".encode() + content
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))


def test_a_wheel_dir_that_cannot_be(install, tmp_path):
    file = tmp_path / "file"
    file.touch()
    result = install("--wheel-dir", str(file / "wheels"), **NO_NETWORK)
    assert_one_line(result, 2, f"cannot make the folder {file}/wheels", "Not a directory")


def test_from_a_folder_without_detectron2(install, tmp_path):
    result = install("--from", str(tmp_path), "--wheel-dir", str(tmp_path / "wheels"))
    assert_one_line(result, 2, f"there is no Detectron2 in '{tmp_path}'", "give a checkout")


@pytest.fixture
def environment(tmp_path) -> Path:
    """Python of an empty virtual environment, behind which stands what is installed here."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", vars=paths))
    shared = [path for path in sys.path if Path(path).name == "site-packages"]
    (own / "shared.pth").write_text("\n".join(shared))
    return folder / "bin" / "python"


def test_installing_what_does_not_work_then_mending_it(environment, sdist, tmp_path):
    checkout = tmp_path / "checkout"
    with tarfile.open(sdist) as archive:
        for member in archive:
            if member.isfile():
                path = checkout / member.name.partition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    init = checkout / "detectron2" / "__init__.py"
    init.write_text(init.read_text() + "raise ImportError('broken on purpose')\n")
    variables = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(sdist.parent)}

    def run(*words):
        return subprocess.run(
            [str(environment), INSTALLER, *words],
            env={**os.environ, **variables, "PIP_CONFIG_FILE": os.devnull},
            capture_output=True,
            text=True,
        )

    broken = run("--from", str(checkout))
    assert_one_line(
        broken, 1, "installed but does not work", "+pure.local", "ImportError: broken on purpose"
    )
    # What is there was built here, so it is replaced without being asked.
    mended = run()
    assert mended.returncode == 0, mended.stderr
    assert f"detectron2 0.6+pure at {tmp_path}" in mended.stdout
    assert "works: a Mask R-CNN R50-FPN ran" in mended.stdout
