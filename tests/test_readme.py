"""Every command of README.md and docs/, run as it stands there, in a size that fits a CPU."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PAGES = "".join(
    (CHECKOUT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/training.md", "docs/speed.md")
)

GPUS_TO_CPU = {"--num-gpus 8": "train.device=cpu"}


@dataclass(frozen=True)
class Sized:
    """How a command is made small: text replaced in it, words added to it."""

    replace: dict[str, str] = field(default_factory=dict)
    add: str = ""
    small: bool = False  # add the overrides that make a recipe small
    trains: bool = False


# The one table of what differs from the page. {...} are filled with files that the fixtures make.
TABLE = {
    "git clone": Sized({"REPOSITORY ssl-backbones": "{checkout} cloned"}),
    "cd ssl-backbones": Sized({"ssl-backbones": "{checkout}"}),
    # make is never called: its targets are tested by the commands that they call.
    "make quickstart": Sized({"make quickstart": "python projects/digits/quickstart.py"}, "--help"),
    "make test": Sized(
        {"make test": "python -m pytest --collect-only -q {checkout}/tests/test_readme.py"}
    ),
    "make faults": Sized(
        {"make faults": "python -m pytest {checkout}/tests/faults"},
        "--every-fault --collect-only -q",
    ),
    "make benchmark ROW=": Sized(
        {"make benchmark ROW=": "python projects/benchmarks/benchmark.py --row "}, "--small"
    ),
    "make benchmark": Sized(
        {"make benchmark": "python projects/benchmarks/benchmark.py"}, "--list"
    ),
    "profile.py": Sized(add="--small"),
    "GLIBC_TUNABLES": Sized(
        {"GLIBC_TUNABLES": "env GLIBC_TUNABLES"},
        "train.output_dir=output/glibc train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "mapper._target_": Sized(
        GPUS_TO_CPU,
        "train.output_dir=output/stock_parts train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "[fast]": Sized(
        {"pip install 'ssl-backbones[fast]'": "python -m pip install '.[fast]'"},
        "--dry-run --no-deps --no-build-isolation -q",
    ),
    "--dry-run": Sized(GPUS_TO_CPU, "train.init_checkpoint={converted}", small=True),
    "torchrun": Sized(
        {"torchrun": "python -m torch.distributed.run", "--nproc-per-node 8": "--nproc-per-node 2"},
        "train.device=cpu train.output_dir=output/torchrun train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    # The job itself is run by tests/engine/test_slurm.py.
    "--slurm": Sized(
        {**GPUS_TO_CPU, "partition=gpu,nodes=2,time=24:00:00": "cluster=local,time=1"},
        "train.output_dir=output/slurm train.max_iter=0",
        small=True,
    ),
    "--num-gpus 4": Sized(
        {"--num-gpus 4": "train.device=cpu"},
        "train.output_dir=output/batch train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "train.accumulate=4": Sized(
        {"--num-gpus 2 train.accumulate=4": "train.device=cpu train.accumulate=2"},
        "train.output_dir=output/accumulate train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "--resume": Sized(GPUS_TO_CPU, "train.init_checkpoint={converted}", small=True, trains=True),
    # Two runs that differ end in status 1.
    "compare_runs.py": Sized({"output/swav_1x": "output/moco_1x"}),
    "--replay": Sized({"output/moco_1x/replay_0000123.pth": "{replay_file}"}),
    "install_detectron2.py --wheel-dir": Sized(),
    "install_detectron2.py": Sized(),
    "pip install -e .": Sized(
        {"pip": "python -m pip"}, "--dry-run --no-deps --no-build-isolation -q"
    ),
    "convert_checkpoint.py list": Sized(),
    "convert_checkpoint.py inspect": Sized({"moco_v2_800ep_pretrain.pth.tar": "{moco_file}"}),
    "convert_checkpoint.py verify": Sized({"moco_v2_800ep_pretrain.pth.tar": "{moco_file}"}),
    "--out-dir": Sized({"checkpoints/*.pth.tar": "{moco_file}"}, "--no-verify"),
    "--to safetensors": Sized({"moco_v2_800ep_pretrain.pth.tar": "{moco_file}"}, "--no-verify"),
    "--from-detector": Sized({"output/moco_1x/model_final.pth": "{converted}"}, "--no-verify"),
    "convert_checkpoint.py moco_v2_800ep_pretrain.pth.tar": Sized(
        {"moco_v2_800ep_pretrain.pth.tar": "{moco_file}"}
    ),
    "convert_checkpoint.py SRC": Sized({"SRC": "{moco_file}"}),
    "export DETECTRON2_DATASETS": Sized({"/path/to/datasets": "{datasets}"}),
    "draw_run.py": Sized(),
    "--eval-only": Sized(GPUS_TO_CPU, small=True),
    "--num-machines 2": Sized(
        {
            "--num-gpus 8 --num-machines 2": "--num-processes 1 --num-machines 1",
            "HOST0": "127.0.0.1",
        },
        "train.output_dir=output/machines train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "--num-processes 2": Sized(
        add="train.output_dir=output/processes train.init_checkpoint={converted}",
        small=True,
        trains=True,
    ),
    "train.init_checkpoint=moco_v2_800ep.pkl": Sized(GPUS_TO_CPU, small=True, trains=True),
    "--config-file configs/swav_ms2x.py": Sized(
        GPUS_TO_CPU, "train.init_checkpoint={converted}", small=True, trains=True
    ),
}


def commands(page):
    """The command lines of the pages' bash blocks, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def row_of(command):
    """The table's first key that stands in the command."""
    return next((key for key in TABLE if key in command), None)


