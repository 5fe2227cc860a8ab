"""The package as pip installs it: what the wheel carries, and that it works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ssl_backbones
from ssl_backbones.fidelity.protocols import protocols

CHECKOUT = Path(__file__).parent.parent
COMMANDS = [
    "ssl-browse",
    "ssl-check-data",
    "ssl-compare-backbones",
    "ssl-compare-init",
    "ssl-convert",
    "ssl-evaluate",
    "ssl-export",
    "ssl-predict",
    "ssl-report",
    "ssl-train",
]
FOLDERS = {"ssl_backbones": "ssl_backbones", "configs": "ssl_backbones/configs"} | {
    "tools": "ssl_backbones/tools"
}
PROTOCOLS = [file.relative_to(CHECKOUT) for file in CHECKOUT.glob("projects/*/protocol.yaml")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: a build leaves folders behind, and nothing but these files may be needed.
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in FOLDERS:
        shutil.copytree(CHECKOUT / name, source / name)
    for file in PROTOCOLS:
        (source / file).parent.mkdir(parents=True)
        shutil.copy(CHECKOUT / file, source / file)
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    return folder / f"ssl_backbones-{ssl_backbones.__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder that stands for site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="module")
def run_installed(installed, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        result = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def metadata(installed) -> PathDistribution:
    (found,) = Distribution.discover(name="ssl-backbones", path=[str(installed)])
    return found


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(command, check=True)


def test_wheel_carries_package_configs_tools_and_protocols_and_nothing_else(wheel):
    expected = {
        f"{target}/{file.relative_to(CHECKOUT / folder)}"
        for folder, target in FOLDERS.items()
        for file in (CHECKOUT / folder).rglob("*")
        if file.suffix in (".py", ".yaml") or file.parent.name == "templates"
    } | {f"ssl_backbones/{file}" for file in PROTOCOLS}
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert carried == expected


def test_configs_are_found_from_site_packages(run_installed, installed):
    code = (
        "import ssl_backbones as s; print(s.__file__); config = s.get_config('swav_ms2x');"
        "print(s.config_file('swav_ms2x')); print(config.train.max_iter)"
    )
    package = installed / "ssl_backbones"
    assert run_installed(sys.executable, "-c", code).splitlines() == [
        str(package / "__init__.py"),
        str(package / "configs" / "swav_ms2x.py"),
        "180000",  # twice the 90,000 iterations of the 1x schedule
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_console_scripts(run_installed, installed, command):
    assert "examples:" in run_installed(sys.executable, str(installed / "bin" / command), "--help")


def test_every_protocol_is_known_from_site_packages(run_installed, installed):
    """Its config may be of a checkout alone, which is told then."""
    code = (
        "from ssl_backbones.fidelity.protocols import protocols as known\n"
        "from ssl_backbones import InputError\n"
        "print(*known()); print(known()['mmdet_1x'].config_path())\n"
        "try: known()['voc_c4'].config_path()\n"
        "except InputError as error: print(error)"
    )
    names, config, error = run_installed(sys.executable, "-c", code).splitlines()
    assert names.split() == list(protocols())
    assert config == str(installed / "ssl_backbones" / "configs" / "moco_1x.py")
    assert "projects/voc_c4/configs/moco_voc_c4_24k.py, which only a checkout" in error


def test_the_installer_runs_from_site_packages(run_installed):
    module = "ssl_backbones.tools.install_detectron2"
    assert "--wheel-dir" in run_installed(sys.executable, "-m", module, "--help")


def test_python_versions_and_license(metadata):
    assert metadata.version == ssl_backbones.__version__
    assert metadata.metadata["Requires-Python"] == ">=3.10"
    assert metadata.metadata["License"] == "Apache-2.0"
    assert "Apache License" in metadata.read_text("licenses/LICENSE")


def test_what_is_tested_lies_in_every_range(metadata):
    requirements = [Requirement(line) for line in metadata.requires]
    assert {"torch", "torchvision", "lightly", "pytest"} <= {r.name for r in requirements}
    for requirement in requirements:
        installed = Distribution.from_name(requirement.name).version
        assert requirement.specifier.contains(installed), f"{requirement}: {installed} is tested"


def test_ranges_have_an_upper_end(metadata):
    # Build and lint tools may move on; what results depend on may not, unless tested.
    for requirement in map(Requirement, metadata.requires):
        operators = {specifier.operator for specifier in requirement.specifier}
        if requirement.name not in ("packaging", "setuptools"):
            assert operators == {">=", "<"}, requirement


def test_detectron2_is_no_requirement(metadata):
    """It is on no index under its own name: pip would fail, or take a stranger's package."""
    assert "detectron2" not in {Requirement(line).name for line in metadata.requires}


def test_ci_runs_the_test_command():
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
