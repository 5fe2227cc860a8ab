"""The command line: what it prints, and one line for everything that can be wrong with its input."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys

import pytest
import torch
import torchvision

TOOL = "tools/convert_checkpoint.py"


def small_state(
    name: str = "resnet50", prefix: str = "module.encoder_q."
) -> dict[str, torch.Tensor]:
    """A network's tensors in no space: each is one number, expanded to its shape."""
    with torch.device("meta"):
        network = getattr(torchvision.models, name)()
    return {
        f"{prefix}{key}": torch.ones(()).expand(t.shape) for key, t in network.state_dict().items()
    }


def moco(state: dict) -> dict:
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {}}


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


LEGACY = {"_use_new_zipfile_serialization": False}


@pytest.fixture(scope="module")
def benign() -> bytes:
    return saved(moco(small_state()))


@pytest.fixture
def convert(run_tool, tmp_path):
    """Run the command on bytes in a folder of their own."""

    def run(data: bytes, *options: str, destination: str = "model.pkl", **keywords):
        (tmp_path / "source.pth.tar").write_bytes(data)
        return run_tool(
            TOOL,
            str(tmp_path / "source.pth.tar"),
            str(tmp_path / destination),
            *options,
            **keywords,
        )

    return run


def assert_refused(ended: subprocess.CompletedProcess, says: str) -> None:
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr
    assert says in ended.stderr


def test_a_summary_for_people(convert, benign, tmp_path):
    ended = convert(benign, "--no-verify")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.rstrip() for line in ended.stdout.splitlines()]
    assert max(map(len, lines[:-2])) <= 80  # the last two hold a path to be copied
    assert "\x1b" not in ended.stdout  # no colours off a terminal
    assert "architecture  resnet50" in lines
    assert "kept          265 tensors, all there, of the right shape and finite" in lines
    assert "dropped       2: projection head of the pretraining" in lines
    assert lines[-3].endswith("MiB of memory at the peak")
    assert lines[-2] == f"written: {tmp_path / 'model.pkl'}"
    assert lines[-1].startswith(
        "next: tools/train_net.py --config-file configs/moco_1x.py train.init"
    )
    assert lines[-1].endswith(f"train.init_checkpoint={tmp_path / 'model.pkl'}")


def test_the_proof_is_shown_beside_wrong_conversions(convert):
    torch.manual_seed(0)
    network = torchvision.models.resnet50()
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))  # gives the batch norms statistics
    state = {f"module.encoder_q.{name}": tensor for name, tensor in network.state_dict().items()}
    ended = convert(saved(moco(state), **LEGACY))
    assert (ended.returncode, ended.stderr) == (0, "")
    cells = [re.split(r"\s{2,}", line.strip()) for line in ended.stdout.splitlines()]
    rows = {row[0]: row[1] for row in cells if len(row) == 2}
    for stage in ("res2", "res3", "res4", "res5"):
        assert float(rows[f"{stage} of this conversion"]) <= 1e-6
    assert float(rows["allowed"]) == 1e-5
    for name in (
        "one batch norm's statistics dropped",
        "two batch norm tensors swapped",
        "stride in the 1x1",
    ):
        assert float(rows[f"wrong on purpose: {name}"]) > 1e-3
    assert int(rows["the least wrong of them, times what is allowed"].replace(",", "")) > 100


def test_json_and_nothing_else(convert, benign, tmp_path):
    ended = convert(benign, "--no-verify", "--dry-run", "--json", "--selfsup", "moco")
    report = json.loads(ended.stdout)
    assert report["destination"] is None
    assert report["provenance"]["method"] == "moco"
    assert report["proof"] is None
    assert len(report["kept"]) == 265
    assert report["seconds"] > 0
    assert report["peak_memory_bytes"] > 0
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_dry_run_and_force(convert, benign, tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"old")
    ended = convert(benign, "--no-verify", "--dry-run")
    assert ended.returncode == 0
    assert ended.stdout.endswith("dry run: nothing was written\n")
    assert_refused(convert(benign, "--no-verify"), "--force")
    assert (tmp_path / "model.pkl").read_bytes() == b"old"
    assert convert(benign, "--no-verify", "--force").returncode == 0
    assert len(pickle.loads((tmp_path / "model.pkl").read_bytes())["model"]) == 265


def test_help_needs_neither_numpy_nor_torch(run_tool):
    """Python reports its imports on standard error."""
    ended = run_tool("-X", "importtime", TOOL, "--help")
    assert ended.returncode == 0
    assert "examples:" in ended.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"numpy", "torch", "detectron2", "rich"}
    assert "argparse" in imported


def test_without_the_proof_torch_is_not_imported(benign, tmp_path, run_tool):
    (tmp_path / "source.pth").write_bytes(benign)
    ended = run_tool(
        "-X",
        "importtime",
        TOOL,
        str(tmp_path / "source.pth"),
        str(tmp_path / "x.pkl"),
        "--no-verify",
    )
    assert ended.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & {"torch", "torchvision", "detectron2"}


# Bad input


def without(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if not key.endswith(name)}


def broken(name: str, value: torch.Tensor) -> bytes:
    return saved(moco(small_state() | {f"module.encoder_q.{name}": value}))


HEADS = {
    "module.projection_head.0.weight": torch.ones(2, 2),
    "module.prototypes.weight": torch.ones(2, 2),
}

