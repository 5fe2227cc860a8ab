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

from ssl_backbones.conversion.converting import FORMATS
from ssl_backbones.conversion.layouts import LAYOUTS
from ssl_backbones.modeling.architectures import Architecture

TOOL = "tools/convert_checkpoint.py"


NARROW = Architecture("narrow", 50, stem_channels=8, res2_channels=32, bottleneck_channels=8)
"""A ResNet-50 with an eighth of the channels: 1.6 MB, and all its keys."""


def narrow_state(seed: int = 0, prefix: str = "module.encoder_q.") -> dict[str, torch.Tensor]:
    """A pretrained network's state dict, counters and head included."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in NARROW.shapes.items():
        fan_in = max(1, torch.Size(shape[1:]).numel())
        tensor = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        if len(shape) == 1:
            tensor = torch.rand(shape, generator=generator) + 0.5
        state[prefix + name] = tensor
        if name.endswith("running_var"):
            counter = name.replace("running_var", "num_batches_tracked")
            state[prefix + counter] = torch.tensor(7)
    return state | {f"{prefix}fc.weight": torch.ones(4, 256), f"{prefix}fc.bias": torch.ones(4)}


def moco(state: dict) -> dict:
    return {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {}}


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


LEGACY = {"_use_new_zipfile_serialization": False}


@pytest.fixture(scope="module")
def benign() -> bytes:
    return saved(moco(narrow_state()))


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
    assert max(map(len, lines[:-3])) <= 80  # the last three hold what is to be copied
    assert "\x1b" not in ended.stdout  # no colours off a terminal
    widths = "stem_channels 8, res2_channels 32, bottleneck_channels 8, groups 1"
    assert f"architecture resnet50 of {widths}" in " ".join(ended.stdout.split())
    assert "kept          265 tensors, all there, of the right shape and finite" in lines
    assert "dropped       2: projection head of the pretraining" in lines
    assert lines[-4].endswith("MiB of memory at the peak")
    assert lines[-3] == f"written: {tmp_path / 'model.pkl'}"
    assert lines[-2].startswith(
        "next: tools/train_net.py --config-file configs/moco_1x.py train.init"
    )
    assert lines[-2].endswith(f"train.init_checkpoint={tmp_path / 'model.pkl'}")
    assert "L(build_resnet)(depth=50, stem_channels=8, res2_channels=32" in lines[-1]


def test_the_proof_is_shown_beside_wrong_conversions(convert):
    state = narrow_state() | narrow_state(1, "module.encoder_k.")
    ended = convert(saved(moco(state), **LEGACY))
    assert (ended.returncode, ended.stderr) == (0, "")
    cells = [re.split(r"\s{2,}", line.strip()) for line in ended.stdout.splitlines()]
    rows = {row[0]: row[1] for row in cells if len(row) > 1}
    for stage in ("res2", "res3", "res4", "res5"):
        assert float(rows[f"{stage} in float32"]) <= 1e-6
        assert float(rows[f"{stage} in float64"]) <= 1e-11
    assert float(rows["allowed in float32"]) == 1e-5
    assert float(rows["the file's other network"]) > 1e-2
    for name in (
        "BGR statistics",
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


OPTIONS = {
    (): "--out-dir --selfsup --branch --prefix --network --from-detector --to --no-verify --dry-run --json "
    "--force",
    ("verify",): "--source --selfsup --branch --prefix --network --no-proof --json",
    ("inspect",): "--selfsup --branch --prefix --network --depth --json",
    ("list",): "--json",
}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_are_these(run_tool, command):
    """A new one is a decision, not an accident."""
    ended = run_tool(TOOL, *command, "--help")
    assert ended.returncode == 0
    listed = re.findall(r"^  (?:-\w, )?(--[a-z-]+)", ended.stdout, re.MULTILINE)
    assert listed == ["--help", *OPTIONS[command].split()]


# Formats, batches and subcommands


def test_other_formats_come_back_bit_by_bit(run_tool, convert, benign, tmp_path):
    """Out of MoCo's file into a format, and out of Detectron2's back into it."""
    convert(benign, "--no-verify")
    converted = tmp_path / "model.pkl"
    for number, name in enumerate(("torchvision", "detectron2-safetensors")):
        form = FORMATS[name]
        path, again = (tmp_path / f"{kind}{number}{form.suffix}" for kind in ("first", "again"))
        source = str(tmp_path / "source.pth.tar")
        assert run_tool(TOOL, source, str(path), "--to", name, "--no-verify").returncode == 0
        ended = run_tool(
            TOOL, str(converted), str(again), "--from-detector", "--to", name, "--no-verify"
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        for file in (path, again):
            ended = run_tool(TOOL, "verify", str(file), "--source", source, "--no-proof")
            assert (ended.returncode, ended.stderr) == (0, ""), file
            assert "the same tensors, bit by bit" in ended.stdout


def test_a_batch_goes_on_past_a_refusal(run_tool, benign, tmp_path):
    for name, data in (("one.pth.tar", benign), ("two.pth", b"404"), ("three.ckpt", benign)):
        (tmp_path / name).write_bytes(data)
    sources = [str(tmp_path / name) for name in ("one.pth.tar", "two.pth", "three.ckpt")]
    folder = tmp_path / "out"
    ended = run_tool(TOOL, *sources, "--out-dir", str(folder), "--no-verify")
    assert (ended.returncode, ended.stderr) == (2, "")
    assert sorted(os.listdir(folder)) == ["one.pkl", "three.pkl"]
    assert ended.stdout.endswith(f"2 converted into {folder}, 1 refused\n")
    assert "refused: " in ended.stdout
    ended = run_tool(
        TOOL, sources[0], "--out-dir", str(tmp_path / "new" / "out"), "--no-verify", "--json"
    )
    assert ended.returncode == 0
    assert json.loads(ended.stdout)[sources[0]]["provenance"]["method"] == "moco"
    twins = [sources[0], str(tmp_path / "one.pth")]
    (tmp_path / "one.pth").write_bytes(benign)
    ended = run_tool(TOOL, *twins, "--out-dir", str(tmp_path / "twins"), "--no-verify", "--json")
    assert ended.returncode == 2
    assert "would be written to" in json.loads(ended.stdout)[twins[1]]["refused"]


def test_the_other_branch(convert, tmp_path):
    data = saved(moco(narrow_state() | narrow_state(1, "module.encoder_k.")))
    for branch, seed in (("online", 0), ("momentum", 1)):
        assert convert(data, "--no-verify", "--force", "--branch", branch).returncode == 0
        content = pickle.loads((tmp_path / "model.pkl").read_bytes())
        assert content["provenance"]["branch"] == branch
        expected = narrow_state(seed, "")["conv1.weight"]
        assert torch.equal(torch.from_numpy(content["model"]["stem.conv1.weight"]), expected)


def test_inspect_shows_what_a_conversion_would_do(run_tool, benign, tmp_path):
    (tmp_path / "source.pth").write_bytes(benign)
    ended = run_tool(TOOL, "inspect", str(tmp_path / "source.pth"))
    assert (ended.returncode, ended.stderr) == (0, "")
    for text in ("moco (layout moco", "265 tensors", "torch-zip", "state_dict.module", "8x3x7x7"):
        assert text in ended.stdout
    ended = run_tool(TOOL, "inspect", str(tmp_path / "source.pth"), "--json")
    found = json.loads(ended.stdout)
    assert found["refusal"] is None
    assert len(found["backbone"]["kept"]) == 265
    assert found["tree"]["tensors"] == 320


def test_inspect_of_what_cannot_be_converted(run_tool, tmp_path):
    """It tells why, and that is no failure; a file that cannot be read is one."""
    (tmp_path / "heads.pth").write_bytes(saved({"state_dict": HEADS}))
    ended = run_tool(TOOL, "inspect", str(tmp_path / "heads.pth"))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "would be refused" in ended.stdout
    assert "prototypes.weight" in ended.stdout
    (tmp_path / "page.pth").write_bytes(b"<html>")
    assert_refused(run_tool(TOOL, "inspect", str(tmp_path / "page.pth")), "web page")


def test_list_shows_every_layout(run_tool):
    ended = run_tool("-X", "importtime", TOOL, "list")
    assert ended.returncode == 0
    for layout in LAYOUTS:
        assert layout.name in ended.stdout
    assert ended.stdout.endswith(f"{len(LAYOUTS)} layouts\n")
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert not imported & {"torch", "detectron2", "numpy"}
    assert len(json.loads(run_tool(TOOL, "list", "--json").stdout)) == len(LAYOUTS)


def test_inspect_does_not_import_torch(run_tool, benign, tmp_path):
    (tmp_path / "source.pth").write_bytes(benign)
    ended = run_tool("-X", "importtime", TOOL, "inspect", str(tmp_path / "source.pth"))
    imported = {line.rsplit("|", 1)[-1].strip() for line in ended.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & {"torch", "torchvision", "detectron2"}


def test_a_file_with_a_subcommands_name(run_tool, benign, tmp_path):
    (tmp_path / "verify").write_bytes(benign)
    tool = os.path.abspath(TOOL)
    ended = run_tool(tool, "./verify", "model.pkl", "--no-verify", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "model.pkl").exists()


def test_words_that_make_no_sense(run_tool):
    """argparse's own exit status 2, with the usage."""
    for words in (["one.pth"], ["a", "b", "c"], ["a", "b", "--to", "onnx"], ["list", "x"], []):
        ended = run_tool(TOOL, *words)
        assert ended.returncode == 2
        assert "usage: ssl-convert" in ended.stderr
        assert "Traceback" not in ended.stderr