def test_every_command_has_a_row_and_every_row_a_command():
    assert {row_of(command) for command in commands(PAGES)} == set(TABLE)


def test_the_parser_sees_what_is_there():
    page = "x\n```bash\na \\\n b\nc   # why\n```\n```python\nd\n```\n"
    assert commands(page) == ["a   b", "c"]


def test_what_the_examples_import_is_there():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL)
    lines = [line for line in "".join(blocks).splitlines() if line.startswith(("from ", "import "))]
    assert len(lines) > 5
    for line in lines:
        exec(line, {})


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, digits):
    """A folder that looks like the checkout and takes what the commands write."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("tools", "configs", "projects", "ssl_backbones", "setup.py", "README.md"):
        (folder / name).symlink_to(CHECKOUT / name)
    return folder


@pytest.fixture(scope="module")
def replay_file(runs, tmp_path_factory):
    """What a run leaves that met an image of NaNs."""
    from running import spoil_image

    folder = tmp_path_factory.mktemp("not_finite") / "run"
    assert runs.run(folder, fault=(spoil_image, "000003")) == [1]
    (path,) = folder.glob("replay_*.pth")
    return path


@pytest.fixture(scope="module")
def files(moco_file, converted, digits, replay_file):
    return {
        "checkout": CHECKOUT,
        "moco_file": moco_file,
        "converted": converted,
        "datasets": digits.parent,
        "replay_file": replay_file,
    }


@pytest.mark.parametrize("command", dict.fromkeys(commands(PAGES)))
def test_command(command, workplace, files, small):
    """In the order of the pages: the later ones use what the earlier ones made."""
    sized = TABLE[row_of(command)]
    line = command
    for old, new in sized.replace.items():
        assert old in line, f"the table replaces {old!r}, which {command!r} does not have"
        line = line.replace(old, new)
    line = " ".join([line, sized.add]).format_map(files)
    words = shlex.split(line) + (list(small) if sized.small else [])
    if sized.trains:
        words += ["train.max_iter=1"]
    if words[0] == "export":
        name, value = words[1].split("=")
        assert os.environ[name] == value  # as the fixtures have set it
        return
    if words[0] == "cd":
        assert Path(words[1]).is_dir()
        return
    words = [sys.executable if word == "python" else word for word in words]
    result = subprocess.run(words, cwd=workplace, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{line}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
