"""What the rows of ConvNeXt's recipe cite stands there: in ConvNeXt's config and those that it is made of."""

from pathlib import Path

import pytest
import yaml
from fidelity_files import read
from published_fields import GPUS, ITERATIONS_OF_AN_EPOCH, Facts, in_our_terms

from ssl_backbones.fidelity.rows import normal

FILE = Path("projects/convnext/fidelity.yaml")
RECIPE = "convnext_tiny_3x"
# Each as far as those after it say nothing else.
FILES = ("convnext_model", "swin_data", "swin_schedule", "convnext")
CONTENT = yaml.safe_load(Path(__file__).with_name("convnext.yaml").read_text())
FACTS = {
    key: (f"{name}:{line}", value) for name in FILES for line, key, value in CONTENT[name]["facts"]
}
ROWS = [r for r in read(FILE).rows_of(RECIPE) if r.source.partition(":")[0] in FILES]

NETWORK = "model.backbone"
WAYS = "train_pipeline.3.policies"
TRANSFORMS = "detectron2.data.transforms.augmentation_impl"


def resize(facts, key):
    assert facts(f"{key}.type") == "Resize" and facts(f"{key}.multiscale_mode") == "value"
    assert facts(f"{key}.keep_ratio")
    short, (longest, *others) = zip(*facts(f"{key}.img_scale"), strict=True)
    assert set(others) == {longest}
    return {
        "_target_": f"{TRANSFORMS}.ResizeShortestEdge",
        "short_edge_length": list(short),
        "sample_style": "choice",
        "max_size": longest,
    }


def sizes(facts):
    before, after = (resize(facts, f"{WAYS}.{way}") for way in ("1.2", "0.0"))
    return after if before == after else None


def size_in_testing(facts):
    longest, short = facts("test_pipeline.1.img_scale")
    return {
        "_target_": f"{TRANSFORMS}.ResizeShortestEdge",
        "short_edge_length": short,
        "max_size": longest,
    }


def rate(iteration):
    def rate(facts):
        # MMCV's linear warm-up (mmcv/runner/hooks/lr_updater.py): 1 - (1 - i / n) (1 - ratio).
        missing = max(0, 1 - iteration / facts("lr_config.warmup_iters"))
        factor = 1 - missing * (1 - facts("lr_config.warmup_ratio"))
        return round(facts("optimizer.lr") * factor, 12)

    return rate


FIELDS = {
    "backbone": lambda f: {"ConvNeXt": "ssl_backbones.modeling.convnext.build_convnext"}[
        f(f"{NETWORK}.type")
    ],
    "what only a ResNet has": lambda f: {"ConvNeXt": "(absent)"}[f(f"{NETWORK}.type")],
    "blocks of the stages": lambda f: f(f"{NETWORK}.depths"),
    "channels of the stages": lambda f: f(f"{NETWORK}.dims"),
    "stochastic depth of the last block": lambda f: f(f"{NETWORK}.drop_path_rate"),
    "layer scale without weights": lambda f: f(f"{NETWORK}.layer_scale_init_value"),
    "layer scale": lambda f: f(f"{NETWORK}.layer_scale_init_value") > 0,
    "channel order": lambda f: "RGB" if f("train_pipeline.4.to_rgb") else "BGR",
    "mean of the pixels": lambda f: f("train_pipeline.4.mean"),
    "standard deviation of the pixels": lambda f: f("train_pipeline.4.std"),
    "flip in training": lambda f: {
        "_target_": f"{TRANSFORMS}.{f('train_pipeline.2.type')}",
        "horizontal": True,
        "prob": f("train_pipeline.2.flip_ratio"),
    },
    "flip after the resizing": lambda f: {"AutoAugment": "(absent)"}[f("train_pipeline.3.type")],
    "one of two ways from image to image": lambda f: {
        "AutoAugment": "ssl_backbones.data.augmentations.OneOf"
    }[f("train_pipeline.3.type")],
    "size in training, after the crop as well": sizes,
    "size before the crop": lambda f: resize(f, f"{WAYS}.1.0"),
    "crop": lambda f: {
        "_target_": f"{TRANSFORMS}.{f(f'{WAYS}.1.1.type')}",
        "crop_type": f(f"{WAYS}.1.1.crop_type"),
        "crop_size": f(f"{WAYS}.1.1.crop_size"),
    },
    "size in testing": size_in_testing,
    "training images": lambda f: dataset(f("data.train.ann_file")),
    "test images": lambda f: dataset(f("data.val.ann_file")),
    "batch": lambda f: GPUS * f("data.samples_per_gpu"),
    "optimizer": lambda f: f"torch.optim.adamw.{f('optimizer.type')}",
    "learning rate": lambda f: f("optimizer.lr"),
    "betas": lambda f: f("optimizer.betas"),
    "weight decay": lambda f: f("optimizer.weight_decay"),
    "groups of parameters": lambda f: {
        "layer_wise": "ssl_backbones.modeling.layer_decay.layer_decayed_params"
    }[f("optimizer.paramwise_cfg.decay_type")],
    "learning rate of a layer beside that of the next": lambda f: f(
        "optimizer.paramwise_cfg.decay_rate"
    ),
    "mixed precision": lambda f: {"enabled": f("optimizer_config.use_fp16"), "dtype": "fp16"},
    "warm-up, iterations": lambda f: f("lr_config.warmup_iters"),
    "warm-up, first factor": lambda f: f("lr_config.warmup_ratio"),
    "warm-up, shape": lambda f: f("lr_config.warmup"),
    **{f"learning rate in iteration {i}, as built": rate(i) for i in (0, 250, 500)},
    "factors of the learning rate": lambda f: {"step": [1, 0.1, 0.01]}[f("lr_config.policy")],
    "iterations": lambda f: ITERATIONS_OF_AN_EPOCH * f("runner.max_epochs"),
    "steps": lambda f: [ITERATIONS_OF_AN_EPOCH * epoch for epoch in f("lr_config.step")],
}


def dataset(file):
    return f"coco_2017_{file.removeprefix('annotations/instances_').removesuffix('2017.json')}"


def published(row, facts):
    # The detector's part has the names that MMDetection's later versions kept.
    return FIELDS[row.field](facts) if row.field in FIELDS else in_our_terms(row, facts)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.field)
def test_what_a_row_cites_stands_there(row):
    facts = Facts(FACTS)
    assert normal(published(row, facts)) == normal(row.published)
    assert row.source in facts.places


def test_the_files_are_those_of_the_sources_and_nothing_is_clipped():
    for name, content in CONTENT.items():
        assert content["file"] in read(FILE).sources[name]
        assert content["commit"] in read(FILE).sources[name]
    assert len(ROWS) > 60
    assert FACTS["optimizer_config.grad_clip"][1] is None