BAD_INPUTS = {
    "an empty file": (lambda: b"", "is empty"),
    "a web page": (lambda: b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", "web page"),
    "text": (lambda: b"404: Not Found\n", "text file"),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "a truncated zip": (lambda: saved(moco(small_state()))[:-500], "truncated"),
    "a truncated legacy file": (lambda: saved(moco(small_state()), **LEGACY)[:-3], "truncated"),
    "a Vision Transformer": (
        lambda: saved(small_state("vit_b_16", "") | {"cls_token": torch.ones(1)}),
        "a Vision Transformer",
    ),
    "a ResNet-18": (lambda: saved(moco(small_state("resnet18"))), "holds a resnet18"),
    "a ResNet-101": (lambda: saved(moco(small_state("resnet101"))), "holds a resnet101"),
    "a projection head alone": (lambda: saved({"state_dict": HEADS}), "holds no backbone"),
    "NaN weights": (
        lambda: broken("layer3.0.bn1.bias", torch.full((256,), torch.nan)),
        "module.encoder_q.layer3.0.bn1.bias holds NaN or infinite values",
    ),
    "a missing tensor": (
        lambda: saved(moco(without(small_state(), "layer3.5.bn2.weight"))),
        "layer3.5.bn2.weight is missing",
    ),
    "a wrong shape": (
        lambda: broken("conv1.weight", torch.ones(64, 3, 3, 3)),
        "module.encoder_q.conv1.weight has shape (64, 3, 3, 3) instead of (64, 3, 7, 7)",
    ),
    "an unknown layout": (lambda: saved({"net": small_state(prefix="trunk.")}), "none of the known"),
    "a list": (lambda: saved([1, 2, 3]), "holds a list"),
    "a whole module": (lambda: saved(torch.nn.Linear(1, 1)), "asks for torch.nn.modules.linear.Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_gives_one_line(convert, tmp_path, name):
    make, says = BAD_INPUTS[name]
    assert_refused(convert(make(), "--no-verify"), says)
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_bad_paths_and_options(run_tool, convert, benign, tmp_path):
    target = str(tmp_path / "model.pkl")
    assert_refused(run_tool(TOOL, str(tmp_path / "missing.pth"), target), "No such file")
    assert_refused(run_tool(TOOL, str(tmp_path), target), "give the file itself")
    assert_refused(convert(benign, destination="model.pth"), "must end in .pkl")
    assert_refused(convert(benign, destination="source.pth.tar"), "must end in .pkl")
    assert_refused(convert(benign, destination="nowhere/model.pkl"), "not a folder")
    assert_refused(convert(benign, "--selfsup", "swav"), "use --selfsup moco")
    assert_refused(convert(benign, "--selfsup", "dino"), "choose one of auto, moco, swav")
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_weights_that_cannot_be_proved(convert, tmp_path):
    """A network that lets nothing through: found by the proof, for every tensor is finite."""
    assert_refused(convert(saved(moco(dead_state()))), "the training went wrong")
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def dead_state() -> dict[str, torch.Tensor]:
    state = small_state()
    for name in state:
        if not name.endswith("running_var"):
            state[name] = torch.zeros(()).expand(state[name].shape)
    return state


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_and_its_benign_twin(convert, tmp_path, options):
    marker = tmp_path.parent / f"{tmp_path.name}_ran"
    content = moco(small_state())
    assert_refused(
        convert(saved(content | {"epoch": Exploit(marker)}, **options), "--no-verify"), "system"
    )
    assert os.listdir(tmp_path) == ["source.pth.tar"]
    assert not marker.exists()
    twin = convert(saved(content | {"epoch": 200}, **options), "--no-verify")
    assert twin.returncode == 0


def test_a_disk_that_fills_up(convert, benign, tmp_path):
    """The system refuses every byte beyond 10 MB of a file, as a full disk does."""
    ended = convert(
        benign,
        "--no-verify",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000)),
    )
    assert_refused(ended, "cannot write")
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_folders_that_cannot_be_written_to(run_tool, convert, benign, tmp_path):
    """/proc refuses new files even to root."""
    convert(benign, "--dry-run", "--no-verify")
    source = str(tmp_path / "source.pth.tar")
    assert_refused(run_tool(TOOL, source, "/proc/self/model.pkl", "--no-verify"), "/proc/self")
    (tmp_path / "file").touch()
    below = str(tmp_path / "file" / "model.pkl")
    assert_refused(run_tool(TOOL, source, below, "--no-verify"), "not a folder")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert_refused(convert(benign, "--no-verify"), "may write")
        tmp_path.chmod(0o700)


def test_an_interruption_leaves_nothing(convert, benign, tmp_path):
    """Ctrl-C between the writing of the temporary file and its renaming."""
    (tmp_path / "source.pth.tar").write_bytes(benign)
    script = (
        "import os, signal, sys\n"
        "from ssl_backbones.conversion import writing\n"
        "written = writing._check_written\n"
        "writing._check_written = lambda *a: os.kill(os.getpid(), signal.SIGINT) or written(*a)\n"
        "from ssl_backbones.tools.convert_checkpoint import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            script,
            str(tmp_path / "source.pth.tar"),
            str(tmp_path / "m.pkl"),
            "--no-verify",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")
    assert os.listdir(tmp_path) == ["source.pth.tar"]
