"""A ConvNeXt by the commands: from a pretraining's file to a detector that trains, resumes and is tested."""

import pytest
import torch
from running import moved_in_a_run_and_its_resumption

from ssl_backbones.conversion.reading import read_checkpoint

timm = pytest.importorskip("timm")

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig

from ssl_backbones.engine.config import find_config
from ssl_backbones.modeling.convnext import build_convnext

recipe = LazyConfig.load(find_config("moco_1x"))
model, train, dataloader = recipe.model, recipe.train, recipe.dataloader
optimizer, lr_multiplier = recipe.optimizer, recipe.lr_multiplier
{line}
"""


@pytest.fixture(scope="module")
def source(module_folder):
    """As FCMAE's encoder is after fine-tuning, in timm's names."""
    torch.manual_seed(0)
    network = timm.models.convnext.ConvNeXt(
        depths=(1, 1, 2, 1), dims=(8, 16, 32, 64), num_classes=3, use_grn=True, ls_init_value=None
    )
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    torch.save(network.state_dict(), module_folder / "convnext.pth")
    return module_folder / "convnext.pth"


def test_from_a_file_to_ap_and_on_after_an_interruption(
    run_tool, digits, small, source, module_folder
):
    converted = module_folder / "convnext.pkl"
    told = run_tool("tools/convert_checkpoint.py", str(source), str(converted))
    assert told.returncode == 0, told.stderr
    (line,) = [one for one in told.stdout.splitlines() if "L(build_convnext)" in one]
    config = module_folder / "own.py"
    config.write_text(CONFIG.format(line=line.partition("of your own: ")[2].strip()))

    def train(folder, *words):
        done = run_tool(
            *("tools/train_net.py", "--config-file", str(config), *small, *words),
            *(f"train.init_checkpoint={converted}", f"train.output_dir={folder}"),
            *("train.max_iter=2", "train.checkpointer.period=1", "train.draw_batches=0"),
            "model.backbone.bottom_up.freeze_at=1",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    moved = moved_in_a_run_and_its_resumption(train, module_folder, converted)
    before = read_checkpoint(converted).content["model"]
    assert moved == {name for name in before if not name.startswith("convnext.stem.")}