# Bad input


def without(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if not key.endswith(name)}


def broken(name: str, value: torch.Tensor) -> bytes:
    return saved(moco(narrow_state() | {f"module.encoder_q.{name}": value}))


HEADS = {
    "module.projection_head.0.weight": torch.ones(2, 2),
    "module.prototypes.weight": torch.ones(2, 2),
}

BAD_INPUTS = {
    "an empty file": (lambda: b"", "is empty"),
    "a web page": (lambda: b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", "web page"),
    "text": (lambda: b"404: Not Found\n", "text file"),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "ONNX": (lambda: b"\x08\x09\x12\x07pytorch\x1a\x062.14.1:", "is ONNX"),
    "a truncated zip": (lambda: saved(moco(narrow_state()))[:-500], "truncated"),
    "a truncated legacy file": (lambda: saved(moco(narrow_state()), **LEGACY)[:-3], "truncated"),
    "a Vision Transformer": (
        lambda: saved({"patch_embed.proj.weight": torch.ones(8, 3, 4, 4), "cls_token": torch.ones(1)}),
        "a Vision Transformer",
    ),
    "a projection head alone": (lambda: saved({"state_dict": HEADS}), "holds no backbone"),
    "NaN weights": (
        lambda: broken("layer3.0.bn1.bias", torch.full((32,), torch.nan)),
        "module.encoder_q.layer3.0.bn1.bias holds NaN or infinite values",
    ),
    "a missing tensor": (
        lambda: saved(moco(without(narrow_state(), "layer3.5.bn2.weight"))),
        "layer3.5.bn2.weight is missing",
    ),
    "a wrong shape": (
        lambda: broken("layer1.0.bn3.bias", torch.ones(31)),
        "module.encoder_q.layer1.0.bn3.bias has shape (31,) instead of (32,)",
    ),
    "CIFAR's stem": (lambda: broken("conv1.weight", torch.ones(8, 3, 3, 3)), "3x3 stem"),
    "an unknown layout": (lambda: saved({"net": narrow_state(prefix="trunk.")}), "none of the known"),
    "a list": (lambda: saved([1, 2, 3]), "holds a list"),
    "a whole module": (lambda: saved(torch.nn.Linear(1, 1)), "asks for torch.nn.modules.linear.Linear"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_gives_one_line(convert, tmp_path, name):
    make, says = BAD_INPUTS[name]
    assert_refused(convert(make(), "--no-verify"), says)
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_parts_of_a_checkpoint(run_tool, benign, tmp_path):
    """By their names, which the bytes in `BAD_INPUTS` do not have: a shard, and a folder."""
    shard = tmp_path / "pytorch_model-00001-of-00002.bin"
    shard.write_bytes(benign)
    for path in (shard, tmp_path):
        for words in (["inspect", str(path)], [str(path), str(tmp_path / "model.pkl")]):
            assert_refused(run_tool(TOOL, *words), "checkpoint in several files")
    assert os.listdir(tmp_path) == [shard.name]


def test_bad_paths_and_options(run_tool, convert, benign, tmp_path):
    target = str(tmp_path / "model.pkl")
    assert_refused(run_tool(TOOL, str(tmp_path / "missing.pth"), target), "No such file")
    assert_refused(run_tool(TOOL, str(tmp_path), target), "give the file itself")
    assert_refused(run_tool(TOOL, "ssl://moco", target), "no weights are named ssl://moco; there")
    assert_refused(convert(benign, destination="model.pth"), "must end in .pkl")
    assert_refused(convert(benign, destination="source.pth.tar"), "must end in .pkl")
    assert_refused(convert(benign, destination="source.pth.tar/model.pkl"), "not a folder")
    assert_refused(convert(benign, "--selfsup", "swav"), "use --selfsup moco")
    assert_refused(convert(benign, "--selfsup", "nobody"), "choose one of auto, moco")
    assert_refused(convert(benign, "--branch", "left"), "choose one of online")
    assert_refused(convert(benign, "--branch", "teacher"), "--branch")
    assert_refused(convert(benign, "--from-detector"), "no ResNet under Detectron2's names")
    assert_refused(convert(benign, "--to", "torchvision"), "must end in .pth")
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def test_weights_that_cannot_be_proved(convert, tmp_path):
    """A network that lets nothing through: found by the proof, for every tensor is finite."""
    assert_refused(convert(saved(moco(dead_state()))), "the training went wrong")
    assert os.listdir(tmp_path) == ["source.pth.tar"]


def dead_state() -> dict[str, torch.Tensor]:
    return {
        name: tensor if name.endswith("running_var") else torch.zeros_like(tensor)
        for name, tensor in narrow_state().items()
    }


class Exploit:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_and_its_benign_twin(convert, tmp_path, options):
    marker = tmp_path.parent / f"{tmp_path.name}_ran"
    content = moco(narrow_state())
    assert_refused(
        convert(saved(content | {"epoch": Exploit(marker)}, **options), "--no-verify"), "system"
    )
    assert os.listdir(tmp_path) == ["source.pth.tar"]
    assert not marker.exists()
    twin = convert(saved(content | {"epoch": 200}, **options), "--no-verify")
    assert twin.returncode == 0


def test_a_disk_that_fills_up(convert, benign, tmp_path):
    """The system refuses every byte beyond 1 MB of a file, as a full disk does."""
    ended = convert(
        benign,
        "--no-verify",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
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
