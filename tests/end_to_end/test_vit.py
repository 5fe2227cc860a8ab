"""A ViT by the commands: from a pretraining's file to a detector that trains, resumes and is tested."""

import shlex

import pytest
import torch
from running import moved_in_a_run_and_its_resumption

from ssl_backbones.conversion.reading import read_checkpoint

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def source(module_folder):
    """A training checkpoint of DINO's, of a network of two blocks."""
    torch.manual_seed(0)
    network = timm.models.vision_transformer.VisionTransformer(
        img_size=64, embed_dim=128, depth=2, num_heads=2, num_classes=0
    )
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    teacher = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    student = {f"module.{name}": tensor + 0.01 for name, tensor in teacher.items()}
    path = module_folder / "dino.pth"
    torch.save({"student": student, "teacher": teacher, "epoch": 3}, path)
    return path


def test_from_a_file_to_ap_and_on_after_an_interruption(
    run_tool, digits, small, source, module_folder
):
    converted = module_folder / "vit.pkl"
    told = run_tool("tools/convert_checkpoint.py", str(source), str(converted))
    assert told.returncode == 0, told.stderr
    assert "the file's other network" in told.stdout
    (line,) = [one for one in told.stdout.splitlines() if "train_net.py" in one]
    command = shlex.split(line.partition("next: ")[2])
    assert [word.partition("=")[0] for word in command[-2:]] == ["model.backbone"] * 2

    def train(folder, *words):
        done = run_tool(
            *(*command, *small, *words, f"train.output_dir={folder}"),
            *("train.max_iter=2", "train.checkpointer.period=1", "train.draw_batches=0"),
            *("train.amp.enabled=False", "train.ema.enabled=True"),
            "model.backbone.bottom_up.freeze_at=2",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    moved = moved_in_a_run_and_its_resumption(train, module_folder, converted)
    before = read_checkpoint(converted).content["model"]
    assert moved == {n for n in before if n.startswith(("vit.blocks.1.", "vit.norm."))}


def test_a_detectors_network_is_taken_out_again(run_tool, source, module_folder):
    """With the heads that its provenance states, which no tensor shows."""
    whole, out = module_folder / "whole/model_final.pth", module_folder / "out.pkl"
    told = run_tool("tools/convert_checkpoint.py", "--from-detector", str(whole), str(out))
    assert told.returncode == 0, told.stdout + told.stderr
    stated = read_checkpoint(out).content["provenance"]["architecture"]
    assert (stated["num_heads"], stated["interpolate_offset"]) == (2, 0.1)
