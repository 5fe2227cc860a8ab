"""Every command of README.md and docs/, run as it stands there, in a size that fits a CPU."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from page_commands import commands, files, python_blocks, shows
from page_files import write_dino, write_dino_vit, write_own_data, write_without_statistics
from yolo_files import write_yolo

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs"
FIRST = [CHECKOUT / "README.md", DOCS / "training.md"]
# The README makes what the other pages use; each of these uses nothing else that it does not make itself.
TEXT = "\n".join(
    path.read_text(encoding="utf-8")
    for path in FIRST + sorted(path for path in DOCS.glob("*.md") if path not in FIRST)
)
COMMANDS = commands(TEXT)

GPUS_TO_CPU = {"--num-gpus 8": "train.device=cpu"}
# As of the fixture `small`, without what --data takes from the data.
SMALL_OWN_DATA = (
    "train.seed=1 train.log_period=1 dataloader.train.num_workers=0 dataloader.test.num_workers=0 "
    "dataloader.train.mapper.augmentations.0.short_edge_length=64 "
    "dataloader.train.mapper.augmentations.0.sample_style=choice "
    "dataloader.test.mapper.augmentations.0.short_edge_length=64 "
    "model.roi_heads.batch_size_per_image=16 model.proposal_generator.post_nms_topk=[50,20]"
)


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
        {"GLIBC_TUNABLES": "env GLIBC_TUNABLES", "train.accumulate=16": "train.accumulate=2"},
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
    "dino_deitsmall16_pretrain.pth": Sized(),
    "my_vit.py": Sized(
        GPUS_TO_CPU,
        "model.backbone.bottom_up.embed_dim=64 model.backbone.bottom_up.depth=1 "
        "model.backbone.bottom_up.num_heads=1 model.backbone.bottom_up.mlp_dim=256",
        small=True,
        trains=True,
    ),
    "check_data.py": Sized(),
    "--classes three,ten": Sized(),
    "scratch --data numerals --seeds 3 --plan": Sized(),
    "compare_backbones.py": Sized(
        {"--seeds 3": "--seeds 1 --jobs 2"},
        SMALL_OWN_DATA.replace("train.seed=1 ", "train.max_iter=1 "),
    ),
    "--protocols recipe,low_shot_50": Sized(),
    "--data signs": Sized({"--epochs 20": "--epochs 0.1"}, SMALL_OWN_DATA),
    "--data numerals": Sized(add=SMALL_OWN_DATA, trains=True),
    "browse_data.py --config-file numerals_swav.py": Sized(),
    "browse_data.py output/numerals": Sized(),
    "predict.py --config-file output/numerals": Sized(),
    # Refused before anything else is looked at.
    "total_batch_size=4": Sized({"--num-gpus 2": "train.device=cpu"}),
    "model.input_format=BGR": Sized(GPUS_TO_CPU),
    "init_checkpoint=from_a_script.pkl": Sized(
        GPUS_TO_CPU, "train.output_dir=output/refused", small=True
    ),
    # No network can be reached through a port where nobody listens.
    "init_checkpoint=ssl://": Sized(
        {**GPUS_TO_CPU, "python tools": "env https_proxy=http://127.0.0.1:9 python tools"},
        small=True,
    ),
    "freeze_at=5": Sized(GPUS_TO_CPU, small=True, trains=True),
    "my_resnet18.py": Sized(GPUS_TO_CPU, small=True, trains=True),
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
    "compare_runs.py output/moco_1x output/swav_ms2x": Sized(),
    "compare_runs.py": Sized({"output/swav_1x": "output/moco_1x"}),  # it would exit with 1
    "install_detectron2.py --wheel-dir": Sized(),
    "install_detectron2.py": Sized(),
    "pip install -e": Sized(
        {"pip": "python -m pip"}, "--dry-run --no-deps --no-build-isolation -q"
    ),
    "convert_checkpoint.py list": Sized(),
    "convert_checkpoint.py inspect": Sized(),
    "convert_checkpoint.py verify": Sized(),
    "resnet50_tuned.pth": Sized(add="--no-verify"),
    "--branch student": Sized(add="--no-verify"),
    "--prefix network/trunk.": Sized(),
    "--out-dir": Sized({"checkpoints/*.pth.tar": "{moco_file}"}, "--no-verify"),
    "--to safetensors": Sized(add="--no-verify"),
    "--from-detector": Sized({"output/moco_1x/model_final.pth": "{converted}"}, "--no-verify"),
    "convert_checkpoint.py moco_v2_800ep_pretrain.pth.tar": Sized(),
    "convert_checkpoint.py SRC": Sized({"SRC": "{moco_file}"}),
    "export DETECTRON2_DATASETS": Sized({"/path/to/datasets": "{datasets}"}),
    "report.py": Sized(add="--resamples 20"),
    "predict.py": Sized(
        {"moco_1x/model_final.pth photos": "moco_1x/model_final.pth {datasets}/digits/test"},
        "--opts",
        small=True,
    ),
    "browse_data.py": Sized(small=True),
    "compare_init.py": Sized(),
    "evaluate_backbone.py": Sized({"my_pretraining.pth": "{moco_file}"}),
    "pretrain_rotations.py": Sized(
        {"datasets/digits/train": "{datasets}/digits/train", "--steps 200": "--steps 2 --batch 4"}
    ),
    '-c "': Sized(),
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


def row_of(command):
    """The table's first key that stands in the command."""
    return next((key for key in TABLE if key in command), None)


def test_every_command_has_a_row_and_every_row_a_command():
    assert {row_of(line) for line in COMMANDS} == set(TABLE)


def test_every_output_belongs_to_a_command():
    shown = sum(len(command.printed) for command in COMMANDS.values())
    assert shown == len(re.findall(r"^```text$", TEXT, re.MULTILINE)) > 20


def test_what_the_examples_import_is_there():
    lines = "".join(python_blocks(TEXT)).splitlines()
    lines = [line for line in lines if line.startswith(("from ", "import "))]
    assert len(lines) > 5
    for line in lines:
        exec(line, {})


@pytest.fixture(scope="module")
def workplace(module_folder, digits, moco_file, converted, whole):
    """A folder that looks like the checkout, with the files that the pages name."""
    folder = module_folder
    for name in ("tools", "configs", "docs", "projects", "ssl_backbones", "setup.py", "README.md"):
        (folder / name).symlink_to(CHECKOUT / name)
    (folder / "moco_v2_800ep_pretrain.pth.tar").symlink_to(moco_file)
    # For what the quickstart makes, a smaller run.
    shutil.copytree(whole(1), folder / "output" / "quickstart" / "moco_digits")
    write_dino(folder / "dino_resnet50_full.pth")
    write_dino_vit(folder / "dino_deitsmall16_pretrain.pth")
    write_without_statistics(converted, folder / "from_a_script.pkl")
    write_own_data(digits, folder / "numerals")
    write_yolo(digits, folder, segments=True)[0].rename(folder / "signs")
    for name, content in files(TEXT).items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def places(moco_file, converted, digits):
    return {
        "checkout": CHECKOUT,
        "moco_file": moco_file,
        "converted": converted,
        "datasets": digits.parent,
    }


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_command(command, workplace, places, small):
    """In the order of the pages: the later ones use what the earlier ones made."""
    sized = TABLE[row_of(command.line)]
    line = command.line
    for old, new in sized.replace.items():
        assert old in line, f"the table replaces {old!r}, which {command.line!r} does not have"
        line = line.replace(old, new)
    line = " ".join([line, sized.add]).format_map(places)
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
    result = subprocess.run(
        words,
        cwd=workplace,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    output = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == command.status, f"{line}\n{output[-4000:]}"
    for printed in command.printed:
        assert shows(output, printed), f"{line}\n{printed}\nis not in\n{output}"
